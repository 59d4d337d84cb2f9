"""Calibration: the largest push whose cost stays within a limit, for every vector, site, operator and sign at once.

Each search brackets the limit on a geometric ladder of strengths and then bisects on the logarithm of the strength.
All searches advance together: a round measures the next point of every search that is still open, and a search whose
end is known drops out, so that there are as many rounds as one search needs. What a search asks next depends on its own
points alone: it ends where it would end by itself. A cost need not grow with the strength, so the answer is the largest
strength below which *every* measured point keeps the limit, and half of it is measured too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine
from trimtab.errors import InputError, UnknownName
from trimtab.evaluation.limits import Limit
from trimtab.interventions import Ablate, Add, Cap, Pin
from trimtab.plans import Placement, SteeringPlan
from trimtab.prompts import Positions, Prompt
from trimtab.safe_range import with_safe_range
from trimtab.sites import Site

#: Weakest push that is tried, and the strongest of every operator: doses, the share of an ablation, stored stds.
BOTTOM = 0.01
TOPS = {"add": 4.0, "add-renormalised": 4.0, "ablate": 1.0, "cap": 10.0, "pin": 10.0}
LADDER = 6  # rungs of the bracket: each is 2.5 to 4 times the one below
STEPS = 7  # halvings of the logarithm: the answer is right to 1 %
#: Plans × prompts that one call holds at most: several full batches of an engine, and little memory beside them.
ROWS = 4_096
OPERATORS = tuple(TOPS)
Advance = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Search:
    """One vector at one site, pushed by one operator to one side. Strength is the dose of the two `add`s, and how
    much of the ablation is carried out (0 to 1). `pin` sets the coordinate to sign × strength standard deviations from
    its stored mean; `cap` lets it not fall below that on the + side, and not rise above it on the − side."""

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
        if self.operator in ("cap", "pin") and not self._has_spread:
            raise InputError(
                f"{self.operator} is calibrated in standard deviations of the coordinate, and the file stores none for "
                f"{self.concept!r} at {self.site}; extract it with trimtab, or calibrate add or ablate"
            )

    @property
    def _has_spread(self) -> bool:
        d = self.vectors.direction(None, self.site)
        return d.mean is not None and d.std is not None

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
        return TOPS[self.operator]

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
        if self.operator in ("cap", "pin"):
            z = self.sign * strength
            cap = Cap(low=z, z=True) if self.sign > 0 else Cap(high=z, z=True)
            return SteeringPlan(
                (Placement(Pin(z, z=True) if self.operator == "pin" else cap, quiet, **where),)
            )
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
    known: Sequence[Mapping[float, float]] | None = None,
    keep: Callable[[int, float, float], None] | None = None,
) -> list[Found]:
    """The answer of every search. `advance(points)` counts measured points: `points_of` says how many there will be.

    `keep(search, strength, cost)` gets each point as soon as it is measured (search is an index of `wanted`); `known`,
    one mapping strength → cost per search, holds those of an interrupted call, which then goes on where it stopped.
    """
    if not prompts:
        raise InputError("a calibration needs at least one prompt")
    rounds = _Rounds(engine, wanted, limit, prompts, known or [{}] * len(wanted), keep)
    for asked in rounds.asked(steps):
        rounds.measure(asked, advance)
    return [_found(p, limit.limit) for p in rounds.points]


@dataclass(eq=False)
class _Rounds:
    """The calls that measure, and the `points` that were asked so far. What is `known` joins them only when it is asked
    again: a bracket that it narrowed before its time would be halved too often, and end elsewhere."""

    engine: Engine
    wanted: Sequence[Search]
    limit: Limit
    prompts: Sequence[Prompt]
    known: Sequence[Mapping[float, float]]
    keep: Callable[[int, float, float], None] | None
    points: list[dict[float, float]] = field(init=False)

    def __post_init__(self) -> None:
        self.points = [{} for _ in self.wanted]

    def asked(self, steps: int) -> Iterator[list[tuple[int, float]]]:
        """The (search, strength) of each round: the ladder, then the middle of every bracket, then half of each end."""
        every, bound = range(len(self.wanted)), self.limit.limit
        yield [(i, s) for i in every for s in np.geomspace(BOTTOM, self.wanted[i].top, LADDER).tolist()]
        for _ in range(steps):
            brackets = [(i, _bracket(self.points[i], bound)) for i in every]
            yield [(i, math.sqrt(b[0] * b[1])) for i, b in brackets if b is not None]
        yield [(i, s / 2) for i in every if (s := _largest(self.points[i], bound)) > 0]

    def measure(self, asked: Sequence[tuple[int, float]], advance: Advance | None) -> None:
        """One round, in one call unless that would hold too many rows; points that are known cost nothing."""
        for i, s in asked:
            if s in self.known[i]:
                self.points[i][s] = self.known[i][s]
        new = [(i, s) for i, s in asked if s not in self.points[i]]
        if advance is not None and len(new) < len(asked):
            advance(len(asked) - len(new))
        size = max(1, ROWS // len(self.prompts))
        for start in range(0, len(new), size):
            part = new[start : start + size]
            plans = [self.wanted[i].plan(s) for i, s in part]
            costs = self.limit.values(self.engine, plans, self.prompts)
            for (i, strength), cost in zip(part, costs, strict=True):
                self.points[i][strength] = float(cost) if np.isfinite(cost) else math.inf
                if self.keep is not None:
                    self.keep(i, strength, self.points[i][strength])
            if advance is not None:
                advance(len(part))


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
