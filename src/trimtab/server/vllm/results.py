"""What the workers report of requests under way, kept in the server's event loop: one `Record` for every sample."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import numpy as np

from trimtab.engines.vllm.kernel import Address, Report
from trimtab.engines.vllm.ledger import PATIENCE, Record, sample_of
from trimtab.errors import SteeringLost

#: Seconds after which somebody who waits looks whether the workers live.
GLANCE = 1.0


class Samples:
    """The records of one prompt; vLLM runs its `n` samples as requests of their own, under one ticket."""

    def __init__(self, key: str, n: int, total: int, dead: Callable[[], bool] = lambda: False) -> None:
        self.key, self.total, self.dead = key, total, dead
        self.records = [Record(key, total) for _ in range(n)]
        self.news = asyncio.Event()

    def of(self, id: str) -> Record | None:
        """The record of vLLM's internal request `id`."""
        index = sample_of(id, len(self.records))
        return None if index is None else self.records[index]

    @property
    def lost(self) -> str:
        return next((r.lost for r in self.records if r.lost), "")


class Results:
    """`take` is called by the receiver's thread, everything else in the event loop. `dead()` says whether the workers
    are gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dead: Callable[[], bool] = lambda: False) -> None:
        self.loop, self._dead = loop, dead
        self._open: dict[str, Samples] = {}

    def open(self, key: str, n: int, total: int) -> Samples:
        """Expect results for `key`."""
        found = self._open[key] = Samples(key, n, total, self._dead)
        return found

    def close(self, key: str) -> None:
        """Expect nothing more; what still comes is dropped."""
        self._open.pop(key, None)

    def __len__(self) -> int:
        return len(self._open)

    def take(self, reports: list[Report], results: list[tuple[Address, np.ndarray]]) -> None:
        """One step of the workers."""
        self.loop.call_soon_threadsafe(self._take, reports, results)

    def _take(self, reports: list[Report], results: list[tuple[Address, np.ndarray]]) -> None:
        for (key, id, layer, readout, positions), rows in results:
            if (record := self._record(key, id)) is not None:
                record.keep(layer, readout, positions, rows)
        for key, id, position, count, lost in reports:
            if (record := self._record(key, id)) is not None:
                record.report(position, count, lost)
                self._open[key].news.set()

    def _record(self, key: str, id: str) -> Record | None:
        samples = self._open.get(key)
        return None if samples is None else samples.of(id)


async def until(samples: Samples, ready: Callable[[], bool], what: str) -> None:
    """Until `ready()`, which is asked again at every step; raises when the request is lost, the workers are gone, or
    nothing comes."""
    time = asyncio.get_running_loop().time
    deadline = time() + PATIENCE
    while True:
        samples.news.clear()
        if samples.lost:
            raise SteeringLost(f"the request was not steered as asked, and is withheld: {samples.lost}")
        if ready():
            return
        if samples.dead():
            raise SteeringLost(f"vLLM's workers are gone before {what} arrived; the output is withheld")
        if time() >= deadline:
            raise SteeringLost(f"{what} did not arrive in {PATIENCE:.0f} s; the output is withheld")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(deadline, time() + GLANCE)):
                await samples.news.wait()
