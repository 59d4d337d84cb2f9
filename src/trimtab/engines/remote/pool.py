"""Several servers of one model as one engine: calls are spread over them, and what one leaves unanswered another gets.

Only what gives the same again is asked again: captures, scores, encodings, and generations that are greedy or seeded.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from trimtab.engines.base import CaptureItem, Engine
from trimtab.engines.remote.connection import Connection, Unanswered
from trimtab.engines.remote.engine import CALL, RemoteEngine
from trimtab.engines.remote.forms import info_form
from trimtab.engines.remote.spreading import Job, Spread
from trimtab.engines.requests import Event, Message, Request, Score
from trimtab.errors import InputError, Mismatch, TrimtabError
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

T = TypeVar("T")


class Pool(Engine):
    """Several `RemoteEngine`s of the same model; `concurrency` holds for each. Vectors travel with every call, to
    whichever server it goes."""

    name = "remote"

    def __init__(self, servers: Sequence[RemoteEngine]) -> None:
        _check_same(servers)
        super().__init__(servers[0].info)
        self.servers, self.served = tuple(servers), servers[0].served
        self._lock: Any = contextlib.nullcontext()  # the servers have their own queues
        self._spread = Spread([s.line for s in servers])
        self._at = {s.line: s for s in servers}

    def close(self) -> None:
        """Hang up; the servers stay."""
        for server in self.servers:
            server.close()

    def module_names(self) -> dict[Site, str]:
        """As the served engines name them."""
        return self.servers[0].module_names()

    # --- text -----------------------------------------------------------------------------------------------

    def _encode_text(self, text: str) -> Prompt:
        return self._one(lambda server: server._encode_text(text))

    def _encode_continuation(self, text: str) -> Sequence[int]:
        return self._one(lambda server: server._encode_continuation(text))

    def _encode_messages(
        self, messages: Sequence[Message], generation_prompt: bool, prefill: str | None, thinking: bool | None
    ) -> Prompt:
        return self._one(lambda s: s._encode_messages(messages, generation_prompt, prefill, thinking))

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """Text of tokens, by a server's tokenizer."""
        return self._one(lambda server: server.decode(tokens, special))

    def _one(self, call: Callable[[RemoteEngine], T]) -> T:
        (found,) = self._in_order([None], 1, lambda server, _: [call(server)])
        return found

    # --- running --------------------------------------------------------------------------------------------

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        return self._events(requests, steps=True)

    def _finished(self, requests: Sequence[Request]) -> Iterator[Event]:
        return self._events(requests, steps=False)

    def _events(self, requests: Sequence[Request], steps: bool) -> Iterator[Event]:
        """Every event once. With `steps` those of single tokens, too: a repeated sample has to go on where it broke
        off."""
        shown: defaultdict[tuple[int, int], list[int | None]] = defaultdict(list)
        done: set[tuple[int, int]] = set()

        def ask(line: Connection, job: Job) -> Iterator[tuple[str, int, Event]]:
            at: Counter[tuple[int, int]] = Counter()
            for event in self._at[line]._iterate([requests[i] for i in job]):
                place = job[event.request]
                yield line.url, at[place, event.index], replace(event, request=place)
                at[place, event.index] += 1

        def rest(job: Job, error: Unanswered) -> list[Job]:
            left = [i for i in job if any((i, j) not in done for j in range(requests[i].sampling.n))]
            if error.began and any(_drawn(requests[i]) for i in left):
                raise TrimtabError(f"{error}; a sample without a seed is not drawn again: give it a seed")
            return [left] if left else []

        size = min(s._streams.size for s in self.servers)
        for url, step, event in self._spread.run(self._spread.jobs(len(requests), size), ask, rest):
            key = event.request, event.index
            before = shown[key]
            if key in done or (event.sample is None and not steps):
                continue
            again = step < len(before)
            if again and (event.sample is not None or before[step] != event.token):
                raise TrimtabError(
                    f"{url} does not repeat sample {key} as the server that went away had begun it: withheld"
                )
            if again:
                continue
            if event.sample is None:
                before.append(event.token)
            else:
                done.add(key)
            yield event

    def _capture(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
    ) -> list[dict[Site, np.ndarray]]:
        return self._in_order(items, CALL, lambda server, part: server._capture(part, sites, at))

    def _pool(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], advance: Callable[[int], None] | None
    ) -> dict[Site, np.ndarray]:
        def means(server: RemoteEngine, part: list[CaptureItem]) -> list[dict[Site, np.ndarray]]:
            found = server._pool(part, sites, None)
            return [{s: found[s][i] for s in sites} for i in range(len(part))]

        rows = self._in_order(items, CALL, means, advance)
        return {s: np.stack([r[s] for r in rows]) for s in sites}

    def _score(self, items: Sequence[tuple[Prompt, int, ResolvedPlan, str]]) -> list[Score]:
        return self._in_order(items, CALL, lambda server, part: server._score(part))

    def _in_order(
        self,
        items: Sequence[Any],
        most: int,
        call: Callable[[RemoteEngine, list[Any]], Sequence[T]],
        advance: Callable[[int], None] | None = None,
    ) -> list[T]:
        """One answer for each item, whoever gave it; `advance(done)` counts them as they come."""
        found: dict[int, T] = {}

        def ask(line: Connection, job: Job) -> Iterator[tuple[Job, Sequence[T]]]:
            yield job, call(self._at[line], [items[i] for i in job])

        for job, answers in self._spread.run(self._spread.jobs(len(items), most), ask, lambda job, _: [job]):
            found.update(zip(job, answers, strict=True))
            if advance is not None:
                advance(len(found))
        return [found[i] for i in range(len(items))]


def _drawn(request: Request) -> bool:
    """Whether a request gives something else every time."""
    return request.sampling.temperature > 0 and request.sampling.seed is None


def _check_same(servers: Sequence[RemoteEngine]) -> None:
    """Refuse an address that is there twice, and servers whose answers could differ."""
    first, *others = servers
    urls = [s.line.url for s in servers]
    if twice := [u for u, n in Counter(urls).items() if n > 1]:
        raise InputError(f"{twice[0]} is named more than once; name every server once, and raise concurrency")
    here = _described(first)
    for other in others:
        there = _described(other)
        differ = [f"{k} {_shown(here[k])} and {_shown(there[k])}" for k in here if here[k] != there[k]]
        if differ:
            raise Mismatch(
                f"{first.line.url} and {other.line.url} do not serve the same model: {'; '.join(differ)}. Serve one "
                "model, with the same engine and flags, at all addresses"
            )


def _described(server: RemoteEngine) -> dict[str, Any]:
    return {**info_form(server.info), "engine": server.served}


def _shown(value: Any) -> str:
    return f"of {len(value)} sites" if isinstance(value, dict) else str(value)
