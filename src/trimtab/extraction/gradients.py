"""What the gradient methods share: their objective, the mean with signs, and the gradient rule for the sign.

Rows g+ and g- [n, width] are the gradients of `objectives.Separation` at the read tokens. At the read layer they are
-delta/||delta||/n and its opposite, so the plain mean of all rows is exactly zero there, and below it little more than
the log-prob term is left of it. The signed mean, (mean g- - mean g+) / 2, is what points towards the positives.
Raw norms are in units of the gradient and not of the states: steer with `dose`, which does not use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.extraction.method import NOTHING, Method
from trimtab.objectives import Separation


@dataclass(frozen=True)
class GradientMethod(Method):
    """`read` is the layer at which the pairs are separated: an index, -1 for the last, or a percent."""

    needs: ClassVar[frozenset[str]] = frozenset({"mean", "gradients"})
    paired: ClassVar[bool] = True
    sign_source: ClassVar[str] = "grad"
    scales: ClassVar[bool] = False

    read: int | str = -1

    @property
    def objective(self) -> Separation:
        """Separation at `read`."""
        return Separation(self.read)

    def _sign(self, evidence: Evidence, raw: np.ndarray) -> tuple[float, dict[str, Any]]:
        """The rule mean((g- - g+) . v) >= 0: along v the separation grows."""
        positive, negative = sides(evidence)
        votes = (negative - positive) @ raw
        sign = -1.0 if votes.mean() < 0 else 1.0
        return sign, {"gradient_agreement": float(np.mean(sign * votes > 0))}


def sides(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """Gradients [n, width] of the positive and of the negative rows."""
    assert evidence.gradients is not None
    return evidence.gradients[POSITIVE], evidence.gradients[NEGATIVE]


def mean_gradient(evidence: Evidence, name: str, mean: str = "signed") -> np.ndarray:
    """The signed or the plain mean [width]; one that is only rounding is refused."""
    positive, negative = sides(evidence)
    half = negative.mean(0) / 2
    found = half - positive.mean(0) / 2 if mean == "signed" else half + positive.mean(0) / 2
    size = float(max(np.linalg.norm(positive, axis=1).mean(), np.linalg.norm(negative, axis=1).mean()))
    if size == 0 or np.linalg.norm(found) <= NOTHING * size:
        mend = (
            "at the layer that the objective reads, the two sides cancel exactly: use mean='signed'"
            if mean == "plain"
            else "use --method mean_diff"
        )
        raise InputError(f"the {mean} mean of the gradients of {name!r} at {evidence.site} is zero: {mend}")
    return found
