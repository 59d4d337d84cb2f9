"""The edits of a batch of rows: compiled for a prompt, then once more only where a range begins or ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlx.core as mx
import numpy as np

from trimtab.engines.mlx.kernel import GateRead, compile_edit
from trimtab.engines.mlx.stations import Edit, Read, Station
from trimtab.engines.placed import by_site, steps_until_change
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

Reads = dict[tuple[Site, str], list[Read]]


class Schedule:
    """Sets the stations of a run for every forward pass over known absolute positions."""

    def __init__(
        self, stations: Mapping[Site, Station], plans: Sequence[ResolvedPlan], dtype: mx.Dtype
    ) -> None:
        self.stations, self.dtype = stations, dtype
        self.rows = by_site(plans)
        self._edits: dict[Site, Edit] = {}
        self._gates: Reads = {}
        self._fresh_for = 0

    def select(self, keep: Sequence[int]) -> None:
        """Go on with some of the rows (or with rows repeated)."""
        self.rows = [self.rows[i] for i in keep]
        self._fresh_for = 0

    def prepare(self, positions: np.ndarray, reads: Reads) -> None:
        """For a pass over absolute positions [B, T] (-1: padding)."""
        self._compile(positions)
        self._fresh_for = 0
        self._apply(reads)

    def step(self, positions: np.ndarray, reads: Reads) -> None:
        """For one decode step at positions [B]; compiles only where something changes."""
        if self._fresh_for <= 0:
            self._compile(positions[:, None])
            self._fresh_for = steps_until_change(self.rows, positions.tolist())
        self._fresh_for -= 1
        self._apply(reads)

    def _compile(self, positions: np.ndarray) -> None:
        gates: list[GateRead] = []
        self._edits, self._gates = {}, {}
        for site in sorted({s for placed in self.rows for s in placed}):
            placed = [row.get(site, ()) for row in self.rows]
            edit = compile_edit(placed, positions, self.stations[site].tap.width, self.dtype, gates)
            if edit is not None:
                self._edits[site] = edit
        for gate in gates:
            self._gates.setdefault((gate.site, gate.at), []).append(gate)

    def _apply(self, reads: Reads) -> None:
        for site, station in self.stations.items():
            before, after = (
                [*self._gates.get((site, at), ()), *reads.get((site, at), ())] for at in ("before", "after")
            )
            station.set(self._edits.get(site), before, after)
