"""Would other texts have given the same direction? The cosine between fits on two random halves of the groups."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from trimtab.analysis.quality.samples import Sample
from trimtab.errors import InputError
from trimtab.extraction.method import Method

SPLITS = 10
#: Standard errors of a mean that it exceeds one time in twenty.
ONE_SIDED = 1.645


@dataclass(frozen=True)
class SplitHalf:
    """Mean cosine over the splits with its range; `whole`, what all rows together should reach (Spearman-Brown,
    2r / (1 + r); None for r <= 0, where it means nothing); `chance`, the mean cosine of the same splits under random
    labels, and `chance_high`, what such a mean stays under 19 times in 20: in a space that a few directions rule,
    strangers agree too."""

    cosine: float
    low: float
    high: float
    whole: float | None
    chance: float
    chance_high: float
    splits: int


def split_half(sample: Sample, method: Method, seed: int = 0, splits: int = SPLITS) -> SplitHalf:
    """Fit both halves of several random splits, with the true and with random labels."""
    if not method.learns:
        raise InputError(f"{method.name} does not learn from the data: its halves agree by construction")
    if sample.most_parts() < 2:
        raise InputError("every side needs texts of at least two groups to be halved")
    rng = np.random.default_rng(seed)
    true, null = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(splits):
            half = sample.deal(2, rng)
            true.append(_cosine(sample, method, half, np.arange(len(half))))
            null.append(_stranger(sample, method, half, sample.relabelled(rng)))
    r = float(np.mean(true))
    return SplitHalf(
        cosine=r,
        low=float(min(true)),
        high=float(max(true)),
        whole=2 * r / (1 + r) if r > 0 else None,
        chance=float(np.mean(null)),
        chance_high=float(np.mean(null) + ONE_SIDED * np.std(null) / np.sqrt(splits)),
        splits=splits,
    )


def _stranger(sample: Sample, method: Method, half: np.ndarray, order: np.ndarray) -> float:
    """As `_cosine`; random labels may cancel exactly, and then there is no direction to agree."""
    try:
        return _cosine(sample, method, half, order)
    except InputError:
        return 0.0


def _cosine(sample: Sample, method: Method, half: np.ndarray, order: np.ndarray) -> float:
    """Cosine of the two fits when position i of both sides is taken by row order[i]."""
    first, second = (
        sample.fit(method, order[p], order[q]) for p, q in (sample.sides(half == h) for h in (0, 1))
    )
    return float(first @ second)
