"""Intervals and tests in which the item (a prompt, a dilemma) is the unit, never the token, the sample or
the dose.

Samples of one item are averaged first (`by_item`); what is resampled or sign-flipped afterwards are items.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.errors import InputError

LEVEL = 0.95
RESAMPLES = 2000
#: Up to this many items every sign pattern is tried; beyond it, `PERMUTATIONS` random ones.
EXACT_ITEMS = 12
PERMUTATIONS = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` items with its interval [low, high]; NaN bounds for one item."""

    mean: float
    low: float
    high: float
    n: int

    def words(self, form: str) -> str:
        """The mean, and its interval where there is one, each by a number format such as "+.2f"."""
        bounds = "" if math.isnan(self.low) else f" [{self.low:{form}}, {self.high:{form}}]"
        return f"{self.mean:{form}}{bounds}"


def by_item(values: Sequence[float], items: Sequence[Hashable]) -> np.ndarray:
    """Mean value of each item [n_items], items in order of first appearance."""
    if len(values) != len(items):
        raise InputError(f"{len(values)} values and {len(items)} item names do not line up")
    groups: dict[Hashable, list[float]] = {}
    for value, item in zip(values, items):
        groups.setdefault(item, []).append(float(value))
    return np.array([np.mean(g) for g in groups.values()])


def _checked(values: Sequence[float] | np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise InputError(f"{what} is a non-empty list of numbers, one per item; got shape {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(f"{what} holds NaN or infinite numbers; leave such items out and report how many")
    return values


def mean_interval(
    values: Sequence[float] | np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: str = "BCa",
) -> Estimate:
    """Mean over items with a bootstrap interval (`method` "BCa" or "percentile", both of scipy)."""
    from scipy.stats import bootstrap

    values = _checked(values, "an item list")
    mean = float(values.mean())
    if len(values) == 1:
        return Estimate(mean, float("nan"), float("nan"), 1)
    # BCa divides by the spread of the jackknife, which is 0 (or rounding) here.
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        return Estimate(mean, mean, mean, len(values))
    found = bootstrap(
        (values,),
        np.mean,
        confidence_level=level,
        n_resamples=resamples,
        method=method,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(found.low), float(found.high), len(values))


def paired_difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, **options: float | int | str
) -> Estimate:
    """Mean of a − b over items that were measured under both conditions, with its interval."""
    a, b = _checked(a, "the first condition"), _checked(b, "the second condition")
    if len(a) != len(b):
        raise InputError(f"{len(a)} and {len(b)} items cannot be paired")
    return mean_interval(a - b, **options)  # type: ignore[arg-type]


def sign_flip(differences: Sequence[float] | np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p of mean difference 0 under random signs; exact for up to 12 items, else 10,000 random
    flips.

    The random test counts the observed pattern as one of the draws, so that p is never 0.
    """
    d = _checked(differences, "a list of differences")
    observed = abs(d.sum())
    tiny = 1e-12 * max(1.0, np.abs(d).sum())  # sums in another order differ in the last bit
    if len(d) <= EXACT_ITEMS:
        bits = (np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1
        return float(np.mean(np.abs((2 * bits - 1) @ d) >= observed - tiny))
    rng = np.random.default_rng(seed)
    flips = rng.integers(0, 2, size=(PERMUTATIONS, len(d)), dtype=np.int8) * 2 - 1
    return float((1 + np.sum(np.abs(flips @ d) >= observed - tiny)) / (1 + PERMUTATIONS))


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Rank correlation; 0 where one side is constant, NaN below two points."""
    from scipy.stats import spearmanr

    x, y = _checked(x, "x"), _checked(y, "y")
    if len(x) != len(y):
        raise InputError(f"{len(x)} and {len(y)} numbers cannot be correlated")
    if len(x) < 2:
        return float("nan")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(spearmanr(x, y).statistic)  # type: ignore[attr-defined]


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment: family-wise error over a handful of methods."""
    p = _checked(p_values, "a list of p-values")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjustment: false discovery rate over many values."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(_checked(p_values, "a list of p-values"), method="bh"))


def upper_quantile(null: Sequence[float] | np.ndarray, level: float = LEVEL) -> float:
    """The `level` quantile of a null sample (the scores of random directions), linear between order
    statistics.
    """
    return float(np.quantile(_checked(null, "a null sample"), level))


def auc_interval(
    positive: Sequence[float] | np.ndarray,
    negative: Sequence[float] | np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """AUC with a percentile interval; positives and negatives are resampled each for themselves (stratified)."""
    p, n = _checked(positive, "positives"), _checked(negative, "negatives")
    above = (p[:, None] > n[None, :]) + 0.5 * (p[:, None] == n[None, :])
    rng = np.random.default_rng(seed)
    # A resample is a vector of counts: its AUC is the weighted mean of the table of comparisons.
    rows = rng.multinomial(len(p), np.full(len(p), 1 / len(p)), resamples) / len(p)
    columns = rng.multinomial(len(n), np.full(len(n), 1 / len(n)), resamples) / len(n)
    draws = np.einsum("rp,rp->r", rows, columns @ above.T)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(above.mean()), float(low), float(high), len(p) + len(n))


def auc(positive: Sequence[float] | np.ndarray, negative: Sequence[float] | np.ndarray) -> float:
    """Probability that a positive outscores a negative, ties counting half."""
    from scipy.stats import rankdata

    positive, negative = _checked(positive, "positives"), _checked(negative, "negatives")
    ranks = rankdata(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
