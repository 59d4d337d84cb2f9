"""Calibration: the largest push whose cost stays within a limit, for every vector, site, operator and sign at once.

Each search brackets the limit on a geometric ladder of strengths and then bisects on the logarithm of the strength.
All searches advance together, one batch per step. A cost need not grow with the strength, so the answer is the
largest strength below which *every* measured point keeps the limit, and half of it is measured too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine
from trimtab.errors import InputError, UnknownName
from trimtab.evaluation.limits import Limit
from trimtab.interventions import Ablate, Add
from trimtab.plans import Placement, SteeringPlan
from trimtab.prompts import Positions, Prompt
from trimtab.safe_range import with_safe_range
from trimtab.sites import Site

#: Weakest and strongest push that is tried, in doses.
BOTTOM, TOP = 0.01, 4.0
LADDER = 6  # rungs of the bracket: each is 3.3 times the one below
STEPS = 7  # halvings of the logarithm: the answer is right to 1 %
OPERATORS = ("add", "add-renormalised", "ablate")
Advance = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Search:
    """One vector at one site, pushed by one operator to one side. Strength is the dose of the two `add`s, and how
    much of the ablation is carried out (0 to 1)."""

    vectors: ConceptVectors
    site: Site
    operator: str = "add"
    sign: int = 1
    positions: Positions = "all"

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise UnknownName.of("operator", self.operator, OPERATORS)
        if self.sign not in (1, -1) or (self.operator == "ablate" and self.sign < 0):
            raise InputError(f"{self.operator} has no side {self.sign}")

    @property
    def concept(self) -> str:
        """The one concept of the file."""
        return self.vectors.concepts[self.vectors.index(None)]

    @property
    def name(self) -> str:
        """For tables and run folders."""
        return f"{self.concept} {self.site.key} {self.operator} {'+' if self.sign > 0 else '-'}"

    @property
    def top(self) -> float:
        """The strongest push that makes sense."""
        return 1.0 if self.operator == "ablate" else TOP

    def plan(self, strength: float) -> SteeringPlan:
        """The plan of one strength."""
        where: dict[str, Any] = {
            "layers": [self.site.layer],
            "stream": self.site.stream,
            "positions": self.positions,
        }
        quiet = replace(self.vectors, calibration={})  # it is measured here, so nothing warns of it
        if self.operator == "ablate":
            return SteeringPlan((Placement(Ablate(), quiet, factor=min(1.0, strength), **where),))
        push = Add(dose=self.sign * strength)
        return SteeringPlan((Placement(push, quiet, renormalise=self.operator != "add", **where),))


@dataclass(frozen=True)
class Found:
    """`strength` keeps the limit at every measured point up to it; 0 where even the weakest push breaks it. `reached`
    is False where the strongest push keeps it too, so that the range is only as wide as was tried. `curve` holds the
    measured (strength, cost)."""

    strength: float
    cost: float
    half_cost: float
    reached: bool
    monotone: bool
    curve: tuple[tuple[float, float], ...] = field(repr=False)


def searches(
    vectors: ConceptVectors,
    sites: Iterable[Site],
    operators: Sequence[str] = ("add",),
    positions: Positions = "all",
) -> list[Search]:
    """Both signs of every concept at every site under every operator (ablation has one)."""
    return [
        Search(vectors.only([concept]), site, operator, sign, positions)
        for concept in vectors.concepts
        for site in sites
        for operator in operators
        for sign in ((1,) if operator == "ablate" else (1, -1))
    ]


def solve(
    engine: Engine,
    wanted: Sequence[Search],
    limit: Limit,
    prompts: Sequence[Prompt],
    *,
    steps: int = STEPS,
    advance: Advance | None = None,
) -> list[Found]:
    """The answer of every search. `advance(points)` counts measured points: `points_of` says how many there will be."""
    if not prompts:
        raise InputError("a calibration needs at least one prompt")
    points: list[dict[float, float]] = [{} for _ in wanted]

    def measure(asked: Sequence[tuple[int, float]]) -> None:
        new = [(i, s) for i, s in asked if s not in points[i]]
        if new:
            costs = limit.values(engine, [wanted[i].plan(s) for i, s in new], prompts)
            for (i, strength), cost in zip(new, costs, strict=True):
                points[i][strength] = float(cost) if np.isfinite(cost) else math.inf
        if advance is not None:
            advance(len(asked))

    measure([(i, s) for i, w in enumerate(wanted) for s in np.geomspace(BOTTOM, w.top, LADDER).tolist()])
    for _ in range(steps):
        open_ = [(i, b) for i in range(len(wanted)) if (b := _bracket(points[i], limit.limit)) is not None]
        measure([(i, math.sqrt(low * high)) for i, (low, high) in open_])
    measure([(i, s / 2) for i in range(len(wanted)) if (s := _largest(points[i], limit.limit)) > 0])
    return [_found(points[i], limit.limit) for i in range(len(wanted))]


def points_of(count: int, steps: int = STEPS) -> int:
    """How many points `solve` measures at most for so many searches."""
    return count * (LADDER + steps + 1)


def _largest(points: dict[float, float], limit: float) -> float:
    """The largest measured strength below which nothing breaks the limit; 0 where the weakest does."""
    best = 0.0
    for strength in sorted(points):
        if points[strength] > limit:
            break
        best = strength
    return best


def _bracket(points: dict[float, float], limit: float) -> tuple[float, float] | None:
    """The last point that keeps the limit and the next, which breaks it; None where there are no such two."""
    low = _largest(points, limit)
    above = [s for s in points if s > low]
    return (low, min(above)) if low > 0 and above else None


def _found(points: dict[float, float], limit: float) -> Found:
    best = _largest(points, limit)
    costs = [points[s] for s in sorted(points) if s <= best]
    return Found(
        strength=best,
        cost=points.get(best, float("nan")),
        half_cost=points.get(best / 2, float("nan")),
        reached=any(v > limit for v in points.values()),
        monotone=all(b >= a - 1e-9 for a, b in itertools.pairwise(costs)),
        curve=tuple(sorted(points.items())),
    )


def calibrated(
    vectors: ConceptVectors, wanted: Sequence[Search], found: Sequence[Found], receipt: dict[str, Any]
) -> ConceptVectors:
    """The file with the ranges in its calibration; its content, and so its hash and every fingerprint, stay.
    `receipt` (limit, prompts, model, revision) stands in every entry."""
    sides: dict[tuple[str, str, str], dict[int, Found]] = {}
    for search, answer in zip(wanted, found, strict=True):
        key = (search.concept, search.site.key, search.operator)
        sides.setdefault(key, {})[search.sign] = answer
    calibration = dict(vectors.calibration)
    for (concept, site, operator), by_sign in sides.items():
        up, down = by_sign[1], by_sign.get(-1)
        entry = {
            "low": -down.strength if down else 0.0,
            "high": up.strength,
            "smaller": min(a.strength for a in by_sign.values()),
            "reached": all(a.reached for a in by_sign.values()),
            "monotone": all(a.monotone for a in by_sign.values()),
            **receipt,
        }
        calibration = with_safe_range(calibration, concept, site, operator, entry)
    return replace(vectors, calibration=calibration)
