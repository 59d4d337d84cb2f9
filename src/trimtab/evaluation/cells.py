"""Cells of a sweep: one way of steering (method, stream, layers, positions), at every dose and for every concept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.directions import ConceptVectors
from trimtab.errors import InputError
from trimtab.evaluation.conditions import UNION, Condition, randoms, steered
from trimtab.prompts import Positions
from trimtab.sites import Site


@dataclass(frozen=True)
class Cell:
    """`layers` share each total dose; so do the streams of a union, "attn_out+mlp_out". `positions` is their JSON form
    or name, as text, so that a cell is a key."""

    method: str
    layers: tuple[int, ...]
    stream: str = "resid_post"
    positions: str = "all"

    @property
    def name(self) -> str:
        """Short and unique: "mean_diff 3", "mean_diff 2-4 mlp_out generated"."""
        first, last = self.layers[0], self.layers[-1]
        parts = [self.method, f"{first}" if first == last else f"{first}-{last}"]
        parts += [] if self.stream == "resid_post" else [self.stream]
        return " ".join(parts + ([] if self.positions == "all" else [self.positions]))

    @property
    def middle(self) -> int:
        """The layer by which cells are compared in depth."""
        return self.layers[len(self.layers) // 2]

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it acts."""
        return tuple(Site(n, s) for n in self.layers for s in self.stream.split(UNION))

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "name": self.name,
            "method": self.method,
            "layers": list(self.layers),
            "stream": self.stream,
            "positions": self.positions,
        }


def grid(
    files: Mapping[str, ConceptVectors],
    layers: Sequence[int],
    windows: Sequence[int] = (1,),
    positions: Sequence[str] = ("all",),
    union: bool = False,
) -> list[Cell]:
    """Every combination of the axes. A window of w takes w neighbouring layers that the file has at that stream; with
    `union` all its streams together are one stream more, at the layers that have all of them."""
    found: list[Cell] = []
    for method, vectors in files.items():
        streams = list(dict.fromkeys(s.stream for s in vectors.sites))
        groups = [[s] for s in streams] + ([streams] if union and len(streams) > 1 else [])
        for group in groups:
            shared = set(layers).intersection(*(vectors.layers(s) for s in group))
            have = [n for n in vectors.layers(group[0]) if n in shared]
            for width in windows:
                runs = [tuple(have[i : i + width]) for i in range(len(have) - width + 1)]
                found += [Cell(method, run, UNION.join(group), p) for run in runs for p in positions]
    if not found:
        raise InputError(
            f"no cell to try: the files have no window of {list(windows)} layers among {list(layers)}"
        )
    return list(dict.fromkeys(found))


def conditions_of(
    cell: Cell,
    vectors: ConceptVectors,
    concepts: Sequence[str],
    doses: Iterable[float],
    count: int = 0,
    sizes: Iterable[float] = (),
    seed: int = 0,
) -> list[Condition]:
    """A cell's steered conditions, and `count` random directions at `sizes`."""
    positions: Positions = json.loads(cell.positions) if cell.positions.startswith("{") else cell.positions
    where: dict[str, Any] = {
        "stream": cell.stream,
        "positions": positions,
        "method": cell.method,
        "cell": cell.name,
    }
    found = [steered(vectors, c, d, cell.layers, **where) for c in concepts for d in doses if d]
    if count:
        found += randoms(vectors, count, list(sizes), cell.layers, seed=seed, **where)
    return found
