"""Arithmetic on whole files: weighted sums, interpolation, Gram–Schmidt, merging.

Everything acts on *raw* vectors (unit · norm), site by site, so that a sum keeps the lengths in which its parts were
given. A result has no mean and std: those of a sum need the covariances, which no file holds; typical norms belong to
the site and stay. Files must cover the same sites and come from models of one size; where they name different models,
a warning says so.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.directions import ConceptVectors, Direction, Origin, Table
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
                f"the files were made for models of {' and '.join(map(str, sorted(depths)))} blocks"
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
            f"{', '.join(map(repr, twice))} is in more than one file: prefix the names with their files' (--prefix), or "
            "rename one first"
        )
    if len(named) == 1:
        return named[0]
    tables = {s: _stacked([f.table(s) for f in named], s) for s in named[0].sites}
    origins = {n: {"method": f.origin.method, "content_hash": f.hash} for n, f in files.items()}
    first = named[0].origin
    origin = Origin(
        **{
            k: getattr(first, k) if all(getattr(f.origin, k) == getattr(first, k) for f in named) else None
            for k in ("model", "revision", "n_layers", "method", "pooling", "neutral_hash", "sign_source",
                      "read_position", "read_alignment")
        },
        parameters={"merged": origins},
    )  # fmt: skip
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
                    f"the files' typical norms at {site} are {norms[site]:.4g} and {norm:.4g}: they come from different "
                    "models or were measured on different texts"
                )
    return norms


def evaluate(expression: str, vectors: ConceptVectors) -> ConceptVectors:
    """One concept from "[name =] happy - 0.5*sad": names, numbers, + − * and brackets, nothing else.

    Names with other characters than letters, digits, "_", "." are written in quotes. Without `name =` the result is
    called as the expression.
    """
    head, equals, body = expression.partition("=")
    name = _unquoted(head.strip()) if equals else expression.strip()
    if not name:
        raise InputError(f"{expression!r} gives its result no name")
    total = _Parser(body if equals else expression).whole()
    if None in total or not total:
        raise InputError(f"{expression!r} is a number, not a vector")
    return weighted_sum(vectors, {str(c): w for c, w in total.items()}, name)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


_TOKEN = re.compile(
    r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|([^\W\d][\w.]*)|'([^']+)'|\"([^\"]+)\"|([-+*()−×]))"
)
_SAME = {"−": "-", "×": "*"}


class _Parser:
    """Recursive descent over sums of products; a value is {concept: weight}, with None for a plain number."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, at = text, [], 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise InputError(f"{text!r}: cannot read {text[at:].strip()!r}; write e.g. happy - 0.5*sad")
            number, *names, sign = match.groups()
            name = next((n for n in names if n is not None), None)
            self.tokens.append(
                float(number) if number else ("name", name) if name is not None else _SAME.get(sign, sign)
            )
            at = match.end()

    def whole(self) -> dict[str | None, float]:
        total = self.sum()
        if self.tokens:
            raise InputError(f"{self.text!r}: {self.tokens[0]!r} stands where + − * was expected")
        return total

    def sum(self) -> dict[str | None, float]:
        total: dict[str | None, float] = {}
        sign = self.sign()
        while True:
            for concept, weight in self.product().items():
                total[concept] = total.get(concept, 0.0) + sign * weight
            if not self.tokens or self.tokens[0] not in ("+", "-"):
                break
            sign = self.sign()
        if None in total and len(total) > 1:
            raise InputError(f"{self.text!r} adds a number to a vector")
        return total

    def sign(self) -> float:
        sign = 1.0
        while self.tokens and self.tokens[0] in ("+", "-"):
            sign = -sign if self.tokens.pop(0) == "-" else sign
        return sign

    def product(self) -> dict[str | None, float]:
        value = self.atom()
        while self.tokens and self.tokens[0] == "*":
            self.tokens.pop(0)
            sign, other = self.sign(), self.atom()
            if None not in value and None not in other:
                raise InputError(f"{self.text!r} multiplies two vectors; only a number times a vector is one")
            factor, rest = (value[None], other) if None in value else (other[None], value)
            value = {c: sign * factor * w for c, w in rest.items()}
        return value

    def atom(self) -> dict[str | None, float]:
        token = self.tokens.pop(0) if self.tokens else None
        if isinstance(token, float):
            return {None: token}
        if isinstance(token, tuple):
            return {token[1]: 1.0}
        if token == "(":
            inside = self.sum()
            if not self.tokens or self.tokens.pop(0) != ")":
                raise InputError(f"{self.text!r}: a bracket is not closed")
            return inside
        raise InputError(f"{self.text!r}: a name or a number is missing")
