"""Weighted centred PCA: v = top right singular vector of diag(sqrt(w)) (D - sum_i w_i D_i), for D = P - N [n, width].

w = softmax over pairs of the mean log-prob per token of both texts / temperature: pairs that the model finds likely
count more. What steering forks call pca_diff_weighted; like every centred PCA it deletes the shift that all pairs
share. The effective number of pairs, 1 / sum w^2, is in the provenance, and a low one warns. Raw norm: the weighted
standard deviation of the projections.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.extraction.method import ExtractionWarning, Method
from trimtab.extraction.spectrum import leading

#: Below this share of the pairs, the effective number of them warns.
LOW = 0.25


@dataclass(frozen=True)
class PcaDiffWeighted(Method):
    """`temperature` divides the log-probs: a large one weighs all pairs alike, a small one keeps a single pair."""

    name: ClassVar[str] = "pca_diff_weighted"
    needs: ClassVar[frozenset[str]] = frozenset({"mean", "rows", "logprobs"})
    paired: ClassVar[bool] = True

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature of pca_diff_weighted is a number > 0, got {self.temperature!r}")

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        assert evidence.rows is not None and evidence.logprobs is not None
        differences = evidence.rows[POSITIVE] - evidence.rows[NEGATIVE]
        logits = (evidence.logprobs[POSITIVE] + evidence.logprobs[NEGATIVE]) / 2 / self.temperature
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        effective = float(1 / np.sum(weights**2))
        if effective < LOW * len(weights):
            warnings.warn(
                "pca_diff_weighted rests on few of its pairs: the log-probs weigh the others to nothing; raise the "
                "temperature, or use pca_diff_uncentered",
                ExtractionWarning,
                stacklevel=3,
            )
        centred = np.sqrt(weights)[:, None] * (differences - weights @ differences)
        total = float(np.sum(centred**2))
        if total <= 1e-12 * float(weights @ np.sum(differences**2, 1)):
            raise InputError(
                f"the weighted differences of {name!r} at {evidence.site} are all alike, and pca_diff_weighted looks "
                "only at how they vary: use --method mean_diff"
            )
        value, vector = leading(centred)
        known = {"explained": value / total, "effective_pairs": effective}
        return vector * np.sqrt(value), known
