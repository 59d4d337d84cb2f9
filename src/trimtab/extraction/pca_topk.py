"""Mean difference inside the leading subspace: v = V.T V mean(D), V [k, width] the top k right singular rows of D.

D = P - N [n, width] is not centred. The fork of repeng behind the public journal sums the k rows with their signs
fixed; that sum changes when the rows are rotated within their span, and for nearly equal singular values the
rotation is arbitrary. The projection of the mean difference on the span does not change, and tends to mean_diff
as k grows: it is the mean difference with its weak, noisy coordinates left out. Raw norm: the length of v. The
rows V, each turned towards the mean difference, are stored as the direction's basis, with which the whole
subspace can be ablated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import Evidence
from trimtab.extraction.method import NOTHING, Method, mean_difference
from trimtab.extraction.spectrum import top


@dataclass(frozen=True)
class PcaTopk(Method):
    """`k` rows span the subspace: more of them keep more of the mean difference and more of its noise; the basis
    takes k times the room of the vector.
    """

    name: ClassVar[str] = "pca_topk"
    needs: ClassVar[frozenset[str]] = frozenset({"mean", "gram"})
    paired: ClassVar[bool] = True

    k: int = 5

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"pca_topk spans k >= 1 components, got k={self.k}")

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        assert evidence.factor is not None
        values, rows = top(evidence.factor, self.k)
        rank = int(np.sum(values > NOTHING * values[0]))
        if rank < self.k:
            raise InputError(
                f"the differences of {name!r} at {evidence.site} span {rank} directions, not k={self.k}: "
                f"give more pairs, or --set k={rank}"
            )
        along = rows @ mean_difference(evidence)
        raw = along @ rows
        if np.linalg.norm(raw) <= NOTHING * values[0]:
            raise InputError(
                f"the mean difference of {name!r} at {evidence.site} has no part in the leading k={self.k} "
                "directions: use --method mean_diff, or a larger k"
            )
        rows = np.where(along < 0, -1.0, 1.0)[:, None] * rows
        total = float(np.sum(evidence.factor**2))
        kept = float(raw @ raw) / float(np.sum(mean_difference(evidence) ** 2))
        known = {"explained": (values**2 / total).tolist(), "mean_kept": kept, "basis": rows}
        return raw, known
