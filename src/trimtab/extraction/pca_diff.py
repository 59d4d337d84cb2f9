"""Centred PCA of the differences: v = top right singular vector of D - mean(D), for D = P - N [n, width].

What repeng (vgel/repeng, `pca_diff`) and steering-lite compute, kept for parity. Centring deletes exactly the
shift that all pairs share, which is the concept: with D = 4 t + noise it returns the noise (|cos| with t
about 0). It finds a concept only where the *strength* of the shift varies over pairs more than anything else
does. Raw norm: standard deviation of the projections; the sign is the pairs' vote on uncentred projections (a
centred vote has mean 0 and carries no information).

Whether centring hurts is measured on the data at hand: on each half of the groups both PCAs are fitted and their
signs voted, and the pairs of the other half tell which is right more often. A warning comes where the
uncentred one is, by more than one standard error of the pairs on which the two disagree. Above 2 * width pairs
only moments are left; with so many, the moments themselves give each row's share of right pairs, Phi(mean / std).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import Evidence
from trimtab.extraction.folds import halves, pair_groups
from trimtab.extraction.method import ExtractionWarning, Method, differences, mean_difference
from trimtab.extraction.spectrum import leading

#: Fewer groups cannot be halved: then the moments of all pairs have to do.
FEWEST_GROUPS = 4


@dataclass(frozen=True)
class PcaDiff(Method):
    """No knobs."""

    name: ClassVar[str] = "pca_diff"
    needs: ClassVar[frozenset[str]] = frozenset({"mean", "gram"})
    paired: ClassVar[bool] = True

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        assert evidence.factor is not None
        n, mean = evidence.pairs, mean_difference(evidence)
        shift = float(mean @ mean)
        variance = float(np.sum(evidence.factor**2)) / n - shift
        if n < 2 or variance <= 1e-12 * shift:
            raise InputError(
                f"the differences of {name!r} at {evidence.site} are all alike, and pca_diff looks only at "
                "how they vary: use --method mean_diff or pca_diff_uncentered"
            )
        value, vector = _centred(evidence, mean)
        measured, worse = _against_uncentred(evidence, mean, vector)
        if worse:
            # One wording for every site, so that Python shows it once.
            warnings.warn(
                "pca_diff centres the differences, and on these data that costs: held-out pairs are told apart "
                "better without; centring deletes the shift that all pairs share, which is usually the concept; "
                "use mean_diff or pca_diff_uncentered",
                ExtractionWarning,
                stacklevel=3,
            )
        known = {"explained": value / (n * variance), "shift_to_variance": shift / variance, **measured}
        return vector * np.sqrt(value / (n - 1)), known


def _centred(evidence: Evidence, mean: np.ndarray) -> tuple[float, np.ndarray]:
    found = differences(evidence)
    if found is not None:
        return leading(found - found.mean(0))
    assert evidence.factor is not None
    return leading(evidence.factor, math.sqrt(evidence.pairs) * mean)


def _against_uncentred(
    evidence: Evidence, mean: np.ndarray, vector: np.ndarray
) -> tuple[dict[str, Any], bool]:
    """How many pairs each PCA gets right, how that was measured, and whether centring is the worse."""
    found = differences(evidence)
    groups = None if found is None else pair_groups(evidence, found)
    if found is None or groups is None or groups.max() + 1 < FEWEST_GROUPS:
        return _by_moments(evidence, mean, vector)
    right = {"centred": np.zeros(len(found)), "uncentred": np.zeros(len(found))}
    for here, there in (halves(groups), halves(groups)[::-1]):
        for rule, share in right.items():
            share[there] = _right(found[here], found[there], rule == "centred")
    gap = right["uncentred"] - right["centred"]
    accuracy = {f"pairs_right_{rule}": float(share.mean()) for rule, share in right.items()}
    measured = {**accuracy, "pairs_right_measured": "on held-out halves of the groups"}
    return measured, bool(gap.sum() > math.sqrt(np.sum(gap**2)))


def _right(train: np.ndarray, held_out: np.ndarray, centred: bool) -> np.ndarray:
    """1 for every held-out pair on the side that the training pairs voted for, else 0; a tie is one half."""
    row = leading(train - train.mean(0) if centred and len(train) > 1 else train)[1]
    row = row * (1.0 if np.mean(np.sign(train @ row)) >= 0 else -1.0)
    return 0.5 + 0.5 * np.sign(held_out @ row)


def _by_moments(evidence: Evidence, mean: np.ndarray, vector: np.ndarray) -> tuple[dict[str, Any], bool]:
    assert evidence.factor is not None
    rows = {"centred": vector, "uncentred": leading(evidence.factor)[1]}
    right = {rule: _expected(evidence, mean, row) for rule, row in rows.items()}
    error = math.sqrt(sum(share * (1 - share) for share in right.values()) / evidence.pairs)
    accuracy = {f"pairs_right_{rule}": share for rule, share in right.items()}
    measured = {**accuracy, "pairs_right_measured": "by the moments of all pairs"}
    return measured, right["uncentred"] - right["centred"] > error


def _expected(evidence: Evidence, mean: np.ndarray, row: np.ndarray) -> float:
    """Phi(|mean| / std) of the projections on `row`: the share of right pairs, were they Gaussian."""
    assert evidence.factor is not None
    centre = float(mean @ row)
    spread = float(np.sum((evidence.factor @ row) ** 2)) / evidence.pairs - centre**2
    if spread <= 1e-12 * centre**2:
        return 1.0
    return 0.5 * (1 + math.erf(abs(centre) / math.sqrt(2 * spread)))
