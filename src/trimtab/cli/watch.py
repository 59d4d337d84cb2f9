"""`trimtab watch`: the readings of a server's traffic as live bars."""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError, TrimtabError

from .frame import Desk, verb

if TYPE_CHECKING:
    import httpx

    from .watch_board import Board

#: Steps between layers for each key: arrows (as terminals send them), vi's and the plain ones.
TURNS = {"\x1b[C": 1, "\x1b[D": -1, "l": 1, "h": -1, "+": 1, "-": -1}


@verb("watch")
@click.argument("url")
@click.option(
    "--layer", type=int, default=None, help="Layer to begin with [default: where the file reads best]."
)
@click.option("--api-key", default=None, help="Key of the server.")
@click.option("--once", is_flag=True, help="Wait for one reply, print the means of what was read, and stop.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=600.0,
    help="With --once: seconds to wait for that reply.",
)
def watch(desk: Desk, url: str, layer: int | None, api_key: str | None, once: bool, timeout: float) -> None:
    """Watch the readings of everything that the server at URL generates; it has to run with --feed.

    Bars are means over the last 64 tokens, in standard deviations of neutral text; concepts keep their order. Keys:
    left and right change the layer, q ends. --once, which --json implies, prints the means of one reply.
    """
    from .servers import connect, is_url
    from .watch_board import Board

    if not is_url(url):
        raise InputError(f"watch needs the URL of a server, such as http://127.0.0.1:8000; got {url!r}")
    once = once or desk.as_json
    if not once and not (sys.stdin.isatty() and sys.__stdout__ is not None and sys.__stdout__.isatty()):
        raise InputError("live bars need a terminal: add --once or --json")
    with connect(url, api_key) as client, _events(client) as next_event:
        head = next_event(timeout)
        if head is None:
            raise TrimtabError(f"the feed of {url} says nothing")
        board = Board.of(head, layer)
        if not once:
            _live(board, next_event)
            return
        desk.note(f"watching {url}")
        until = time.monotonic() + timeout
        while not any(e["tokens"] for e in board.finished):
            event = next_event(until - time.monotonic())
            if event is None:
                raise TrimtabError(f"no reply was finished within {timeout:g} s")
            board.take(event)
        desk.result(board.record(), text=board.render(board.mean()))


@contextlib.contextmanager
def _events(client: httpx.Client) -> Iterator[Callable[[float], dict[str, Any] | None]]:
    """A call for the next event (None where none comes in so many seconds); a thread listens."""
    import httpx

    from .servers import server_error

    found: queue.Queue[dict[str, Any] | TrimtabError] = queue.Queue()
    gone = threading.Event()

    def listen() -> None:
        try:
            with client.stream("GET", "/v1/readings") as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise server_error(answer.status_code, answer.text, "/v1/readings")
                for line in answer.iter_lines():
                    if gone.is_set():
                        return
                    if line.startswith("data: "):
                        found.put(json.loads(line[len("data: ") :]))
            found.put(TrimtabError("the server has ended the feed"))
        except TrimtabError as error:
            found.put(error)
        except (httpx.HTTPError, httpx.StreamError, ValueError, RuntimeError) as error:
            found.put(TrimtabError(f"{client.base_url} does not answer: {error}"))

    def next_event(seconds: float) -> dict[str, Any] | None:
        try:
            event = found.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        if isinstance(event, TrimtabError):
            raise event
        return event

    threading.Thread(target=listen, name="trimtab-watch", daemon=True).start()
    try:
        yield next_event
    finally:
        gone.set()


def _live(board: Board, next_event: Callable[[float], dict[str, Any] | None]) -> None:
    """Until q or Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    console = Console(file=sys.__stdout__)
    with _keys() as pressed, Live(board.render(), console=console, auto_refresh=False) as live:
        while True:
            until = time.monotonic() + 0.1
            while (left := until - time.monotonic()) > 0:
                event = next_event(left)
                if event is not None:
                    board.take(event)
            for key in pressed():
                if key == "q":
                    return
                board.turn(TURNS.get(key, 0))
            live.update(board.render(), refresh=True)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], list[str]]]:
    """A call for the keys that were pressed since the last one; without a POSIX terminal there are none."""
    try:
        import os
        import select
        import termios
        import tty
    except ImportError:
        yield list
        return
    place = sys.stdin.fileno()
    before = termios.tcgetattr(place)

    def pressed() -> list[str]:
        found = ""
        while select.select([place], [], [], 0)[0] and (more := os.read(place, 64)):
            found += more.decode("utf-8", "ignore")
        return split(found)

    tty.setcbreak(place)
    try:
        yield pressed
    finally:
        termios.tcsetattr(place, termios.TCSADRAIN, before)


def split(text: str) -> list[str]:
    """Keys in what a terminal sent: an arrow is three characters."""
    keys = []
    while text:
        size = 3 if text.startswith("\x1b[") else 1
        keys.append(text[:size])
        text = text[size:]
    return keys
