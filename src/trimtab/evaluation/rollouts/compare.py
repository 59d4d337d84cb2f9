"""Vectors against vectors, and runs against runs, N-way: every pair, paired by item, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.errors import InputError, Mismatch, UnknownName
from trimtab.evaluation.scorers.repetition import repeated_share
from trimtab.evaluation.statistics import Estimate, holm, paired_difference, sign_flip
from trimtab.sites import Site


@dataclass(frozen=True)
class Cosine:
    """Of two directions at one site: their cosine, the ratio of their raw norms, and what chance gives: a cosine of two
    random directions of that width lies within ± `chance` 95 times in 100."""

    one: str
    other: str
    site: Site
    cosine: float
    norm_ratio: float | None
    chance: float


def cosines(vectors: Mapping[str, ConceptVectors]) -> list[Cosine]:
    """Every pair of directions of different files (of one file: of its concepts) at every site that both have."""
    named = [
        (n if len(v.concepts) == 1 else f"{n}:{c}", n, v.only([c]))
        for n, v in vectors.items()
        for c in v.concepts
    ]
    found = []
    for (a, file_a, one), (b, file_b, other) in combinations(named, 2):
        if file_a == file_b and len(vectors) > 1:
            continue
        sites = [s for s in one.sites if s in other.tables]
        if not sites:
            raise InputError(
                f"{a} and {b} share no site: {list(map(str, one.sites))}, {list(map(str, other.sites))}"
            )
        for site in sites:
            x, y = one.direction(None, site), other.direction(None, site)
            if x.unit.shape != y.unit.shape:
                raise InputError(
                    f"{a} and {b} have {len(x.unit)} and {len(y.unit)} numbers at {site}: other models"
                )
            known = one.tables[site].norms is not None and other.tables[site].norms is not None
            chance = 1.96 / np.sqrt(len(x.unit))
            found.append(Cosine(a, b, site, x.cosine(y), y.norm / x.norm if known else None, float(chance)))
    if not found:
        raise InputError("nothing to compare: give two files, or one with several concepts")
    return found


#: What a reply is compared by: a mark that a scorer gave, its length in tokens, how little it repeats, or the nats per
#: token that the plain model spends on it.
MEASURES: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "mark": lambda r: r.get("mark"),
    "tokens": lambda r: r.get("tokens"),
    "repetition": lambda r: (
        None
        if (s := repeated_share(str(r.get("answer", r.get("text", ""))).lower().split())) is None
        else 1 - s
    ),
    "nll": lambda r: r.get("plain_nll"),
}
Measure = Callable[[Mapping[str, Any]], float | None]


@dataclass(frozen=True)
class Difference:
    """`other` less `one` over the items that both have a value for; p by sign flips, adjusted over all pairs (Holm)."""

    one: str
    other: str
    difference: Estimate
    p: float
    p_holm: float
    only_one: int
    only_other: int


def differences(conditions: Mapping[str, Mapping[str, float]]) -> list[Difference]:
    """Every pair of conditions, each {item: value}."""
    if len(conditions) < 2:
        raise InputError(f"a comparison needs two conditions, got {', '.join(conditions) or 'none'}")
    rows: list[tuple[str, str, Estimate, float, int, int]] = []
    for (a, x), (b, y) in combinations(conditions.items(), 2):
        shared = [i for i in x if i in y]
        if not shared:
            raise InputError(f"{a} and {b} share no item: they cannot be paired")
        there, here = [y[i] for i in shared], [x[i] for i in shared]
        estimate = paired_difference(there, here)
        rows.append(
            (a, b, estimate, sign_flip(np.subtract(there, here)), len(x) - len(shared), len(y) - len(shared))
        )
    adjusted = holm([r[3] for r in rows])
    return [
        Difference(a, b, e, p, float(q), m, n) for (a, b, e, p, m, n), q in zip(rows, adjusted, strict=True)
    ]


def check_one_scorer(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse marks of several scorers: two embedders, or two rubrics, do not measure on one scale."""
    found = list(dict.fromkeys(str(r["scorer"]) for r in rows if r.get("mark") is not None and "scorer" in r))
    if len(found) > 1:
        raise Mismatch(
            f"marks of different scorers cannot stand in one table: {'; '.join(found)}. Score all answers again with "
            "one of them"
        )


def measure_of(name: str, rows: Sequence[Mapping[str, Any]], concept: str | None = None) -> Measure:
    """How a row is read: one of `MEASURES`, or a score that an evaluation's rows hold, of `concept` where it scored
    several."""
    scored: dict[str, set[str]] = {}
    for row in rows:
        for score, values in (row.get("scores") or {}).items():
            scored.setdefault(score, set()).update(values)
    if name in MEASURES and concept is None:
        return MEASURES[name]
    if name not in scored:
        raise UnknownName.of("measure" if concept is None else "score", name, [*MEASURES, *scored])
    concepts = sorted(scored[name])
    if concept is None and len(concepts) > 1:
        raise InputError(f"the rows hold {name} for {', '.join(concepts)}; choose one with --concept")
    if concept is not None and concept not in concepts:
        raise UnknownName.of("concept", concept, concepts)
    chosen = concepts[0] if concept is None else concept
    return lambda row: ((row.get("scores") or {}).get(name) or {}).get(chosen)


def by_condition(
    rows: Sequence[Mapping[str, Any]], measure: str, prefix: str = "", read: Measure | None = None
) -> dict[str, dict[str, float]]:
    """Mean value per item of each condition; rows without a value are left out, and every condition must keep some."""
    read = read or measure_of(measure, rows)
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        name = prefix + str(row.get("condition") or "all")
        kept = found.setdefault(name, {})
        value = read(row)
        if value is not None:
            kept.setdefault(str(row["item"]), []).append(float(value))
    for name, items in found.items():
        if not items:
            raise InputError(
                f"{name} has no {measure}: score the answers first (trimtab eval …), or choose another --by"
            )
    return {n: {i: float(np.mean(v)) for i, v in items.items()} for n, items in found.items()}
