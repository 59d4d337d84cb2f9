"""Natural gradient: v = (F + ridge I)^-1 g, for gradients G [N = 2n, width] of a separation and their mean g.

F is `ief`, G^T diag(1/s) G / N with s the squared norm of each row's gradient at the loss's own input (improved
empirical Fisher, arXiv 2406.06420); `empirical`, G^T G / N; or `cov`, the centred covariance over N - 1. F is never
formed: with the thin SVD of its factor A = U S V^T, (F + ridge)^-1 g = V (V^T g / (S^2 + ridge)) + (g - V V^T g) /
ridge, which is the Woodbury identity without its cancellation: where g lies in the rows' span, as a mean of the rows
does, the second part is zero and a small ridge costs no digits. Without a ridge, iEF gives G v = -sigma * s, where
sigma is +1 on positive rows: every row's loss changes by its own s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.errors import InputError, UnknownName
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.extraction.gradients import GradientMethod, mean_gradient, sides

#: A smaller share of the target outside the rows' span is rounding, which a small ridge would blow up.
OUTSIDE = 1e-11

CHOICES = {
    "kind": ("ief", "empirical", "cov"),
    "mean": ("signed", "plain"),
    "dual": ("none", "diff", "pos", "neg", "mean"),
}


@dataclass(frozen=True)
class Fisher(GradientMethod):
    """`ridge` is absolute, and so depends on how losses are averaged; `ridge_relative` counts multiples of tr F /
    width. With neither it is max(1e-6, 0.01 tr F / width); 0 takes the pseudo-inverse, inside the rows' span. `mean`
    "plain" averages both sides alike and cancels; it is there for fidelity. `dual` solves each side by itself and
    takes the difference, one side or the mean (then `mean` is not used). The ridge used is in the provenance.
    """

    name: ClassVar[str] = "fisher"

    kind: str = "ief"
    ridge: float | None = None
    ridge_relative: float | None = None
    mean: str = "signed"
    dual: str = "none"

    def __post_init__(self) -> None:
        for knob, choices in CHOICES.items():
            if getattr(self, knob) not in choices:
                raise UnknownName.of(f"{knob} of fisher", getattr(self, knob), choices)
        if self.ridge is not None and self.ridge_relative is not None:
            raise InputError("fisher takes ridge or ridge_relative, not both")
        for knob in ("ridge", "ridge_relative"):
            value = getattr(self, knob)
            if value is not None and not (np.isfinite(value) and value >= 0):
                raise InputError(f"{knob} of fisher is a number >= 0, got {value!r}")

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        positive, negative = sides(evidence)
        norms = evidence.loss_norms
        if self.kind == "ief" and norms is None:
            raise InputError(
                f"fisher of kind 'ief' needs loss_norms, and the evidence at {evidence.site} has none"
            )
        s = [np.ones(len(positive)), np.ones(len(negative))]
        if norms is not None:
            s = [norms[POSITIVE], norms[NEGATIVE]]
        if self.dual == "none":
            target = mean_gradient(evidence, name, self.mean)
            raw, used, rank = self._solve(np.concatenate([positive, negative]), np.concatenate(s), target)
            return raw, {"ridge_used": used, "rank": rank}
        plus, used_plus, _ = self._solve(positive, s[0], positive.mean(0))
        minus, used_minus, _ = self._solve(negative, s[1], negative.mean(0))
        raw = {"pos": plus, "neg": minus, "diff": plus - minus, "mean": (plus + minus) / 2}[self.dual]
        return raw, {"ridge_used": [used_plus, used_minus]}

    def _solve(self, rows: np.ndarray, s: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float, int]:
        """(F + ridge I)^-1 target [width], the ridge, and the rank of F."""
        factor = self._factor(rows, s)
        _, values, basis = np.linalg.svd(factor, full_matrices=False)
        rank = int(np.sum(values > values[0] * max(factor.shape) * np.finfo(float).eps)) if len(values) else 0
        values, basis = values[:rank], basis[:rank]
        trace = float(np.sum(values**2)) / rows.shape[1]
        ridge = self.ridge
        if ridge is None:
            relative = self.ridge_relative
            ridge = max(1e-6, 0.01 * trace) if relative is None else relative * trace
        inside = basis @ target
        found = basis.T @ (inside / (values**2 + ridge))
        outside = target - basis.T @ inside
        if ridge > 0 and np.linalg.norm(outside) > OUTSIDE * np.linalg.norm(target):
            found = found + outside / ridge
        return found, float(ridge), rank

    def _factor(self, rows: np.ndarray, s: np.ndarray) -> np.ndarray:
        """A [N, width] with A^T A = F. A row without any gradient at the loss has none anywhere, and weighs nothing."""
        if self.kind == "cov":
            return (rows - rows.mean(0)) / np.sqrt(max(1, len(rows) - 1))
        weights = np.ones(len(rows))
        if self.kind == "ief":
            weights = np.divide(1.0, s, out=np.zeros(len(rows)), where=s > 0)
        return rows * np.sqrt(weights / len(rows))[:, None]
