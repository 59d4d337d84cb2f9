"""Arithmetic on whole files: weighted sums, interpolation, Gram–Schmidt.

Everything acts on *raw* vectors (unit · norm), site by site, so that a sum keeps the lengths in which its parts were
given. A result has no mean and std: those of a sum need the covariances, which no file holds; typical norms belong to
the site and stay. Files must cover the same sites and come from models of one size; where they name different models,
a warning says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.directions import ConceptVectors, Direction, Origin
from trimtab.errors import InputError, Mismatch
from trimtab.sites import Site

#: A residue shorter than this share of the vector is rounding, not a direction.
SPANNED = 1e-5


class AlgebraWarning(UserWarning):
    """A result that is defined, and may not mean what was hoped for."""


def check_same(files: Sequence[ConceptVectors]) -> None:
    """Refuse files of other sites, widths or depths; warn where they name different models."""
    first = files[0]
    for other in files[1:]:
        if other.sites != first.sites:
            ours, theirs = (", ".join(s.key for s in sorted(set(a) - set(b))) for a, b in (
                (first.sites, other.sites), (other.sites, first.sites)))  # fmt: skip
            raise Mismatch(
                f"the files cover different sites (only one has {ours or 'none'}; only the other {theirs or 'none'}): "
                "take the same layers of both first, e.g. with --layers"
            )
        for site in first.sites:
            widths = [f.table(site).vectors.shape[1] for f in (first, other)]
            if widths[0] != widths[1]:
                raise Mismatch(
                    f"at {site} the files are {widths[0]} and {widths[1]} wide: they are of different models"
                )
        depths = {f.origin.n_layers for f in (first, other)} - {None}
        if len(depths) > 1:
            raise Mismatch(
                f"the files were made for models of {' and '.join(sorted(map(str, depths)))} blocks"
            )  # type: ignore[type-var]
    models = {f.origin.model for f in files} - {None}
    if len(models) > 1:
        warnings.warn(
            f"the vectors come from different models ({', '.join(sorted(map(str, models)))}): a direction of one means "
            "nothing in another",
            AlgebraWarning,
            stacklevel=3,
        )


def weighted_sum(vectors: ConceptVectors, weights: Mapping[str, float], name: str) -> ConceptVectors:
    """One concept, Σ weight · raw, at every site; a sum that cancels to nothing is refused."""
    for concept in weights:
        vectors.index(concept)
    if not weights or not all(np.isfinite(w) for w in weights.values()):
        raise InputError(f"a sum needs concepts with finite weights, got {dict(weights)}")
    directions = []
    for site in vectors.sites:
        parts = [w * _raw(vectors, c, site) for c, w in weights.items()]
        total = np.sum(parts, axis=0)
        if np.linalg.norm(total) <= SPANNED * max(np.linalg.norm(p) for p in parts):
            raise InputError(f"{name!r} cancels to nothing at {site}: it has no direction")
        directions.append(Direction.from_raw(name, site, total, typical_norm=vectors.typical_norms.get(site)))
    made = {"sum": {c: float(w) for c, w in weights.items()}}
    return _made(vectors, directions, "sum", made)


def interpolate(vectors: ConceptVectors, a: str, b: str, t: float, name: str | None = None) -> ConceptVectors:
    """(1 - t) · a + t · b on raw vectors; t outside 0 to 1 extrapolates."""
    return weighted_sum(vectors, {a: 1 - t, b: t}, name or f"{a}~{b}@{t:g}")


def orthogonalised(vectors: ConceptVectors, against: Sequence[ConceptVectors]) -> ConceptVectors:
    """Every concept less its part in the span of all concepts of `against` (Gram–Schmidt, float64), site by site.

    The norm becomes the length of what is left. A concept that lies in that span is refused. Concepts are not made
    orthogonal to each other: the result does not depend on their order.
    """
    if not against:
        raise InputError("name at least one vector to be orthogonal to")
    check_same([vectors, *against])
    directions = []
    for site in vectors.sites:
        others = np.concatenate([f.table(site).vectors for f in against]).astype(np.float64)
        basis = _basis(others)
        for concept in vectors.concepts:
            raw = _raw(vectors, concept, site)
            left = raw - basis.T @ (basis @ raw)
            left -= basis.T @ (
                basis @ left
            )  # once more: the first pass leaves rounding of the size of its parts
            if np.linalg.norm(left) <= SPANNED * np.linalg.norm(raw):
                raise InputError(
                    f"{concept!r} lies in the span of the others at {site}: nothing is left of it"
                )
            directions.append(
                Direction.from_raw(concept, site, left, typical_norm=vectors.typical_norms.get(site))
            )
    made = {"orthogonal_to": [c for f in against for c in f.concepts]}
    return _made(vectors, directions, vectors.origin.method, made)


def _basis(rows: np.ndarray) -> np.ndarray:
    """Orthonormal rows that span `rows`; dependent rows add nothing."""
    _, values, right = np.linalg.svd(rows, full_matrices=False)
    return right[values > values[0] * 1e-6]


def _raw(vectors: ConceptVectors, concept: str, site: Site) -> np.ndarray:
    d = vectors.direction(concept, site)
    return d.unit.astype(np.float64) * d.norm


def _made(
    vectors: ConceptVectors, directions: Sequence[Direction], method: str | None, made: Mapping[str, object]
) -> ConceptVectors:
    """A result that remembers what it was made of; calibration and counts were the parts' and are gone."""
    before = vectors.origin
    origin = Origin(
        model=before.model,
        revision=before.revision,
        n_layers=before.n_layers,
        method=method,
        parameters={**made, "content_before": vectors.hash},
        pooling=before.pooling,
        template_hash=before.template_hash,
        neutral_hash=before.neutral_hash,
        sign_source=before.sign_source,
        dtype=before.dtype,
    )
    return ConceptVectors.from_directions(
        directions, typical_norms=dict(vectors.typical_norms), origin=origin
    )
