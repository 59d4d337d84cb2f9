"""Mean difference: v = mean(P) - mean(N), for P, N [n, width] states of positive and negative texts.

CAA (arXiv 2312.06681) and, with one pair, ActAdd (2308.10248). Pairs are not needed and change nothing; the
sign is right by construction and the raw norm is the length of v. With P = X + t and N = X it returns t
exactly. The safest method where the two sides differ by a shift: with D = t + noise of 3 per coordinate it
still finds t when every PCA fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import Evidence
from trimtab.extraction.method import NOTHING, Method, mean_difference


@dataclass(frozen=True)
class MeanDiff(Method):
    """No knobs."""

    name: ClassVar[str] = "mean_diff"
    needs: ClassVar[frozenset[str]] = frozenset({"mean"})
    signed: ClassVar[bool] = True

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        raw = mean_difference(evidence)
        size = max(np.linalg.norm(m) for m in evidence.mean.values())
        if np.linalg.norm(raw) <= NOTHING * size:
            raise InputError(
                f"the two sides of {name!r} have the same mean at {evidence.site}: mean_diff finds no "
                "direction; "
                "check that the texts differ, or use --method pca_diff_uncentered"
            )
        return raw, {}
