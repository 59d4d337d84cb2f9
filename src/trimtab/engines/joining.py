"""A batch that runs on: requests join it between two tokens, and their samples leave it one by one.

An engine that can do this returns an `Opening` from `_opening`, which begins a `Part`: some samples on their way from
their prompts to their ends. Newcomers run their prompts as a part of their own, beside the one that runs, which then
absorbs it. Who joins when is decided here, once for all engines:

* Samples join in the order of their arrival, no more than `rows` at once, and only while the caches have room for the
  next `HORIZON` tokens of everybody; a sample that would run alone is always let in.
* Between two tokens of those that run, at most `piece` tokens of newcomers' prompts are run: short prompts together, a
  longer prompt alone and in pieces, with a token for everybody after each.
* An error in the newcomers' prompts is theirs alone; one in the running part ends all that run, and nobody else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trimtab.engines.exactness import complete
from trimtab.engines.requests import Event, Request
from trimtab.prompts import Prompt

if TYPE_CHECKING:
    from trimtab.engines.base import Engine

#: Tokens ahead for which a newcomer must find room; most answers are shorter than their limit.
HORIZON = 1_024
#: The key of a request, the index of one of its samples, and the prepared request.
Place = tuple[int, int, Request]


@dataclass(frozen=True, eq=False)
class Failure:
    """A request ends with an error; those beside it go on, or have failures of their own."""

    request: int
    error: Exception


class Part(ABC):
    """Some samples that run together. Between two calls every one of them stands before its next token."""

    @abstractmethod
    def prefill(self) -> bool:
        """Run the next piece of the prompts; whether this was the last one."""

    @abstractmethod
    def absorb(self, other: Any) -> None:
        """Take in the samples of a part of the same engine whose prompts have run; it is not used afterwards."""

    @abstractmethod
    def step(self) -> Iterator[Event]:
        """One token for every sample, and the last event of those that end with it. To be run to its end."""

    @abstractmethod
    def leave(self, key: int) -> None:
        """Stop the samples of a request without further events."""

    @abstractmethod
    def keys(self) -> list[int]:
        """For every sample that still runs, the key of its request."""


@dataclass(frozen=True)
class Opening:
    """How an engine runs an open batch: `begin` makes a part, `piece` is the most prompt tokens between two tokens,
    `cells` the most rows times tokens that the caches may hold (None: no limit)."""

    begin: Callable[[Sequence[Place]], Part]
    piece: int
    cells: int | None = None


@dataclass(eq=False)
class _Guest:
    request: Request
    tokens: dict[int, int] = field(default_factory=dict)
    begun: bool = False

    @property
    def reach(self) -> int:
        """Tokens that its longest sample may have soon."""
        assert isinstance(self.request.prompt, Prompt)
        made = max(self.tokens.values(), default=0)
        return len(self.request.prompt) + made + min(self.request.sampling.max_tokens - made, HORIZON)


class OpenBatch:
    """One engine's open batch of at most `rows` samples. Its methods are called by one thread; the engine is free for
    other calls between two steps."""

    def __init__(self, engine: Engine, opening: Opening, rows: int) -> None:
        self.engine, self.opening, self.rows = engine, opening, rows
        self._guests: dict[int, _Guest] = {}
        self._line: deque[Place] = deque()
        self._coming: Part | None = None
        self._running: Part | None = None

    @property
    def active(self) -> int:
        """Samples that have a row."""
        return sum(len(p.keys()) for p in (self._coming, self._running) if p is not None)

    @property
    def full(self) -> bool:
        """Whether every row is taken or promised: another request would have to wait inside."""
        return self.active + len(self._line) >= self.rows

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._guests

    def holds(self, key: int) -> bool:
        """Whether a request is in here: waiting, or not yet done with all its samples."""
        return key in self._guests

    def join(self, key: int, request: Request) -> None:
        """Take in a prepared request; its events carry `key` and come with later steps."""
        self._guests[key] = _Guest(request)
        self._line.extend((key, j, request) for j in range(request.sampling.n))

    def leave(self, key: int) -> None:
        """Let a request go that nobody waits for any more."""
        self._guests.pop(key, None)
        self._line = deque(p for p in self._line if p[0] != key)
        for part in (self._coming, self._running):
            if part is not None:
                part.leave(key)

    def step(self) -> Iterator[Event | Failure]:
        """One token for everybody who runs, and a piece of the prompts of those who come. To be run to its end."""
        with self.engine._lock:
            yield from self._welcome()
            running = self._running
            if running is None:
                return
            keys = running.keys()
            try:
                for event in running.step():
                    yield self._seen(event)
            except Exception as error:
                self._running = None
                yield from self._lost(error, keys)
            else:
                self._running = running if running.keys() else None

    # --- parts ----------------------------------------------------------------------------------------------

    def _welcome(self) -> Iterator[Failure]:
        """Run the next prompts; those that are done join the others."""
        coming, self._coming = self._coming, None
        keys = [] if coming is None else coming.keys()
        try:
            if coming is None:
                places = self._admit()
                keys = [key for key, _, _ in places]
                coming = self.opening.begin(places) if places else None
            if coming is None or not coming.keys():  # nobody comes, or all have left meanwhile
                return
            if not coming.prefill():
                self._coming = coming
                return
        except Exception as error:
            yield from self._lost(error, keys)
            return
        running = self._running
        if running is None or not running.keys():
            self._running = coming
            return
        keys += running.keys()
        try:
            running.absorb(coming)
        except Exception as error:
            self._running = None
            yield from self._lost(error, keys)

    def _admit(self) -> list[Place]:
        """Those who begin now."""
        chosen: list[Place] = []
        prompts: dict[int, int] = {}  # lengths; the samples of one request share one
        taken = self.active
        while self._line and taken + len(chosen) < self.rows:
            key, _, request = self._line[0]
            assert isinstance(request.prompt, Prompt)
            columns = max([len(request.prompt), *prompts.values()])
            if prompts and key not in prompts and (len(prompts) + 1) * columns > self.opening.piece:
                break
            if not self._fits(taken + len(chosen), self._guests[key]):
                break
            prompts[key] = len(request.prompt)
            self._guests[key].begun = True
            chosen.append(self._line.popleft())
        return chosen

    def _fits(self, others: int, guest: _Guest) -> bool:
        if self.opening.cells is None or not others:
            return True
        longest = max([guest.reach, *(g.reach for g in self._guests.values() if g.begun)])
        return (others + 1) * longest <= self.opening.cells

    def _seen(self, event: Event) -> Event:
        """The event, if it is complete; a request whose samples are all done is forgotten."""
        guest = self._guests[event.request]
        complete(event, guest.request, self.engine.info)
        if event.token is not None:
            guest.tokens[event.index] = guest.tokens.get(event.index, 0) + 1
        if event.sample is not None:
            guest.tokens[event.index] = -1  # ended: needs no more room
            if len(guest.tokens) == guest.request.sampling.n and set(guest.tokens.values()) == {-1}:
                del self._guests[event.request]
        return event

    def _lost(self, error: Exception, keys: Sequence[int]) -> Iterator[Failure]:
        """Failures of requests, all of whose samples leave."""
        for key in dict.fromkeys(keys):
            if key in self._guests:
                self.leave(key)
                yield Failure(key, error)
