"""Directions of one attention head: rows of `head_out` that are zero outside the head's slice.

`head_out` is the concatenated outputs of the query heads, [heads * head_dim], before o_proj mixes them. A row that
lives in one slice steers and reads that head alone, and is otherwise a direction like any other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trimtab.directions import ConceptVectors, Direction
from trimtab.errors import InputError, UnknownName
from trimtab.sites import Site

STREAM = "head_out"


def head_slice(site: Site, width: int, head: int, n_heads: int | None) -> slice:
    """Columns of one head in a state [width] of `head_out`."""
    if site.stream != STREAM:
        raise InputError(f"{site} is not made of heads; extract with --stream {STREAM} to name one")
    if not n_heads or width % n_heads:
        raise InputError(f"{site} has width {width}, which {n_heads} heads cannot share evenly")
    if not 0 <= head < n_heads:
        raise InputError(f"head {head} does not exist: the model has {n_heads} heads, 0 to {n_heads - 1}")
    size = width // n_heads
    return slice(head * size, (head + 1) * size)


def head_part(direction: Direction, head: int, n_heads: int | None) -> Direction:
    """What one head carries of a direction: zero elsewhere, unit again, with its own raw norm.

    mean, std and bias described the coordinate along the whole row, and are dropped.
    """
    kept = head_slice(direction.site, len(direction.unit), head, n_heads)
    raw = np.zeros(len(direction.unit))
    raw[kept] = direction.unit[kept].astype(np.float64) * direction.norm
    if not raw.any():
        raise InputError(
            f"{direction.name!r} at {direction.site} has no part in head {head}: it is zero there"
        )
    return Direction.from_raw(
        direction.name,
        direction.site,
        raw,
        typical_norm=direction.typical_norm,
        sign_source=direction.sign_source,
        provenance={**direction.provenance, "head": head},
    )


def only_head(vectors: ConceptVectors, head: int, n_heads: int) -> ConceptVectors:
    """The file's directions at `head_out`, each reduced to one head; its other streams are left out."""
    sites = [s for s in vectors.sites if s.stream == STREAM]
    if not sites:
        raise UnknownName.of("stream in this file", STREAM, {s.stream for s in vectors.sites})
    parts = [head_part(vectors.direction(c, s), head, n_heads) for s in sites for c in vectors.concepts]
    norms = {s: n for s, n in vectors.typical_norms.items() if s in sites}
    origin = replace(vectors.origin, parameters={**vectors.origin.parameters, "head": head})
    return ConceptVectors.from_directions(parts, typical_norms=norms, origin=origin)
