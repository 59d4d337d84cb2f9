"""Mean difference: v = mean(P) - mean(N), for P, N [n, width] states of positive and negative texts.

CAA (arXiv 2312.06681) and, with one pair, ActAdd (2308.10248). Pairs are not needed and change nothing; the
sign is right by construction and the raw norm is the length of v. With P = X + t and N = X it returns t
exactly. The safest method where the two sides differ by a shift: with D = t + noise of 3 per coordinate it
still finds t when every PCA fails.

Knobs, all off: `trim` leaves the share of lowest and of highest values of each coordinate out before it
averages (of the differences where there are pairs, else of each side). `unit_pairs` lets each pair count with
length 1: v = mean ||D|| * mean(D / ||D||). `centre` takes the mean of both sides together off the positives
(mean-centring, 2312.03813): the same direction, v times n- / (n+ + n-), half for equal sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.extraction.method import NOTHING, Method, differences, mean_difference


@dataclass(frozen=True)
class MeanDiff(Method):
    """`trim` and `unit_pairs` keep every row in memory, where the plain mean streams; `trim` costs a sort."""

    name: ClassVar[str] = "mean_diff"
    needs: ClassVar[frozenset[str]] = frozenset({"mean"})
    signed: ClassVar[bool] = True

    unit_pairs: bool = False
    trim: float = 0.0
    centre: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 0.5:
            raise InputError(f"trim is the share cut off at either end, 0 to below .5; got {self.trim}")

    @property
    def wanted(self) -> frozenset[str]:
        """Rows too, where single rows matter."""
        return self.needs | {"rows"} if self.unit_pairs or self.trim else self.needs

    def check_pairs(self, paired: bool, name: str) -> None:
        """Only `unit_pairs` needs pairs."""
        if self.unit_pairs and not paired:
            raise InputError(
                f"mean_diff with unit_pairs needs pairs, and the data of {name!r} are not paired: leave "
                "unit_pairs out, or write pairs as JSON lines"
            )

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        raw = self._mean(evidence)
        size = max(np.linalg.norm(m) for m in evidence.mean.values())
        if np.linalg.norm(raw) <= NOTHING * size:
            raise InputError(
                f"the two sides of {name!r} have the same mean at {evidence.site}: mean_diff finds no "
                "direction; check that the texts differ, or use --method pca_diff_uncentered"
            )
        share = evidence.count[NEGATIVE] / sum(evidence.count.values())
        return (share * raw if self.centre else raw), {}

    def _mean(self, evidence: Evidence) -> np.ndarray:
        if not self.unit_pairs and not self.trim:
            return mean_difference(evidence)
        assert evidence.rows is not None
        pairs = differences(evidence)
        if pairs is None:
            return trimmed(evidence.rows[POSITIVE], self.trim) - trimmed(evidence.rows[NEGATIVE], self.trim)
        if not self.unit_pairs:
            return trimmed(pairs, self.trim)
        lengths = np.linalg.norm(pairs, axis=1, keepdims=True)
        # A pair that does not differ has no direction to count with, and counts as 0.
        units = np.divide(pairs, lengths, out=np.zeros_like(pairs), where=lengths > 0)
        return trimmed(units, self.trim) * float(lengths.mean())


def trimmed(rows: np.ndarray, share: float) -> np.ndarray:
    """Mean of each coordinate [width] without its floor(share * n) lowest and as many highest values."""
    cut = int(share * len(rows))
    return (np.sort(rows, axis=0)[cut : len(rows) - cut] if cut else rows).mean(0)
