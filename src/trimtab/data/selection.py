"""Which texts count, by a judge's marks: thresholds for each side, or a gap within each pair.

A text without a mark (None or NaN) is never picked by a rule that asks for marks. Nothing picked is an error:
other tools return a vector of zeros there, and it steers nothing without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.errors import InputError

Scores = Sequence[float | None] | np.ndarray


@dataclass(frozen=True)
class Selection:
    """A rule. Positives: `least` <= mark, `above` < mark, mark < `below`; negatives: mark < `negative_below`.
    With `gap`, only pairs whose marks differ by more than it, positive over negative.
    """

    least: float | None = None
    above: float | None = None
    below: float | None = None
    negative_below: float | None = None
    gap: float | None = None

    @property
    def judges(self) -> tuple[bool, bool]:
        """Whether the rule asks for marks of the positives and of the negatives."""
        positive = any(x is not None for x in (self.least, self.above, self.below, self.gap))
        return positive, self.negative_below is not None or self.gap is not None

    def __str__(self) -> str:
        bounds = {
            "mark >=": self.least,
            "mark >": self.above,
            "mark <": self.below,
            "negatives' mark <": self.negative_below,
            "gap within the pair >": self.gap,
        }
        return ", ".join(f"{what} {x:g}" for what, x in bounds.items() if x is not None) or "every text"

    def masks(self, positive: Scores, negative: Scores) -> tuple[np.ndarray, np.ndarray]:
        """Which positives [n] and which negatives [m] count, two arrays of bool."""
        p, n = np.array(positive, dtype=np.float64), np.array(negative, dtype=np.float64)  # None becomes NaN
        if self.gap is not None:
            far = p - n > self.gap
            return far, far.copy()
        first = np.isfinite(p) if self.judges[0] else np.ones(len(p), bool)
        if self.least is not None:
            first &= p >= self.least
        if self.above is not None:
            first &= p > self.above
        if self.below is not None:
            first &= p < self.below
        second = np.ones(len(n), bool) if self.negative_below is None else n < self.negative_below
        return first, second

    def pick(
        self, scores: tuple[Scores, Scores], fewest: int, name: str, who: str = "the selection"
    ) -> tuple[np.ndarray, np.ndarray]:
        """`masks`, refused in words where a side has fewer than `fewest` positives, or no negatives, left."""
        masks = self.masks(*scores)
        for side, mask, needed, marks in zip(
            ("positive", "negative"), masks, (fewest, 1), scores, strict=True
        ):
            if mask.sum() < max(1, needed):
                without = int(np.sum(np.isnan(np.array(marks, dtype=np.float64))))
                raise InputError(
                    f"{who} keeps {int(mask.sum())} of {len(mask)} {side} texts of {name!r} ({self}; {without} have "
                    f"no mark) and needs {max(1, needed)}: give more texts, or choose a wider rule"
                )
        return masks


def unscored(name: str, who: str) -> InputError:
    """The error for data that nobody judged."""
    return InputError(
        f"{who} selects by a judge's marks, and the texts of {name!r} have none: write them as JSON lines with "
        '"positive_score" and "negative_score", or use --method mean_diff'
    )
