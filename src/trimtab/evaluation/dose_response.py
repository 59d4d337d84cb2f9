"""Dose-response: one row per dose, the line through them, and what may be claimed.

The regression columns are those of the public steering journal, whose tables they reproduce: x =
symlog(dose),
`score_v1` = |slope| · r² · valid², `score_v2` = score_v1 · (max − min). The two versions cannot be ranked
together, so each carries its name.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.coherence import SLACK, coherent
from trimtab.evaluation.statistics import PERMUTATIONS, mean_interval, spearman

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

    `slope_low, slope_high` are the 95 % t-interval; `p_perm` is the share of shuffles of y over the doses whose
    |slope| is as large; `effect_size` = |slope| ÷ SD of y across items at dose 0 (NaN without two items there:
    `effect_size_why` says so); `asymmetry` = 1 − min ÷ max of the two sides' moves from dose 0; `leverage` is the
    largest share that one point has in its own fitted value (1 is all of it).
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
    p_perm: float = float("nan")
    leverage: float = float("nan")
    effect_size_why: str = ""

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def regress(
    doses: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    *,
    valid: Sequence[bool] | np.ndarray | None = None,
    items_at_zero: Sequence[float] | np.ndarray | None = None,
    seed: int = 0,
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
        score_v1(slope, r2, share),
        score_v2(slope, r2, share, low, high),
        share,
        count,
        permutation_p(x, y_kept, seed=seed),
        float((1 / len(x) + (x - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()).max()),
        _no_effect_size(items_at_zero),
    )


def score_v1(slope: float, r2: float, valid_frac: float) -> float:
    """The journal's score, first version: |slope| · r² · valid²."""
    return abs(slope) * r2 * valid_frac**2


def score_v2(slope: float, r2: float, valid_frac: float, low: float, high: float) -> float:
    """The journal's score, second version: the first × (max − min) of y."""
    return score_v1(slope, r2, valid_frac) * (high - low)


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


def _no_effect_size(items: Sequence[float] | np.ndarray | None) -> str:
    """Why there is no effect size; empty where there is one."""
    if items is None or len(items) < 2:
        return "needs two items or more at dose 0"
    return "" if np.ptp(np.asarray(items, dtype=np.float64)) > 0 else "all items have one value at dose 0"


def permutation_p(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, *, seed: int = 0
) -> float:
    """Two-sided p of slope 0 under shuffles of y over x: all of them up to 7 points, else 10,000 random ones."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    centred = x - x.mean()
    observed = abs(centred @ y)
    tiny = 1e-12 * max(1.0, float(np.abs(centred) @ np.abs(y)))
    if len(x) <= 7:
        orders = np.array(list(itertools.permutations(range(len(x)))))
        return float(np.mean(np.abs(y[orders] @ centred) >= observed - tiny))
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.broadcast_to(y, (PERMUTATIONS, len(y))), axis=1)
    return float((1 + np.sum(np.abs(shuffled @ centred) >= observed - tiny)) / (1 + PERMUTATIONS))
