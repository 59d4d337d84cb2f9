"""Readings of the states that emit tokens, taken inside the forward pass that computes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from trimtab.engines.batches import readers
from trimtab.engines.rows import Row
from trimtab.engines.transformers.schedule import Reads
from trimtab.engines.transformers.stations import Read
from trimtab.readouts import Readout
from trimtab.sites import Site


class Readings:
    """Reads of the last column for every readout among the rows; row i is batch row `source[i]`."""

    def __init__(self, rows: Sequence[Row], source: Sequence[int], reads: Reads) -> None:
        self._count, self._parts = len(rows), []
        for readout, index in readers(rows):
            part = _Scores(readout, index, np.array([source[i] for i in index]))
            self._parts.append(part)
            for site in readout.sites:
                reads.setdefault((site, readout.at), []).append(part.reader(site))

    def values(self) -> list[np.ndarray | None]:
        """After the pass, by row: the reading [L, C] of its last state; None where nobody reads."""
        found = {i: value for p in self._parts for i, value in zip(p.rows, p.values(), strict=True)}
        return [found.get(i) for i in range(self._count)]


class _Scores:
    """Scores of one readout over some rows of a batch, one matrix product per site."""

    def __init__(self, readout: Readout, rows: list[int], source: np.ndarray) -> None:
        self.readout, self.rows, self.source = readout, rows, torch.from_numpy(source)
        self.found: dict[Site, np.ndarray] = {}

    def reader(self, site: Site) -> Read:
        def read(h: torch.Tensor) -> None:
            states = h[self.source.to(h.device), -1].float()
            matrix = torch.tensor(self.readout.rows[site], dtype=torch.float32, device=h.device)
            self.found[site] = (states @ matrix.T).cpu().numpy()

        return read

    def values(self) -> np.ndarray:
        """Calibrated scores [rows, L, C] float32."""
        r = self.readout
        scores = [(self.found[s] - r.offset[s]) / r.scale[s] for s in r.sites]
        return np.stack(scores, axis=1).astype(np.float32)
