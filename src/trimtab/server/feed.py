"""The feed: readings of all traffic for those who watch it, without a word of anybody's text.

Everything here runs in the server's event loop. Nothing is read for the feed while nobody watches.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.errors import InputError
from trimtab.readouts import Readout
from trimtab.server.busy import Busy
from trimtab.sites import ModelInfo, Site

#: Who may watch at once; events that wait for one of them; seconds of silence before a sign of life.
WATCHERS, WAITING, PULSE = 16, 4096, 15.0


class Feed:
    """What is read for it: all concepts of the server's default vectors at all of their layers, as z where the file
    stores mean and std."""

    def __init__(self, vectors: ConceptVectors | None, info: ModelInfo) -> None:
        if vectors is None:
            raise InputError("TRIMTAB_FEED needs vectors to read with: set TRIMTAB_READOUT_VECTORS")
        sites = [Site(n) for n in vectors.choose_layers("all", info.n_layers)]
        tables = [vectors.table(s) for s in sites]
        z = all(t.mean is not None and t.std is not None and bool((t.std > 0).all()) for t in tables)
        self.readout = Readout.from_vectors(vectors, sites, z=z)
        self.readout.check_model(info)
        self._layer = vectors.read_site(info.n_layers).layer
        self._watchers: set[_Watcher] = set()
        self._open = True

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        return bool(self._watchers)

    def head(self) -> dict[str, Any]:
        """What the numbers are."""
        return {
            "event": "head",
            "layers": [s.layer for s in self.readout.sites],
            "concepts": list(self.readout.concepts),
            "z": self.readout.z,
            "align": "emitting",
            "default_layer": self._layer,
        }

    def token(self, request: str, index: int, position: int, values: np.ndarray) -> None:
        """The readings [L, C] of the state at `position`, which has emitted a token."""
        listed = [[float(f"{v:.5g}") if np.isfinite(v) else None for v in row] for row in values.tolist()]
        self._tell(
            {"event": "token", "request": request, "index": index, "position": position, "values": listed}
        )

    def rule(self, request: str, index: int, firing: dict[str, Any]) -> None:
        """A rule fired; what it does is its kind alone."""
        done = [a if isinstance(a, str) else next(iter(a)) for a in firing["then"]]
        self._tell({"event": "rule", "request": request, "index": index, **firing, "then": done})

    def end(self, request: str, index: int, finish: str) -> None:
        """A sample is finished, or its client is gone ("abandoned")."""
        self._tell({"event": "end", "request": request, "index": index, "finish": finish})

    def _tell(self, event: dict[str, Any]) -> None:
        for watcher in self._watchers:
            watcher.put(event)

    def join(self) -> AsyncIterator[str]:
        """Server-sent events from now on; refused where too many watch."""
        if not self._open:
            raise Busy("the server is shutting down")
        if len(self._watchers) >= WATCHERS:
            raise Busy(f"{WATCHERS} clients watch already; try again later")
        watcher = _Watcher()
        self._watchers.add(watcher)
        return self._stream(watcher)

    async def _stream(self, watcher: _Watcher) -> AsyncIterator[str]:
        try:
            yield _sse(self.head())
            while self._open:
                try:
                    async with asyncio.timeout(PULSE):
                        await watcher.news.wait()
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                for event in watcher.take():
                    yield _sse(event)
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """Send everybody home: a server does not end while somebody listens."""
        self._open = False
        for watcher in self._watchers:
            watcher.news.set()


class _Watcher:
    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._events: deque[dict[str, Any]] = deque()
        self._dropped = 0

    def put(self, event: dict[str, Any]) -> None:
        """Who does not listen loses the oldest events, and is told how many."""
        if len(self._events) >= WAITING:
            self._events.popleft()
            self._dropped += 1
        self._events.append(event)
        self.news.set()

    def take(self) -> list[dict[str, Any]]:
        events, dropped = list(self._events), self._dropped
        self._events.clear()
        self._dropped = 0
        self.news.clear()
        return [{"event": "dropped", "count": dropped}, *events] if dropped else events


def _sse(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"
