"""Generations over the wire: requests in groups, groups side by side, their events in one stream."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from trimtab.engines.remote.connection import Connection, Unanswered
from trimtab.engines.remote.forms import event_of, plan_form, readout_form
from trimtab.engines.remote.packing import MEDIA, STREAM, Tensors, frames, pack
from trimtab.engines.remote.receipts import check_answer, check_sample
from trimtab.engines.requests import Event, Request
from trimtab.errors import InputError, SteeringLost, TrimtabError
from trimtab.prompts import Prompt, resolve_positions
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlan


class Streams:
    """Sends prepared requests, at most `size` in a call."""

    def __init__(self, line: Connection, identity: str, size: int) -> None:
        self.line, self.identity, self.size = line, identity, size

    def events(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Events of all requests; each one's own are in order. What goes wrong in one call ends all."""
        starts = range(0, len(requests), self.size)
        if len(starts) == 1:
            yield from self._group(requests, 0)
        elif starts:
            yield from self._side_by_side([(requests[i : i + self.size], i) for i in starts])

    def _side_by_side(self, groups: list[tuple[Sequence[Request], int]]) -> Iterator[Event]:
        waiting: queue.SimpleQueue[tuple[Sequence[Request], int]] = queue.SimpleQueue()
        for group in groups:
            waiting.put(group)
        told: queue.Queue[Event | BaseException | None] = queue.Queue()
        left = threading.Event()

        def work() -> None:
            try:
                while not left.is_set():
                    group, first = waiting.get_nowait()
                    for event in self._group(group, first):
                        told.put(event)
                        if left.is_set():
                            break
            except queue.Empty:
                pass
            except BaseException as error:
                told.put(error)
            finally:
                told.put(None)

        workers = min(self.line.concurrency, len(groups))
        for _ in range(workers):
            threading.Thread(target=work, name="trimtab-remote", daemon=True).start()
        try:
            while workers:
                found = told.get()
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    workers -= 1
                else:
                    yield found
        finally:
            left.set()  # a worker hangs up at its next event, and the server then stops

    def _group(self, requests: Sequence[Request], first: int) -> Iterator[Event]:
        """Events of one call; `first` is the place of its first request among all."""
        tensors: Tensors = {}
        readouts: dict[int, dict[str, Any]] = {}
        head = {"requests": [_form(r, tensors, readouts) for r in requests]}
        wanted = {(i, j) for i, r in enumerate(requests) for j in range(r.sampling.n)}
        plans = [r.plan for r in requests if isinstance(r.plan, ResolvedPlan)]
        begun = False
        with self.line.stream("/v1/engine/generate", pack(head, tensors), MEDIA, STREAM) as pieces:
            for told, arrays in _read(frames(pieces)):
                if "error" in told:
                    fault = told["error"]
                    raise self.line.error(fault["code"], fault["message"], fault.get("kind"))
                if not begun:
                    check_answer(told, self.identity, plans)
                    begun = True
                    continue
                if told.get("done"):
                    break
                event = _event(told, arrays, requests)
                if event.sample is not None:
                    check_sample(event.sample, requests[event.request])
                    wanted.discard((event.request, event.index))
                yield replace(event, request=event.request + first)
            else:
                raise Unanswered(f"the answer of {self.line.url} broke off before its end: withheld")
        if wanted:
            raise SteeringLost(f"the answer lacks samples (request, index) {sorted(wanted)}: withheld")


def _read(pairs: Iterator[tuple[dict[str, Any], Tensors]]) -> Iterator[tuple[dict[str, Any], Tensors]]:
    """What is malformed in an answer is the server's fault, not the caller's."""
    try:
        yield from pairs
    except InputError as error:
        raise TrimtabError(f"the answer is damaged: {error}") from error


def _event(told: dict[str, Any], arrays: Tensors, requests: Sequence[Request]) -> Event:
    sample = told.get("sample")
    if sample is not None and not sample.get("applied"):
        raise SteeringLost(
            "a finished sample lacks its receipt, so nothing shows that it was steered: withheld"
        )
    try:
        return event_of(told, arrays, requests[told["request"]].readout)
    except (LookupError, TypeError, ValueError) as error:
        raise TrimtabError(f"the answer is damaged: {type(error).__name__}: {error}") from error


def _form(request: Request, tensors: Tensors, readouts: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """One request; positions are absolute already, and equal readouts travel once."""
    assert isinstance(request.prompt, Prompt) and isinstance(request.plan, ResolvedPlan)
    sampling = dataclasses.asdict(request.sampling)
    if sampling["resumes"] is None:  # a server that does not know of it need not
        del sampling["resumes"]
    out: dict[str, Any] = {
        "tokens": list(request.prompt.tokens),
        "plan": plan_form(request.plan, tensors),
        "sampling": sampling,
    }
    if request.capture is not None:
        ranges = resolve_positions(request.capture.positions, request.prompt)
        sites = [s.key for s in request.capture.sites]
        out["capture"] = {"sites": sites, "ranges": [list(r) for r in ranges], "at": request.capture.at}
    readout: Readout | None = request.readout
    if readout is not None:
        if id(readout) not in readouts:
            readouts[id(readout)] = readout_form(readout, f"readout{len(readouts)}", tensors)
        out["readout"] = readouts[id(readout)]
    return out
