"""What a steering result must be compared with: directions of the same size that mean nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trimtab.directions import ConceptVectors, Table
from trimtab.errors import InputError


def random_like(vectors: ConceptVectors, count: int, seed: int = 0) -> ConceptVectors:
    """`count` isotropic random directions at the sites of `vectors`, with its typical norms and mean raw norm.

    At equal dose they displace a state exactly as far as the real ones. The row of concept k depends on
    (seed, k, site) alone, so that asking for more directions keeps the first ones.
    """
    if count < 1:
        raise InputError(f"a random baseline needs at least one direction, got {count}")
    tables = {}
    for site, table in vectors.tables.items():
        rows = np.stack([_unit(table.vectors.shape[1], (seed, k, *site.rank)) for k in range(count)])
        norm = 1.0 if table.norms is None else float(table.norms.mean())
        tables[site] = Table(rows, norms=np.full(count, norm))
    names = tuple(f"random-{k}" for k in range(count))
    origin = replace(vectors.origin, method="random", parameters={"seed": seed})
    return replace(vectors, concepts=names, tables=tables, origin=origin, calibration={})


def _unit(width: int, key: tuple[int, ...]) -> np.ndarray:
    row = np.random.default_rng(key).normal(size=width)
    return row / np.linalg.norm(row)
