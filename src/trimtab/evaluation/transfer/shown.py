"""What a page shows of a method at its own strength: every value's change, and examples chosen by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.evaluation.reporting.triplets import Said, Triplet, chosen
from trimtab.evaluation.statistics import Estimate
from trimtab.evaluation.transfer.effects import Items, interval, null_band


@dataclass(frozen=True)
class ValueChange:
    """One value: change (nats) at + and at − over its `n` dilemmas, and the 95 % band of random directions there."""

    value: str
    n: int
    plus: Estimate
    minus: Estimate
    null: tuple[float, float] | None


def value_changes(
    items: Items,
    plain: np.ndarray,
    plus: np.ndarray,
    minus: np.ndarray,
    random: Mapping[str, np.ndarray],
    target: str,
    min_items: int,
) -> tuple[ValueChange, ...]:
    """The target first, then the other values with enough dilemmas, by the distance between the two signs."""
    up, down = items.towards_acting(plus - plain), items.towards_acting(minus - plain)
    drawn = {k: items.towards_acting(r - plain) for k, r in random.items()}
    found = []
    for value, y in zip(items.values, items.labels, strict=True):
        keep = y != 0
        if value != target and keep.sum() < min_items:
            continue
        mine = y[keep]
        null = null_band(lambda moved, k=keep, y=mine: float(np.mean(moved[k] * y)), drawn)
        at_plus, at_minus = interval(up[keep] * mine), interval(down[keep] * mine)
        found.append(ValueChange(value, int(keep.sum()), at_plus, at_minus, null))
    return tuple(sorted(found, key=lambda v: (v.value != target, -abs(v.plus.mean - v.minus.mean), v.value)))


@dataclass(frozen=True, eq=False)
class Answers:
    """Log-ratios [rows] of one condition, and its free answers where there are some."""

    strength: float
    log_ratio: np.ndarray
    texts: Sequence[str] = ()


def triplets(items: Items, minus: Answers, zero: Answers, plus: Answers, target: str) -> tuple[Triplet, ...]:
    """Dilemmas at the quantiles of score(+) − score(−), each with its first question."""
    keep = np.flatnonzero(items.label(target))
    scores = {a.strength: items.score(a.log_ratio, target) for a in (minus, zero, plus)}
    effects = scores[plus.strength] - scores[minus.strength]
    found = []
    for quantile, i in chosen(effects, [items.dilemmas[k].id for k in keep]):
        item = int(keep[i])
        row = next(r for r, asked in enumerate(items.rows) if asked.item == item)
        said = [
            Said(
                a.strength, float(scores[a.strength][i]), a.texts[row] if len(a.texts) else None,
                f"p(yes) {1 / (1 + np.exp(-a.log_ratio[row])):.0%}",
            )
            for a in (minus, zero, plus)
        ]  # fmt: skip
        name = items.dilemmas[item].id
        found.append(Triplet(quantile, name, items.rows[row].question, float(effects[i]), len(keep), *said))
    return tuple(found)
