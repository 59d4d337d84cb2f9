"""What has come back from the worker, request by request: which positions went through, captured rows, readings.

A request is whole when every position that was computed for it is reported. One that is not, or that the worker calls
lost, raises `SteeringLost`: its output is never given out as if it had been steered.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from trimtab.engines.handles import CaptureHandle
from trimtab.engines.vllm.captured import Captured
from trimtab.engines.vllm.kernel import Address, Report
from trimtab.errors import SteeringLost
from trimtab.sites import Site

#: Seconds that a result may lag behind the token that it belongs to.
PATIENCE = 60.0


def sample_of(id: str, n: int) -> int | None:
    """Which of a request's `n` samples vLLM's internal request `id` is; sample i of several is called `i_…`."""
    if n == 1:
        return 0
    match = re.match(r"(\d+)_", id)
    index = int(match[1]) if match else n
    return index if index < n else None


class Record:
    """One request's results; `total` is the most positions that it can reach."""

    def __init__(self, key: str, total: int) -> None:
        self.key = key
        self.passed = np.zeros(total, dtype=bool)
        self.lost = ""
        self.captured: dict[int, Captured] = {}
        self.read: dict[int, dict[int, np.ndarray]] = {}

    def keep(self, layer: int, readout: str, positions: Sequence[tuple[int, int]], rows: np.ndarray) -> None:
        """Captured rows, or products with a readout's rows, [n, ...] of the half-open ranges `positions`."""
        if readout:
            where = (p for a, b in positions for p in range(a, b))
            self.read.setdefault(layer, {}).update(zip(where, rows, strict=True))
            return
        try:
            if layer not in self.captured:
                self.captured[layer] = Captured(len(self.passed), rows.shape[1])
            self.captured[layer].keep(positions, rows)
        except OSError as error:
            self.lost = self.lost or f"there is no room for the states that it captured: {error}"

    def report(self, position: int, count: int, lost: str) -> None:
        """So many positions went through; the first loss is the one that is told."""
        self.passed[position : position + count] = True
        self.lost = self.lost or lost

    def rows(self, layer: int, positions: np.ndarray) -> np.ndarray:
        """The captured states [n, width] at `positions`."""
        return self._held(layer, positions).at(positions)

    def handle(self, sites: Sequence[Site], positions: np.ndarray, at: str, width: int) -> CaptureHandle:
        """The captured states of several layers at `positions`, which must be there, unread."""
        held = {s: self._held(s.layer, positions) if len(positions) else Captured(0, width) for s in sites}
        return CaptureHandle(held, positions, at)

    def whole_to(self, end: int, prompt: int) -> bool:
        """Whether every position below `end`, from the first one that was computed, went through; those before it came
        from the cache, but never the last one of a `prompt` of so many tokens."""
        first = int(self.passed[:end].argmax())
        return bool(self.passed[first:end].all()) and first < prompt

    def _held(self, layer: int, positions: np.ndarray) -> Captured:
        found = self.captured.get(layer)
        lacking = len(positions) if found is None else int((~found.there[positions]).sum())
        if found is None or lacking:
            raise SteeringLost(
                f"{lacking} of {len(positions)} captured states of layer {layer} never arrived"
            )
        return found

    def reading(self, layers: Sequence[int], position: int) -> list[np.ndarray] | None:
        """The products [concepts] with the readout's rows at each layer; None until they are there."""
        found = [self.read.get(layer, {}).get(position) for layer in layers]
        return None if any(f is None for f in found) else found  # type: ignore[return-value]


class Ledger:
    """Records of the requests in flight; `take` is called by the receiver's thread, `wait` by anybody."""

    def __init__(self) -> None:
        self._records: dict[str, list[Record]] = {}
        self._news = threading.Condition()

    def open(self, key: str, total: int) -> Record:
        """Expect results for `key`."""
        return self.open_samples(key, total, 1)[0]

    def open_samples(self, key: str, total: int, n: int) -> list[Record]:
        """Expect results for the `n` samples of `key`."""
        records = [Record(key, total) for _ in range(n)]
        with self._news:
            self._records[key] = records
        return records

    def close(self, key: str) -> None:
        """Expect nothing more; what still comes is dropped."""
        with self._news:
            self._records.pop(key, None)

    def __len__(self) -> int:
        return len(self._records)

    def take(self, reports: list[Report], results: list[tuple[Address, np.ndarray]]) -> None:
        """One step of the worker."""
        with self._news:
            for (key, id, layer, readout, positions), rows in results:
                if (record := self._record(key, id)) is not None:
                    record.keep(layer, readout, positions, rows)
            for key, id, position, count, lost in reports:
                if (record := self._record(key, id)) is not None:
                    record.report(position, count, lost)
            self._news.notify_all()

    def _record(self, key: str, id: str) -> Record | None:
        records = self._records.get(key, ())
        index = sample_of(id, len(records))
        return records[index] if records and index is not None else None

    def wait(self, record: Record, ready: Callable[[], bool], what: str) -> None:
        """Until `ready()`, which is asked again at every step; raises when the request is lost or nothing comes."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while not record.lost and not ready():
                if not self._news.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise SteeringLost(f"{what} did not arrive in {PATIENCE:.0f} s; the output is withheld")
            if record.lost:
                raise SteeringLost(f"the request was not steered as asked, and is withheld: {record.lost}")

    def whole(self, record: Record, start: int, end: int) -> None:
        """Wait until every position in [start, end) is known to have gone through every layer."""
        self.wait(record, lambda: bool(record.passed[start:end].all()), "the receipt of a request")
