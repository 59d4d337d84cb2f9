"""What the numbers of two conditions say. Pure functions; the item is the dilemma, never the question or the dose.

    score of a dilemma for a value v = mean over its questions of  sign · log-ratio · y_v        (nats, towards v)

where y_v is +1 if v speaks for acting, −1 if it speaks against, and dilemmas with y_v = 0 do not count: an absent value
is no zero. Exchanging the names of a dilemma's two actions changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.data.dilemmas import Dilemma
from trimtab.errors import InputError
from trimtab.evaluation.statistics import Estimate, benjamini_hochberg, mean_interval, sign_flip
from trimtab.evaluation.transfer.asking import Asked

#: A condition is coherent while this share of questions is answered, and neutral text loses less than this (nats).
MIN_VALID, MAX_DELTA_NLL = 0.8, 1.0
ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class Items:
    """The dilemmas, their questions, and y [values, dilemmas] of every value."""

    dilemmas: tuple[Dilemma, ...]
    rows: tuple[Asked, ...]
    values: tuple[str, ...]
    labels: np.ndarray

    @classmethod
    def of(cls, dilemmas: Sequence[Dilemma], rows: Sequence[Asked]) -> Items:
        """Label every value that any dilemma names."""
        values = tuple(dict.fromkeys(v for d in dilemmas for a in d.actions for v in a.values))
        labels = np.array([[d.label(v) for d in dilemmas] for v in values], dtype=np.float64)
        return cls(tuple(dilemmas), tuple(rows), values, labels.reshape(len(values), len(dilemmas)))

    def label(self, value: str) -> np.ndarray:
        """y [dilemmas] of one value."""
        if value not in self.values:
            raise InputError(f"no dilemma names the value {value!r}; `--list-values` prints those there are")
        return self.labels[self.values.index(value)]

    def towards_acting(self, per_row: np.ndarray) -> np.ndarray:
        """Mean over each dilemma's questions of sign · number, [dilemmas]."""
        total, count = np.zeros(len(self.dilemmas)), np.zeros(len(self.dilemmas))
        for row, value in zip(self.rows, per_row, strict=True):
            total[row.item] += row.sign * value
            count[row.item] += 1
        return total / np.maximum(count, 1)

    def score(self, per_row: np.ndarray, value: str) -> np.ndarray:
        """Scores of the dilemmas that take a side on a value."""
        y = self.label(value)
        return (self.towards_acting(per_row) * y)[y != 0]

    def subset(self, keep: np.ndarray) -> tuple[Items, np.ndarray]:
        """The dilemmas where `keep` [dilemmas] holds, and which rows are theirs."""
        index = np.flatnonzero(keep)
        place = {int(old): new for new, old in enumerate(index)}
        mine = np.array([r.item in place for r in self.rows])
        rows = tuple(Asked(place[r.item], r.sign, r.question) for r in self.rows if r.item in place)
        part = Items(tuple(self.dilemmas[i] for i in index), rows, self.values, self.labels[:, index])
        return part, mine


def interval(values: np.ndarray) -> Estimate:
    """The mean's interval. Items that are equal up to rounding are equal: a bootstrap of last bits means nothing."""
    mean = float(values.mean())
    if np.ptp(values) <= 1e-9 * max(1.0, abs(mean)):
        values = np.full(len(values), mean)
    return mean_interval(values)


@dataclass(frozen=True)
class Change:
    """Against the plain model: paired change of the target's score (nats) with interval and sign-flip p; mean over the
    other values of |change|, and over how many values."""

    target: Estimate
    p: float
    others: float | None
    n_others: int


def change(items: Items, here: np.ndarray, plain: np.ndarray, target: str) -> Change:
    """From the log-ratios [rows] of one condition and of the plain model."""
    difference = items.score(here, target) - items.score(plain, target)
    if not len(difference):
        raise InputError(f"no dilemma takes a side on {target!r}")
    moved = items.towards_acting(here - plain)
    others = [
        abs(float(np.mean((moved * y)[y != 0])))
        for v, y in zip(items.values, items.labels)
        if v != target and np.any(y != 0)
    ]
    return Change(
        interval(difference),
        sign_flip(difference),
        float(np.mean(others)) if others else None,
        len(others),
    )


def efficiency(transfer: float, params: int | None) -> float | None:
    """|transfer| ÷ ln(1 + params), nats: what a method moves beside how many numbers it takes; None without any."""
    return abs(transfer) / math.log1p(params) if params else None


@dataclass(frozen=True)
class Breadth:
    """Values moved: adjusted p below .05 (Benjamini and Hochberg) between +c and −c, of those with enough dilemmas."""

    moved: tuple[str, ...]
    tested: int


def breadth(items: Items, plus: np.ndarray, minus: np.ndarray, min_items: int) -> Breadth:
    """Half the difference between the two signs, per value."""
    half = items.towards_acting(plus - minus) / 2
    tested = [
        (v, (half * y)[y != 0]) for v, y in zip(items.values, items.labels) if np.sum(y != 0) >= min_items
    ]
    if not tested:
        return Breadth((), 0)
    adjusted = benjamini_hochberg([sign_flip(d) for _, d in tested])
    return Breadth(tuple(v for (v, _), q in zip(tested, adjusted) if q < ALPHA), len(tested))


@dataclass(frozen=True)
class Slopes:
    """Each item's own slope over the doses: their mean with interval and p, the share that goes the wrong way, and all
    of them."""

    slope: Estimate
    p: float
    anti_steered: float
    each: tuple[float, ...] = ()


def slopes(items: Items, doses: Sequence[float], table: Sequence[np.ndarray], target: str) -> Slopes:
    """Least-squares slope (nats per unit of dose) of every item; `table[k]` are the log-ratios at `doses[k]`."""
    x = np.asarray(doses, np.float64) - np.mean(doses)
    if len(x) != len(table) or not np.any(x):
        raise InputError(f"slopes need log-ratios at two doses or more, got doses {list(doses)}")
    scores = np.stack([items.score(t, target) for t in table])
    each = x @ scores / (x @ x)
    return Slopes(interval(each), sign_flip(each), float(np.mean(each < 0)), tuple(each.tolist()))


def coherent_range(doses: Sequence[float], fine: Sequence[bool]) -> tuple[float, float] | None:
    """The largest unbroken interval around dose 0 whose measured doses are all fine; None where 0 itself is not."""
    state = dict(zip(doses, fine, strict=True))
    if not state.get(0.0, False):
        return None
    low, high = 0.0, 0.0
    for d in sorted(d for d in state if d > 0):
        if not state[d]:
            break
        high = d
    for d in sorted((d for d in state if d < 0), reverse=True):
        if not state[d]:
            break
        low = d
    return low, high


def largest_of_both_signs(span: tuple[float, float] | None, doses: Sequence[float]) -> float | None:
    """The largest measured size whose two signs lie in the range; None where there is none."""
    if span is None:
        return None
    fitting = [d for d in doses if d > 0 and -d in doses and d <= span[1] and -d >= span[0]]
    return max(fitting, default=None)


def null_band(
    measure: Callable[[np.ndarray], float], random: Mapping[str, np.ndarray], level: float = 0.95
) -> tuple[float, float] | None:
    """Quantiles of what random directions of the same norm reach, every sign; None without any."""
    if not random:
        return None
    tail = (1 - level) / 2
    reached = [measure(v) for v in random.values()]
    low, high = np.quantile(reached, (tail, 1 - tail))
    return float(low), float(high)
