"""`trimtab chat`: a conversation in the terminal, steered and read, where both change between turns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError, TrimtabError

from .frame import Desk, verb
from .library import library_option
from .models import glance, model_options, open_engine, spoken_warnings

if TYPE_CHECKING:
    from .chat_local import Side


@verb("chat")
@click.argument("model", metavar="MODEL|URL")
@click.option("--system", default=None, help="System message.")
@click.option("--plan", default=None, metavar="FILE", help="A plan to begin with, in YAML or JSON.")
@click.option(
    "--read", multiple=True, metavar="FILE[:concept]", help="What to read (a server's concept, for a URL)."
)
@click.option("--max-tokens", type=click.IntRange(1), default=256, help="Most tokens of a reply.")
@click.option("--temperature", type=float, default=0.0, help="0 is greedy.")
@click.option("--top-p", type=float, default=1.0, help="Nucleus to sample from.")
@click.option("--api-key", default=None, help="Key of the server, for a URL.")
@library_option
@model_options
def chat(desk: Desk, model: str, engine: str, **flags: Any) -> None:
    """Talk to MODEL (a folder, a hub id or "embedded") or to a server, by its URL.

    Lines are questions; /steer, /plan, /off, /read, /undo, /seed, /save, /help and /quit are commands. Lines may be
    piped in; the first that fails ends the run then. --json prints the whole conversation as one record at its end.
    """
    from trimtab.engines.requests import Sampling

    from .chat_session import Session

    sampling = Sampling(flags["max_tokens"], flags["temperature"], flags["top_p"], seed=desk.seed)
    with spoken_warnings(desk), _side(desk, model, engine, flags) as side:
        session = Session(desk, side, sampling)
        if flags["system"]:
            session.messages.append({"role": "system", "content": flags["system"]})
        if flags["plan"]:
            session.take(f"/plan {flags['plan']}")
        if flags["read"]:
            session.take(f"/read {' '.join(flags['read'])}")
        person = sys.stdin.isatty()
        if person:
            desk.note("/help lists the commands; /quit or Ctrl-D ends")
        for line in _lines(person):
            try:
                if not session.take(line):
                    break
            except TrimtabError as error:
                if not person:
                    raise
                desk.note(f"error: {error}")
        if desk.as_json:
            desk.result(session.record())


def _lines(person: bool) -> Iterator[str]:
    """What is typed or piped in, to its end."""
    if not person:
        yield from sys.stdin
        return
    import importlib.util

    if importlib.util.find_spec("readline"):
        import readline  # noqa: F401 (gives input() a history)
    while True:
        try:
            yield input("> ")
        except EOFError:
            return


@contextmanager
def _side(desk: Desk, model: str, engine: str, flags: dict[str, Any]) -> Iterator[Side]:
    from .chat_local import Local
    from .chat_remote import Remote
    from .servers import connect, is_url

    if is_url(model):
        for name in ("dtype", "device"):
            if flags[name] is not None:
                raise InputError(f"the server has loaded its model already; leave --{name} out")
        with connect(model, flags["api_key"]) as client:
            yield Remote(client)
        return
    if flags["api_key"] is not None:
        raise InputError("--api-key belongs to the URL of a server")
    glance(model, engine)
    options = {k: flags[k] for k in ("dtype", "device")}
    with open_engine(desk, model, engine, **options) as loaded:
        yield Local(desk, loaded, model)
