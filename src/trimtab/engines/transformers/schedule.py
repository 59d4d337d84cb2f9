"""The edits of a batch of rows: compiled for a prompt, then once more only where a range begins or ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trimtab.engines.placed import by_site, steps_until_change
from trimtab.engines.transformers.compiling import Bank, compile_edit
from trimtab.engines.transformers.kernel import Coordinates, GateKey
from trimtab.engines.transformers.stations import Read, Station
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

Reads = dict[tuple[Site, str], list[Read]]


class Schedule:
    """Sets the stations of a run for every forward pass over known absolute positions."""

    def __init__(self, stations: dict[Site, Station], plans: Sequence[ResolvedPlan]) -> None:
        self.stations = stations
        self._banks: dict[torch.device, Bank] = {}
        self._coordinates: Coordinates = {}
        self.rows = by_site(plans)
        self.sites = sorted({s for placed in self.rows for s in placed})
        self.gates: Reads = {}
        self._edits: dict[Site, Any] = {}
        self._had_reads = True
        self._fresh_for = 0

    def select(self, keep: Sequence[int]) -> None:
        """Go on with some of the rows (or with rows repeated)."""
        self.rows = [self.rows[i] for i in keep]
        self._fresh_for = 0

    def compile(self, positions: np.ndarray) -> dict[Site, Any]:
        """Edits for a forward pass over absolute positions [B, T] (-1 for padding), and gate reads at their sites."""
        gates: list[GateKey] = []
        edits: dict[Site, Any] = {}
        self._coordinates.clear()
        for site in self.sites:
            tap = self.stations[site].tap
            bank = self._banks.setdefault(tap.device, Bank(tap.device))
            placed = [row.get(site, ()) for row in self.rows]
            edit = compile_edit(placed, positions, tap.width, tap.dtype, bank, gates, self._coordinates)
            if edit is not None:
                edits[site] = edit
        self.gates = {}
        for key in gates:
            read = lambda h, k=key: k.measure(h, self._coordinates)  # noqa: E731
            self.gates.setdefault((key.site, key.at), []).append(read)
        return edits

    def prepare(self, positions: np.ndarray, reads: Reads) -> None:
        """Set every station for a forward pass over `positions`."""
        self._apply(self.compile(positions), reads)
        self._fresh_for = 0

    def step(self, positions: np.ndarray, reads: Reads) -> None:
        """Set every station for one decode step at absolute positions [B]; compiles only where something changes."""
        if self._fresh_for > 0 and not reads and not self._had_reads:
            self._fresh_for -= 1
            return
        if self._fresh_for > 0:
            self._fresh_for -= 1
            self._apply(self._edits, reads)
            return
        self._edits = self.compile(positions[:, None])
        self._fresh_for = steps_until_change(self.rows, positions.tolist()) - 1
        self._apply(self._edits, reads)

    def _apply(self, edits: dict[Site, Any], reads: Reads) -> None:
        self._had_reads = bool(reads)
        for site, station in self.stations.items():
            before = [*self.gates.get((site, "before"), ()), *reads.get((site, "before"), ())]
            after = [*self.gates.get((site, "after"), ()), *reads.get((site, "after"), ())]
            station.set(edits.get(site), before, after)
