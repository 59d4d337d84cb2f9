"""Curves of a sweep: what every cell did to every concept at every dose, and the numbers beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trimtab.evaluation.cells import Cell
from trimtab.evaluation.conditions import Condition
from trimtab.evaluation.dose_response import Row
from trimtab.evaluation.fluency import Fluency
from trimtab.evaluation.samples import Record, by_condition, item_scores
from trimtab.evaluation.slopes import Study, study
from trimtab.evaluation.statistics import upper_quantile

#: Doses whose shares of cut replies differ by more than this cannot be compared: the limit decides what is scored.
CUT_GAP = 0.05


@dataclass(frozen=True, eq=False)
class Point:
    """One dose: `items` [n] mean scores, fluency, whether it is `good`, mean reply length, share `cut` at the limit."""

    dose: float
    items: np.ndarray
    fluency: float
    good: bool
    length: float
    cut: float
    fingerprint: str = "plain"

    @property
    def finite(self) -> bool:
        """Whether every item has a number."""
        return bool(np.isfinite(self.items).all())


@dataclass(frozen=True, eq=False)
class Curve:
    """One cell and one concept, by rising dose; dose 0 is the plain model. `null` maps a size to the means of random
    directions."""

    cell: Cell
    concept: str
    points: tuple[Point, ...]
    null: Mapping[float, tuple[float, ...]] = field(default_factory=dict)
    seed: int = 0
    revision: str | None = None

    @property
    def plain(self) -> Point:
        """The point at dose 0."""
        return next(p for p in self.points if p.dose == 0)

    @property
    def best(self) -> Point:
        """The point with the highest mean among the doses from 0 up to the first that is not coherent; the smaller dose
        where two are equal. What lies beyond an incoherent dose is not trusted, coherent or not."""
        kept: list[Point] = []
        for p in (p for p in self.points if p.dose >= 0):
            if not (p.good and p.finite):
                break
            kept.append(p)
        return max(kept, key=lambda p: (float(p.items.mean()), -p.dose), default=self.plain)

    @property
    def gain(self) -> np.ndarray:
        """What the best point adds to each item, [items]."""
        return self.best.items - self.plain.items

    def band(self, dose: float) -> float | None:
        """The 95 % quantile of random directions of the same size; None where none were run."""
        found = self.null.get(abs(dose))
        return None if not found else upper_quantile(found)

    def study(self) -> Study:
        """The dose response over all finite points."""
        kept = [p for p in self.points if p.finite]
        return study(
            [p.dose for p in kept],
            np.stack([p.items for p in kept]),
            good=[p.good for p in kept],
            seed=self.seed,
        )

    def rows(self) -> list[Row]:
        """A row per finite dose with its interval."""
        return [
            Row.of(
                p.dose, p.items, p.fluency, fingerprint=p.fingerprint, seed=self.seed, revision=self.revision
            )
            for p in self.points
            if p.finite
        ]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the points hard to compare."""
        found = []
        cuts = [p.cut for p in self.points if np.isfinite(p.cut)]
        if cuts and max(cuts) - min(cuts) > CUT_GAP + 1e-9:
            found.append(
                f"{min(cuts):.0%} to {max(cuts):.0%} of replies are cut at the token limit, depending on the dose: "
                "the same command with --continue-to N goes on with them"
            )
        broken = [p.dose for p in self.points if not p.finite]
        if broken:
            found.append(f"scores are not finite at doses {', '.join(f'{d:+g}' for d in broken)}: left out")
        return tuple(found)

    def merged(self, other: Curve) -> Curve:
        """Both curves' points and null directions; this one's where both have a dose."""
        points = {p.dose: p for p in (*other.points, *self.points)}
        return replace(
            self, points=tuple(points[d] for d in sorted(points)), null={**other.null, **self.null}
        )

    def to_json(self) -> dict[str, Any]:
        """Rows with intervals, the study, the null band."""
        s = self.study() if sum(p.finite for p in self.points) > 1 else None
        rows = [
            {**r.to_json(), "good": p.good, "length": p.length, "cut": p.cut, "null_q95": self.band(p.dose)}
            for r, p in zip(self.rows(), (p for p in self.points if p.finite), strict=True)
        ]
        return {
            "cell": self.cell.name,
            "concept": self.concept,
            "best_dose": self.best.dose,
            "rows": rows,
            "study": None if s is None else s.to_json(),
            "warnings": [*self.warnings, *(() if s is None else s.warnings)],
        }


def point(
    condition: Condition, rows: Sequence[Record], score: str, concept: str, value: float, good: bool
) -> Point:
    """The point of one condition's rows."""
    lengths = [r["tokens"] for r in rows if "tokens" in r]
    return Point(
        dose=condition.dose,
        items=item_scores(rows, score, concept),
        fluency=value,
        good=good and all(r.get("finite", True) for r in rows),
        length=float(np.mean(lengths)) if lengths else float("nan"),
        cut=float(np.mean([r["cut"] for r in rows])) if lengths else float("nan"),
        fingerprint=rows[0]["fingerprint"],
    )


def curves(
    rows: Iterable[Record],
    conditions: Mapping[Cell, Sequence[Condition]],
    plain: Condition,
    concepts: Sequence[str],
    score: str,
    fluency: Fluency,
    *,
    seed: int = 0,
    revision: str | None = None,
) -> list[Curve]:
    """Every (cell, concept) from the rows of `measure`. `conditions` are those of each cell, random ones too."""
    by = by_condition(list(rows))
    every = [plain, *(c for own in conditions.values() for c in own if c.kind == "steered")]
    values = fluency.of(every, by)
    base = values[plain.name]
    found = []
    for cell, own in conditions.items():
        null: dict[float, list[Condition]] = {}
        for c in own:
            if c.kind == "random":
                null.setdefault(abs(c.dose), []).append(c)
        for concept in concepts:
            zero = point(plain, by[plain.name], score, concept, base, True)
            points = [
                point(c, by[c.name], score, concept, values[c.name], fluency.good(values[c.name], base))
                for c in own
                if c.kind == "steered" and c.concept == concept
            ]
            means = {
                size: tuple(float(item_scores(by[c.name], score, concept).mean()) for c in members)
                for size, members in null.items()
            }
            ordered = tuple(sorted([zero, *points], key=lambda p: p.dose))
            found.append(Curve(cell, concept, ordered, means, seed, revision))
    return found
