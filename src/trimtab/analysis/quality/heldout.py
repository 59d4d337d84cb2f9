"""Does the direction tell texts apart that it has not seen? Cross-validated by group, with the method refitted.

In every fold the *method that made the vector* is fitted on the other groups, and the fold's texts are projected on
what it found. Positives are compared with negatives of the same fold only: directions of different folds see the large
common part of all states differently, so their projections have different zeros, and pooling them blurs the sides.
The interval resamples groups.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from trimtab.analysis.quality.samples import Sample
from trimtab.errors import InputError
from trimtab.extraction.method import Method

FOLDS, RESAMPLES, LEVEL = 5, 1000, 0.95
#: Directions drawn at random for comparison.
DRAWS = 100
LEFT_OUT = -1
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval over groups."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class HeldOut:
    """`low_over_sites` is the lower bound when the best of several sites is picked (Bonferroni); `positive` and
    `negative` are `quantiles` of the held-out projections, standardised within their fold; `random` and `random_high`
    are the mean and the 95 % quantile of what directions drawn at random reach on the same texts, either sign (where
    states fill few dimensions most directions tell the sides apart, and a high AUC says little); `refitted` is False
    where a finished direction was read on other texts instead."""

    auc: Interval
    low_over_sites: float
    pair_accuracy: Interval | None
    positive: tuple[float, ...]
    negative: tuple[float, ...]
    random: float
    random_high: float
    quantiles: tuple[float, ...]
    groups: int
    folds: int
    refitted: bool


@dataclass(frozen=True, eq=False)
class Scores:
    """Projections [n + m] of every row on a direction that has not seen its group, and the fold of every row (-1: the
    row is left out of everything)."""

    values: np.ndarray
    fold: np.ndarray


def _parts(fold: np.ndarray) -> np.ndarray:
    return np.unique(fold[fold != LEFT_OUT])


def folds(sample: Sample, seed: int = 0) -> np.ndarray:
    """Fold [rows] of every row; refuses data that leave a fold or its training part without one of the sides."""
    parts = min(FOLDS, sample.most_parts())
    if parts < 2:
        raise InputError("every side needs texts of at least two groups to hold some of them out")
    return sample.deal(parts, np.random.default_rng(seed))


def cross_scores(sample: Sample, method: Method, fold: np.ndarray) -> Scores:
    """Refit on the other folds, project this one."""
    values = np.zeros(len(sample.rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit on all rows has said them
        for part in _parts(fold):
            here = fold == part
            unit = sample.fit(method, *sample.sides(~here & (fold != LEFT_OUT)))
            values[here] = sample.rows[here] @ unit
    return Scores(values, fold)


def fixed_scores(sample: Sample, unit: np.ndarray) -> Scores:
    """Projections on a finished direction: no fold, no refit."""
    return Scores(sample.rows @ np.asarray(unit, np.float64), np.zeros(len(sample.rows), int))


def auc(sample: Sample, scores: Scores) -> float:
    """Share of (positive, negative) couples of one fold in the right order, ties half."""
    wins, couples = _couples(sample, scores)
    return float(sum(w.sum() for _, w in wins) / sum(c.sum() for _, c in couples))


def held_out(sample: Sample, scores: Scores, refitted: bool, sites: int = 1, seed: int = 0) -> HeldOut:
    """Figures and intervals of held-out projections; `sites` is among how many the best will be picked."""
    rng = np.random.default_rng(seed)
    count = sample.groups
    weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)
    wins, couples = _couples(sample, scores)
    drawn = _weighted(wins, weights), _weighted(couples, weights)
    tail = (1 - LEVEL) / 2
    value = auc(sample, scores)
    area, over = _interval(value, *drawn, tail), _interval(value, *drawn, tail / max(1, sites))
    scaled = _standardised(scores)
    strangers = random_aucs(sample, rng)
    return HeldOut(
        auc=area,
        low_over_sites=over.low,
        pair_accuracy=_pairs(sample, scores, weights, tail) if sample.paired else None,
        positive=tuple(float(x) for x in np.quantile(scaled[sample.positive], QUANTILES)),
        negative=tuple(float(x) for x in np.quantile(scaled[sample.negative], QUANTILES)),
        random=float(strangers.mean()),
        random_high=float(np.quantile(strangers, LEVEL)),
        quantiles=QUANTILES,
        groups=count,
        folds=len(np.unique(scores.fold)) if refitted else 0,
        refitted=refitted,
    )


def random_aucs(sample: Sample, rng: np.random.Generator) -> np.ndarray:
    """AUC [DRAWS], of the better sign, of isotropic random directions on all texts."""
    n, m = len(sample.positive), len(sample.negative)
    along = sample.rows @ rng.standard_normal((sample.rows.shape[1], DRAWS))
    ranks = along.argsort(0).argsort(0) + 1.0
    area = (ranks[:n].sum(0) - n * (n + 1) / 2) / (n * m)
    return np.maximum(area, 1 - area)


Blocks = list[tuple[np.ndarray, np.ndarray]]


def _couples(sample: Sample, scores: Scores) -> tuple[Blocks, Blocks]:
    """Per fold (its groups, wins [g, g]) and (its groups, couples [g, g]), by group of the positive and of the
    negative; a group then counts as often as a resample draws it."""
    wins, couples = [], []
    for part in _parts(scores.fold):
        p, q = sample.sides(scores.fold == part)
        if not len(p) or not len(q):
            continue
        a, b = scores.values[p][:, None], scores.values[q][None]
        better = (a > b) + 0.5 * (a == b)
        here = np.unique(sample.group[np.concatenate([p, q])])
        left = (sample.group[p][:, None] == here).astype(np.float64)
        right = (sample.group[q][:, None] == here).astype(np.float64)
        wins.append((here, left.T @ better @ right))
        couples.append((here, np.outer(left.sum(0), right.sum(0))))
    return wins, couples


def _weighted(blocks: Blocks, weights: np.ndarray) -> np.ndarray:
    return sum(((weights[:, g] @ m) * weights[:, g]).sum(1) for g, m in blocks)  # type: ignore[return-value]


def _interval(value: float, top: np.ndarray, bottom: np.ndarray, tail: float) -> Interval:
    drawn = top[bottom > 0] / bottom[bottom > 0]
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Interval(value, float(low), float(high))


def _pairs(sample: Sample, scores: Scores, weights: np.ndarray, tail: float) -> Interval:
    lead = scores.values[sample.positive] - scores.values[sample.negative]
    right = (lead > 0) + 0.5 * (lead == 0)
    group = sample.group[sample.positive]
    top, bottom = (np.bincount(group, w, minlength=sample.groups) for w in (right, np.ones(len(right))))
    return _interval(float(right.mean()), weights @ top, weights @ bottom, tail)


def _standardised(scores: Scores) -> np.ndarray:
    out = np.zeros(len(scores.values))
    for part in _parts(scores.fold):
        here = scores.fold == part
        values = scores.values[here]
        spread = values.std()
        out[here] = (values - values.mean()) / (spread if spread > 0 else 1.0)
    return out
