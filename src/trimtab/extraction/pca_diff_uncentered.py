"""Uncentred PCA of the differences: v = top right singular vector of D = P - N [n, width].

What steering-vectors computes (it stacks D and -D), and what `pca_center` (each pair's midpoint taken off
both rows) computes too. With D = 4 t + noise it recovers t (|cos| > .99): nothing is subtracted, so the
shared shift counts. The raw norm is the root mean square of the projections, sigma_1 / sqrt(n): what a pair
typically differs by along v. The sign is the pairs' vote. With D = t + noise of 3 per coordinate the largest
direction is noise: use mean_diff.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.evidence import Evidence
from trimtab.extraction.method import Method
from trimtab.extraction.spectrum import leading


@dataclass(frozen=True)
class PcaDiffUncentered(Method):
    """No knobs."""

    name: ClassVar[str] = "pca_diff_uncentered"
    needs: ClassVar[frozenset[str]] = frozenset({"mean", "gram"})
    paired: ClassVar[bool] = True

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        assert evidence.factor is not None
        value, vector = leading(evidence.factor)
        share = value / float(np.sum(evidence.factor**2))
        return vector * np.sqrt(value / evidence.pairs), {"explained": share}
