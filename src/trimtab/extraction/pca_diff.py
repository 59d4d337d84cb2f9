"""Centred PCA of the differences: v = top right singular vector of D - mean(D), for D = P - N [n, width].

What repeng (vgel/repeng, `pca_diff`) and steering-lite compute, kept for parity. Centring deletes exactly the
shift that all pairs share, which is the concept: with D = 4 t + noise it returns the noise (|cos| with t
about 0). It finds a concept only where the *strength* of the shift varies over pairs more than anything else
does, and warns where ||mean(D)||^2 > sum of var(D) / 10. Raw norm: standard deviation of the projections; the
sign is the pairs' vote on uncentred projections (a centred vote has mean 0 and carries no information).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import Evidence
from trimtab.extraction.method import ExtractionWarning, Method, mean_difference
from trimtab.extraction.spectrum import leading


@dataclass(frozen=True)
class PcaDiff(Method):
    """No knobs."""

    name: ClassVar[str] = "pca_diff"
    needs: ClassVar[frozenset[str]] = frozenset({"mean", "gram"})
    paired: ClassVar[bool] = True

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        assert evidence.factor is not None
        n, mean = evidence.pairs, mean_difference(evidence)
        total = float(np.sum(evidence.factor**2))
        shift = float(mean @ mean)
        variance = total / n - shift
        if n < 2 or variance <= 1e-12 * shift:
            raise InputError(
                f"the differences of {name!r} at {evidence.site} are all alike, and pca_diff looks only at "
                "how they "
                "vary: use --method mean_diff or pca_diff_uncentered"
            )
        if shift > variance / 10:
            # One wording for every site, so that Python shows it once.
            warnings.warn(
                "pca_diff centres the differences, and here their mean is not small beside their spread: it "
                "deletes "
                "the shift that all pairs share, which is usually the concept; use mean_diff or "
                "pca_diff_uncentered",
                ExtractionWarning,
                stacklevel=3,
            )
        value, vector = leading(evidence.factor, np.sqrt(n) * mean)
        known = {"explained": value / (n * variance), "shift_to_variance": shift / variance}
        return vector * np.sqrt(value / (n - 1)), known
