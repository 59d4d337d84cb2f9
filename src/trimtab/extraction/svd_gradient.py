"""Gradient SVD: v = top right singular vector of G - mean(G), for gradients G [2n, width] of both sides' rows.

Called svd_steer elsewhere; it decomposes gradients, not states. Since the two sides' gradients have opposite signs,
centring takes little of what they share. The raw norm is the standard deviation of the projections; the sign is the
gradient rule's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import Evidence
from trimtab.extraction.gradients import GradientMethod, mean_gradient, sides
from trimtab.extraction.spectrum import leading


@dataclass(frozen=True)
class SvdGradient(GradientMethod):
    """`read` as for every gradient method."""

    name: ClassVar[str] = "svd_gradient"

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        rows = np.concatenate(sides(evidence))
        centred = rows - rows.mean(0)
        total = float(np.sum(centred**2))
        if total <= 1e-12 * float(np.sum(rows**2)):
            raise InputError(
                f"the gradients of {name!r} at {evidence.site} are all alike: use --method grad_mean"
            )
        mean_gradient(evidence, name)  # sides whose gradients cancel pair by pair have no sign to give
        value, vector = leading(centred)
        return vector * np.sqrt(value / (len(rows) - 1)), {"explained": value / total}
