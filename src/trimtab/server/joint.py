"""Several readouts in one pass: a request may be read for its answer, for its rules and for the feed, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.errors import InputError
from trimtab.readouts import Readout
from trimtab.sites import Site


@dataclass(frozen=True, eq=False)
class Joint:
    """`readout` is what the engine reads; `places` says of every part which of its sites and columns are the part's."""

    readout: Readout
    places: tuple[tuple[np.ndarray, slice], ...]

    @classmethod
    def of(cls, parts: Sequence[Readout]) -> Joint:
        """One readout of all the parts' columns at all their sites; a column is zero where its part reads nothing."""
        if len(parts) == 1:
            return cls(parts[0], ((np.arange(len(parts[0].sites)), slice(None)),))
        if len({p.at for p in parts}) > 1:
            raise InputError(
                "rules are judged after the edits of a layer, so that readout.at is 'after' with them"
            )
        sites = sorted({s for p in parts for s in p.sites})
        ends = np.cumsum([0, *(len(p.concepts) for p in parts)]).tolist()
        places = tuple(
            (np.array([sites.index(s) for s in p.sites]), slice(a, b))
            for p, a, b in zip(parts, ends, ends[1:], strict=False)
        )
        rows, offset, scale = {}, {}, {}
        for site in sites:
            rows[site] = np.concatenate([_rows(p, site) for p in parts])
            offset[site] = np.concatenate([p.offset.get(site, np.zeros(len(p.concepts))) for p in parts])
            scale[site] = np.concatenate([p.scale.get(site, np.ones(len(p.concepts))) for p in parts])
        names = tuple(f"{i}/{c}" for i, p in enumerate(parts) for c in p.concepts)
        return cls(Readout(names, rows, offset, scale, any(p.z for p in parts), parts[0].at), places)

    def part(self, index: int, reading: np.ndarray) -> np.ndarray:
        """The reading [L, C] of one part, out of the whole one."""
        sites, columns = self.places[index]
        return reading[sites, columns]


def _rows(part: Readout, site: Site) -> np.ndarray:
    if site in part.rows:
        return part.rows[site]
    width = next(iter(part.rows.values())).shape[1]
    return np.zeros((len(part.concepts), width), dtype=np.float32)
