"""PCA about each pair's midpoint: v = top right singular vector of the rows +-D/2, for D = P - N [n, width].

repeng's `pca_center` takes the midpoint (P + N)/2 off both rows of a pair, which leaves +D/2 and -D/2. Those
rows have mean 0, so PCA's own centring changes nothing, and the direction is that of `pca_diff_uncentered`
exactly; the raw norm, the root mean square of the projections, is half of that one's: how far a text lies from
its pair's midpoint along v, rather than from the other text. The sign is the pairs' vote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.evidence import Evidence
from trimtab.extraction.pca_diff_uncentered import PcaDiffUncentered


@dataclass(frozen=True)
class PcaCenter(PcaDiffUncentered):
    """No knobs."""

    name: ClassVar[str] = "pca_center"

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        raw, known = super()._raw(evidence, name)
        return raw / 2, known
