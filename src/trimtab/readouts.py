"""Readouts: rows that turn hidden states into concept scores per token. A readout is a capture with a linear
reduction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.directions import ConceptVectors, frozen
from trimtab.errors import InputError
from trimtab.sites import ModelInfo, Site


@dataclass(frozen=True, eq=False)
class Readout:
    """`rows[site]` [C, width] with `offset[site]` and `scale[site]` [C]: score = (h . row - offset) / scale.

    Without calibration offset is 0 and scale 1, and a score is the coordinate in the site's own units; with
    it the score is a z-score. `at` reads before or after the edits at its site.
    """

    concepts: tuple[str, ...]
    rows: Mapping[Site, np.ndarray]
    offset: Mapping[Site, np.ndarray]
    scale: Mapping[Site, np.ndarray]
    z: bool = False
    at: str = "after"

    def __post_init__(self) -> None:
        if self.at not in ("before", "after"):
            raise InputError(f"a readout reads 'before' or 'after' the edits, got {self.at!r}")
        if not self.rows:
            raise InputError("a readout needs at least one site")
        for name in ("rows", "offset", "scale"):
            object.__setattr__(self, name, {s: frozen(v) for s, v in sorted(getattr(self, name).items())})

    @classmethod
    def from_vectors(
        cls,
        vectors: ConceptVectors,
        sites: Iterable[Site] | None = None,
        concepts: Sequence[str] | None = None,
        z: bool = False,
        at: str = "after",
    ) -> Readout:
        """Rows of a file; `z` divides by the stored std after taking the stored mean off, and needs both."""
        chosen = vectors.only(concepts, sites)
        rows, offset, scale = {}, {}, {}
        for site, table in chosen.tables.items():
            count = len(table.vectors)
            rows[site], offset[site], scale[site] = table.vectors, np.zeros(count), np.ones(count)
            if z:
                if not table.has_z:
                    raise InputError(
                        f"z readings need a stored mean and a positive std at {site}; read raw instead"
                    )
                offset[site], scale[site] = table.mean, table.std
        return cls(chosen.concepts, rows, offset, scale, z=z, at=at)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites read, in forward order."""
        return tuple(self.rows)

    def check_model(self, model: ModelInfo) -> None:
        """Refuse rows that do not fit the model."""
        for site, rows in self.rows.items():
            model.check(site, rows.shape[1], f"the readout at {site}")

    def apply(self, site: Site, states: np.ndarray) -> np.ndarray:
        """Scores [..., C] of states [..., width] at one site, float32."""
        coordinate = np.asarray(states, dtype=np.float32) @ self.rows[site].T
        return ((coordinate - self.offset[site]) / self.scale[site]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Readings:
    """`values` [T, L, C] of the states at absolute `positions` [T], for `sites` (L) and `concepts` (C).

    In a generation the state at position p emitted the token at p + 1.
    """

    values: np.ndarray
    positions: np.ndarray
    sites: tuple[Site, ...]
    concepts: tuple[str, ...]
    z: bool = False

    def __post_init__(self) -> None:
        expected = (len(self.positions), len(self.sites), len(self.concepts))
        if self.values.shape != expected:
            raise InputError(f"readings have shape {self.values.shape}, expected [T, L, C] = {expected}")

    def of(self, concept: str, site: Site | None = None) -> np.ndarray:
        """Scores [T] of one concept at one site (the only one by default)."""
        if concept not in self.concepts:
            raise InputError(f"no reading of {concept!r}; there are {', '.join(self.concepts)}")
        if site is None and len(self.sites) > 1:
            raise InputError(
                f"readings cover {len(self.sites)} sites; name one of {', '.join(map(str, self.sites))}"
            )
        if site is not None and site not in self.sites:
            raise InputError(f"no reading at {site}; there are {', '.join(map(str, self.sites))}")
        layer = 0 if site is None else self.sites.index(site)
        return self.values[:, layer, self.concepts.index(concept)]
