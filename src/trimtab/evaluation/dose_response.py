"""Dose-response: one row per dose, the line through them, and what may be claimed.

The regression columns are those of the public steering journal, whose tables they reproduce: x =
symlog(dose),
`score_v1` = |slope| · r² · valid², `score_v2` = score_v1 · (max − min). The two versions cannot be ranked
together, so each carries its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.coherence import SLACK, coherent
from trimtab.evaluation.statistics import Estimate, mean_interval, sign_flip, spearman

#: Dips up to this size do not count against a rising curve.
DROP = 0.02
#: A line needs this many valid points; with fewer every statistic is NaN.
MIN_POINTS = 3


@dataclass(frozen=True)
class Row:
    """One dose: `score` is a mean over `n` items with its 95 % interval; `coherence` stands beside it.

    `fingerprint`, `seed` and `revision` say which plan on which model gave it.
    """

    dose: float
    score: float
    low: float
    high: float
    coherence: float
    n: int
    fingerprint: str = "plain"
    seed: int | None = None
    revision: str | None = None

    @classmethod
    def of(cls, dose: float, items: Sequence[float] | np.ndarray, coherence: float, **receipt: Any) -> Row:
        """From item means [n]; the interval is a bootstrap over items."""
        e = mean_interval(items)
        return cls(dose, e.mean, e.low, e.high, coherence, e.n, **receipt)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def at_dose(rows: Sequence[Row], dose: float) -> Row:
    """The row of one dose."""
    for row in rows:
        if math.isclose(row.dose, dose, abs_tol=1e-9):
            return row
    raise InputError(f"no row at dose {dose:g}; there are {[r.dose for r in rows]}")


def coherent_rows(rows: Sequence[Row], unsteered: float, slack: float = SLACK) -> list[Row]:
    """Rows whose coherence is at least the unsteered value − slack, by rising dose."""
    kept = [r for r in rows if coherent(r.coherence, unsteered, slack)]
    return sorted(kept, key=lambda r: r.dose)


def best_row(rows: Sequence[Row], unsteered: float, slack: float = SLACK) -> Row:
    """The coherent row with the highest score; the smaller dose where two are equal.

    It is chosen on the rows it is reported from, so its score is slightly optimistic: compare its *lower*
    bound.
    """
    kept = coherent_rows(rows, unsteered, slack)
    if not kept:
        raise InputError("no dose is coherent: narrow the grid or choose other layers")
    return max(kept, key=lambda r: (r.score, -abs(r.dose)))


def rises(scores: Sequence[float], drop: float = DROP) -> bool:
    """Whether a curve ends above its start and never falls by more than `drop` below its highest point so
    far.
    """
    s = np.asarray(scores, dtype=np.float64)
    if len(s) < 2 or not np.isfinite(s).all():
        return False
    return bool(s[-1] > s[0] and np.all(s >= np.maximum.accumulate(s) - drop))


def longest_rise(
    rows: Sequence[Row], unsteered: float, slack: float = SLACK, drop: float = DROP
) -> list[Row]:
    """The longest run of neighbouring coherent rows over which the score rises."""
    kept = coherent_rows(rows, unsteered, slack)
    runs = (kept[i:j] for i in range(len(kept)) for j in range(i + 2, len(kept) + 1))
    good = [run for run in runs if rises([r.score for r in run], drop)]
    return max(good, key=len, default=[])


# --- regression
# --------------------------------------------------------------------------------------------------


def symlog(dose: Sequence[float] | np.ndarray) -> np.ndarray:
    """sign(c) · ln(1 + |c|)."""
    c = np.asarray(dose, dtype=np.float64)
    return np.sign(c) * np.log1p(np.abs(c))


@dataclass(frozen=True)
class Regression:
    """The line y = intercept + slope · symlog(dose) over valid points; NaN throughout below three of them.

    `slope_low, slope_high` are the 95 % t-interval; `effect_size` = |slope| ÷ SD of y across items at dose
    0 (NaN without two items there); `asymmetry` = 1 − min ÷ max of the two sides' moves from dose 0.
    """

    slope: float
    intercept: float
    r2: float
    p_value: float
    slope_low: float
    slope_high: float
    min: float
    max: float
    spearman: float
    asymmetry: float
    effect_size: float
    score_v1: float
    score_v2: float
    valid_frac: float
    n_valid: int


def regress(
    doses: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    *,
    valid: Sequence[bool] | np.ndarray | None = None,
    items_at_zero: Sequence[float] | np.ndarray | None = None,
) -> Regression:
    """Regress y on symlog(dose). Points that are not finite, or not `valid`, are left out and lower
    valid_frac.
    """
    doses, y = np.asarray(doses, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if doses.ndim != 1 or doses.shape != y.shape or not len(doses):
        raise InputError(f"doses and y are lists of one length, got shapes {doses.shape} and {y.shape}")
    keep = np.isfinite(y) if valid is None else np.isfinite(y) & np.asarray(valid, dtype=bool)
    share, count = float(keep.mean()), int(keep.sum())
    if count < MIN_POINTS or np.ptp(doses[keep]) == 0:
        nan = float("nan")
        return Regression(*([nan] * 13), valid_frac=share, n_valid=count)
    x, y_kept = symlog(doses[keep]), y[keep]
    slope, intercept, r2, p, half = _line(x, y_kept)
    low, high = float(y_kept.min()), float(y_kept.max())
    score = abs(slope) * r2 * share**2
    return Regression(
        slope,
        intercept,
        r2,
        p,
        slope - half,
        slope + half,
        low,
        high,
        spearman(x, y_kept),
        _asymmetry(doses[keep], y_kept),
        _effect_size(slope, items_at_zero),
        score,
        score * (high - low),
        share,
        count,
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float, float]:
    """Slope, intercept, r², two-sided p and the half-width of the slope's 95 % interval."""
    from scipy.stats import linregress, t

    if np.ptp(y) == 0:  # linregress gives NaN for r here; a flat line explains nothing and is certain of it
        return 0.0, float(y[0]), 0.0, 1.0, 0.0
    fit: Any = linregress(x, y)
    half = float(t.ppf(0.975, len(x) - 2) * fit.stderr)
    return float(fit.slope), float(fit.intercept), float(fit.rvalue**2), float(fit.pvalue), half


def _asymmetry(doses: np.ndarray, y: np.ndarray) -> float:
    """How unequal the two ends move y: 0 is symmetric, 1 one-sided, NaN without dose 0 or a side."""
    zero = np.flatnonzero(doses == 0)
    if not len(zero) or doses.min() >= 0 or doses.max() <= 0:
        return float("nan")
    base = y[zero[0]]
    moves = abs(y[doses.argmax()] - base), abs(y[doses.argmin()] - base)
    return 0.0 if max(moves) == 0 else float(1 - min(moves) / max(moves))


def _effect_size(slope: float, items: Sequence[float] | np.ndarray | None) -> float:
    if items is None or len(items) < 2:
        return float("nan")
    spread = float(np.std(np.asarray(items, dtype=np.float64), ddof=1))
    return abs(slope) / spread if spread > 0 else float("nan")


def item_slopes(doses: Sequence[float] | np.ndarray, table: np.ndarray) -> tuple[Estimate, float]:
    """Mean over items of each item's own slope on symlog(dose), and its sign-flip p. `table` is [doses,
    items].

    Equal to a random-slope model for balanced data; unlike one line through all points, its n is the items.
    """
    table = np.asarray(table, dtype=np.float64)
    x = symlog(doses)
    if table.ndim != 2 or table.shape[0] != len(x) or np.ptp(x) == 0:
        raise InputError(
            f"expected a table [doses = {len(x)}, items], got {table.shape}, over distinct doses"
        )
    centred = x - x.mean()
    slopes = centred @ table / (centred @ centred)
    return mean_interval(slopes), sign_flip(slopes)
