"""What has come back from the worker, request by request: which positions went through, captured rows, readings.

A request is whole when every position that was computed for it is reported. One that is not, or that the worker calls
lost, raises `SteeringLost`: its output is never given out as if it had been steered.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from trimtab.engines.vllm.kernel import Address, Report
from trimtab.errors import SteeringLost

#: Seconds that a result may lag behind the token that it belongs to.
PATIENCE = 60.0
#: Bytes of one request's captures of one layer from which on they lie in a file, which is gone when nobody looks.
LARGE = 1 << 27


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
        if layer not in self.captured:
            self.captured[layer] = Captured(len(self.passed), rows.shape[1])
        self.captured[layer].keep(positions, rows)

    def report(self, position: int, count: int, lost: str) -> None:
        """So many positions went through; the first loss is the one that is told."""
        self.passed[position : position + count] = True
        self.lost = self.lost or lost

    def rows(self, layer: int, positions: np.ndarray) -> np.ndarray:
        """The captured states [n, width] at `positions`."""
        found = self.captured.get(layer)
        lacking = len(positions) if found is None else int((~found.there[positions]).sum())
        if found is None or lacking:
            raise SteeringLost(
                f"{lacking} of {len(positions)} captured states of layer {layer} never arrived"
            )
        return found.at(positions)

    def reading(self, layers: Sequence[int], position: int) -> list[np.ndarray] | None:
        """The products [concepts] with the readout's rows at each layer; None until they are there."""
        found = [self.read.get(layer, {}).get(position) for layer in layers]
        return None if any(f is None for f in found) else found  # type: ignore[return-value]


class Captured:
    """States of one layer in their places, as they come: whoever asks for them gets them without a copy.

    What was computed again, after a preemption, replaces the first. Memory, or disk, is taken where rows are written
    only: the system may put what is in a file out of memory until somebody looks.
    """

    def __init__(self, total: int, width: int) -> None:
        if 4 * total * width < LARGE:
            self.rows = np.empty((total, width), np.float32)
        else:
            with tempfile.TemporaryFile(prefix="trimtab-") as file:
                self.rows = np.asarray(np.memmap(file, np.float32, "w+", shape=(total, width)))
        self.there = np.zeros(total, dtype=bool)

    def keep(self, positions: Sequence[tuple[int, int]], rows: np.ndarray) -> None:
        """Rows [n, width] of the half-open ranges `positions`."""
        done = 0
        for a, b in positions:
            kept = self.rows[a:b]
            kept[:] = rows[done : done + len(kept)]
            self.there[a:b] = True
            done += b - a

    def at(self, positions: np.ndarray) -> np.ndarray:
        """States [n, width]."""
        first, n = (int(positions[0]), len(positions)) if len(positions) else (0, 0)
        if n and int(positions[-1]) - first == n - 1 and bool((np.diff(positions) == 1).all()):
            return self.rows[first : first + n]
        return self.rows[positions]


class Ledger:
    """Records of the requests in flight; `take` is called by the receiver's thread, `wait` by anybody."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._news = threading.Condition()

    def open(self, key: str, total: int) -> Record:
        """Expect results for `key`."""
        record = Record(key, total)
        with self._news:
            self._records[key] = record
        return record

    def close(self, key: str) -> None:
        """Expect nothing more; what still comes is dropped."""
        with self._news:
            self._records.pop(key, None)

    def __len__(self) -> int:
        return len(self._records)

    def take(self, reports: list[Report], results: list[tuple[Address, np.ndarray]]) -> None:
        """One step of the worker."""
        with self._news:
            for (key, _, layer, readout, positions), rows in results:
                if (record := self._records.get(key)) is not None:
                    record.keep(layer, readout, positions, rows)
            for key, _, position, count, lost in reports:
                if (record := self._records.get(key)) is not None:
                    record.report(position, count, lost)
            self._news.notify_all()

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
