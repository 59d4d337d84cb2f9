"""Mean difference in the model's own coordinates: v = U_S diag(sigma_S)^-w U_S.T (mean(P) - mean(N)).

U [width, r] and sigma are the singular basis of the weights that touch the site: W = U diag(sigma) V of a
projection whose output it is (V for the input of one), and for a place in the residual stream the
eigenvectors of sum W W.T over the maps that write to it in its layer and W.T W over those of the next that
read from it (norm gains are not folded in), sigma^2 the eigenvalues. S are `r` of these directions, chosen by
`select`: "sigma", the largest; "shift", where the mean difference is largest; "thirds", a third each by the
positives' mean, the negatives' and the difference. w is `whiten`.

Projecting and averaging commute, always, so that with all of U and no whitening this is mean_diff: only
truncation, selection and whitening make a difference. Sigma below 1e-3 of its largest is clamped before
dividing. Raw norm: what the sides differ by along the row.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from trimtab.errors import InputError, UnknownName
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.extraction.method import ExtractionWarning, Method, mean_difference
from trimtab.extraction.sample import steering_length
from trimtab.sites import Site, writers

Select = Literal["sigma", "shift", "thirds"]
CLAMP = 1e-3
#: Bases of weights by their content: every concept of a file asks for the same ones.
_BASES: dict[str, tuple[np.ndarray, np.ndarray]] = {}
MOST_BASES = 64


@dataclass(frozen=True)
class SSpace(Method):
    """More directions `r`, up to the width, tend to mean_diff; whitening favours what the weights hardly use."""

    name: ClassVar[str] = "s_space"
    needs: ClassVar[frozenset[str]] = frozenset({"mean", "weights"})
    signed: ClassVar[bool] = True

    r: int = 256
    select: Select = "sigma"
    whiten: float = 0.0

    def __post_init__(self) -> None:
        if self.r < 1:
            raise InputError(f"s_space keeps r >= 1 directions, got r={self.r}")
        if self.whiten not in (0.0, 0.5, 1.0):
            raise InputError(f"s_space whitens by 0, 0.5 or 1, got whiten={self.whiten}")
        if self.select not in get_args(Select):
            raise UnknownName.of("value of the knob select of s_space,", self.select, get_args(Select))

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        assert evidence.weights is not None
        basis, sigma = basis_of(evidence.site, evidence.weights)
        shift = mean_difference(evidence) @ basis
        chosen = self._chosen(sigma, shift, evidence, basis)
        if len(chosen) == evidence.width and not self.whiten:
            # One wording for every site, so that Python shows it once.
            warnings.warn(
                "s_space keeps every direction of the weights and whitens none: that is mean_diff; keep fewer "
                "(--set r=64) or whiten (--set whiten=0.5)",
                ExtractionWarning,
                stacklevel=3,
            )
        scale = np.maximum(sigma, CLAMP * sigma[0]) ** -self.whiten
        row = basis[:, chosen] @ (scale * shift)[chosen]
        raw = steering_length(evidence, row, name, self.name)
        kept = float(np.sum(shift[chosen] ** 2) / np.sum(mean_difference(evidence) ** 2))
        return raw, {"directions": len(chosen), "mean_kept": kept}

    def _chosen(
        self, sigma: np.ndarray, shift: np.ndarray, evidence: Evidence, basis: np.ndarray
    ) -> np.ndarray:
        """Indices of the directions that are kept, ascending."""
        count = min(self.r, len(sigma))
        if self.select == "thirds":
            sides = [np.abs(evidence.mean[g] @ basis) for g in (POSITIVE, NEGATIVE)]
            share = -(-count // 3)
            return np.unique(np.concatenate([_largest(x, share) for x in (*sides, np.abs(shift))]))
        return _largest(sigma if self.select == "sigma" else np.abs(shift), count)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    return np.sort(np.argsort(-values, kind="stable")[:count])


def basis_of(site: Site, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(U [width, r], sigma [r] falling) of the weights [out, in] that write to or read from a site, by site key."""
    digest = hashlib.sha256(site.key.encode())
    for key in sorted(weights):
        digest.update(key.encode() + np.ascontiguousarray(weights[key]).tobytes())
    if digest.hexdigest() not in _BASES:
        if len(_BASES) >= MOST_BASES:
            _BASES.clear()
        _BASES[digest.hexdigest()] = _basis(site, weights)
    return _BASES[digest.hexdigest()]


def _basis(site: Site, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    writing = {w.key for w in writers(site)}
    # Columns of each map's side that touches the site; their joint singular basis is that of the pooled moment.
    sides = [
        np.asarray(m, np.float64) if key in writing else np.asarray(m, np.float64).T
        for key, m in weights.items()
    ]
    touching = np.concatenate(sides, axis=1)
    if touching.shape[1] <= touching.shape[0]:
        basis, sigma, _ = np.linalg.svd(touching, full_matrices=False)
        return basis, sigma
    values, vectors = np.linalg.eigh(touching @ touching.T)
    return vectors[:, ::-1], np.sqrt(np.maximum(values[::-1], 0))
