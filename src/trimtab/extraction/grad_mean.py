"""Signed mean gradient: v = (mean g- - mean g+) / 2, for gradients g [n, width] of a separation at the read tokens.

The direction along which the separation of the pairs at the read layer grows fastest; at that layer itself it is the
mean of the pairs' unit differences. It is the limit of every `fisher` for a large ridge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.evidence import Evidence
from trimtab.extraction.gradients import GradientMethod, mean_gradient


@dataclass(frozen=True)
class GradMean(GradientMethod):
    """`read` as for every gradient method."""

    name: ClassVar[str] = "grad_mean"

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        return mean_gradient(evidence, name), {}
