"""Several files in one: all their concepts side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.algebra.arithmetic import check_same
from trimtab.directions import ConceptVectors, Origin, Table
from trimtab.errors import InputError, Mismatch
from trimtab.sites import Site

#: What a merged file still says of its origin, where all files agree.
SHARED = (
    "model", "revision", "n_layers", "method", "pooling", "neutral_hash", "sign_source", "read_position",
    "read_alignment",
)  # fmt: skip


def merge(files: Mapping[str, ConceptVectors], prefix: bool = False) -> ConceptVectors:
    """All concepts of several files in one. `files` maps a name (the file's, say) to its vectors.

    Equal concept names are refused, or with `prefix` written NAME.concept, every one. Columns that a file lacks are
    NaN; `cap` and `basis` must be in all or in none. Typical norms must agree to 1 %.
    """
    if not files:
        raise InputError("name at least one file to merge")
    named = [f.renamed({c: f"{n}.{c}" for c in f.concepts}) if prefix else f for n, f in files.items()]
    check_same(named)
    concepts = [c for f in named for c in f.concepts]
    twice = sorted({c for c in concepts if concepts.count(c) > 1})
    if twice:
        raise InputError(
            f"{', '.join(map(repr, twice))} is in more than one file: prefix the names with their files' "
            "(--prefix), or rename one first"
        )
    if len(named) == 1:
        return named[0]
    tables = {s: _stacked([f.table(s) for f in named], s) for s in named[0].sites}
    origins = {n: {"method": f.origin.method, "content_hash": f.hash} for n, f in files.items()}
    first = named[0].origin
    shared: dict[str, Any] = {
        k: getattr(first, k) for k in SHARED if len({getattr(f.origin, k) for f in named}) == 1
    }
    origin = Origin(**shared, parameters={"merged": origins})
    return ConceptVectors(tuple(concepts), tables, typical_norms=_typical(named), origin=origin)


def _stacked(tables: Sequence[Table], site: Site) -> Table:
    columns: dict[str, np.ndarray] = {}
    for name in ("norms", "mean", "std", "bias"):
        if any(getattr(t, name) is not None for t in tables):
            unknown = 1.0 if name == "norms" else np.nan  # a file without norms has raw norm 1
            columns[name] = np.concatenate(
                [np.full(len(t.vectors), unknown) if (v := getattr(t, name)) is None else v for t in tables]
            )
    for name in ("cap", "basis"):
        found = [getattr(t, name) for t in tables]
        if all(v is not None for v in found):
            if len({v.shape[1:] for v in found}) > 1:
                raise Mismatch(f"at {site} the files' {name} differ in size: they cannot lie in one table")
            columns[name] = np.concatenate(found)
        elif any(v is not None for v in found):
            raise Mismatch(f"at {site} only some files have a {name}: they cannot lie in one table")
    return Table(np.concatenate([t.vectors for t in tables]), **columns)


def _typical(files: Sequence[ConceptVectors]) -> dict[Site, float]:
    norms: dict[Site, float] = {}
    for file in files:
        for site, norm in file.typical_norms.items():
            if abs(norm - norms.setdefault(site, norm)) > 0.01 * norms[site]:
                raise Mismatch(
                    f"the files' typical norms at {site} are {norms[site]:.4g} and {norm:.4g}: they come from "
                    "different models or were measured on different texts"
                )
    return norms
