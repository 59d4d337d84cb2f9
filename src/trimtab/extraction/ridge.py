"""Whitened mean difference: v = (S + r I)^-1 (mean(P) - mean(N)), S the scatter within the sides over all n rows.

One formula with three names: linear discriminant analysis, least squares on labels +1 and -1 with the penalty
n r (equal sides), and the mass-mean probe with covariance (Marks and Tegmark, arXiv 2310.06824). It is the best
linear readout of two Gaussians of one covariance, AUC = Phi(sqrt(d.S^-1.d / 2)) for d the mean difference. As r
grows the direction tends to mean_diff; as r -> 0 it follows quiet directions, noise too unless rows are many.

`ridge` is r in the units of the variance, `ridge_relative` a multiple of trace(S) / width (1 where neither is
given); r = 0 needs more rows than width + 1. `row` "weights" is the readout, with the bias that puts 0 midway
between the sides; "pattern" is the covariance of all rows times it (Haufe et al. 2014), which for r = 0 is the
mean difference exactly. Pairs change nothing. Raw norm: what the sides differ by along the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.extraction.logistic import ROWS
from trimtab.extraction.method import Method, mean_difference
from trimtab.extraction.sample import steering_length

RELATIVE = 1.0


@dataclass(frozen=True)
class Ridge(Method):
    """A smaller ridge reads better where rows are many and worse where they are few."""

    name: ClassVar[str] = "ridge"
    needs: ClassVar[frozenset[str]] = frozenset({"mean", "rows"})
    signed: ClassVar[bool] = True

    ridge: float | None = None
    ridge_relative: float | None = None
    row: Literal["weights", "pattern"] = "weights"

    def __post_init__(self) -> None:
        if self.ridge is not None and self.ridge_relative is not None:
            raise InputError(
                "ridge and ridge_relative say the same thing in different units: give one of them"
            )
        for knob in ("ridge", "ridge_relative"):
            value = getattr(self, knob)
            if value is not None and not 0 <= value < np.inf:
                raise InputError(f"{knob} is 0 or a positive number, got {value}")
        if self.row not in ROWS:
            raise InputError(f"ridge stores the row 'weights' or 'pattern', got row={self.row!r}")

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        assert evidence.rows is not None
        within = np.concatenate([evidence.rows[g] - evidence.mean[g] for g in (POSITIVE, NEGATIVE)])
        count, width = within.shape
        ridge = self._resolved(float(np.sum(within**2)) / (count * width))
        if ridge == 0 and count - 2 < width:
            raise InputError(
                f"{count} rows of {name!r} do not determine a covariance of width {width} at {evidence.site}: "
                f"ridge 0 needs {width + 2} or more; give a ridge (--set ridge_relative=0.1)"
            )
        difference = mean_difference(evidence)
        weights = whitened(within, ridge, difference)
        if self.row == "pattern":
            shares = [evidence.count[g] / count for g in (POSITIVE, NEGATIVE)]
            between = shares[0] * shares[1] * float(difference @ weights) * difference
            return self._steering(evidence, within.T @ (within @ weights) / count + between, name, ridge)
        raw, known = self._steering(evidence, weights, name, ridge)
        middle = (evidence.mean[POSITIVE] + evidence.mean[NEGATIVE]) / 2
        return raw, {**known, "bias": -float(raw @ middle) / float(np.linalg.norm(raw))}

    def _resolved(self, typical_variance: float) -> float:
        if self.ridge is not None:
            return self.ridge
        return (RELATIVE if self.ridge_relative is None else self.ridge_relative) * typical_variance

    def _steering(
        self, evidence: Evidence, row: np.ndarray, name: str, ridge: float
    ) -> tuple[np.ndarray, dict[str, Any]]:
        return steering_length(evidence, row, name, self.name), {"resolved_ridge": ridge}


def whitened(rows: np.ndarray, ridge: float, vector: np.ndarray) -> np.ndarray:
    """(rows.T rows / n + ridge I)^-1 vector, solved in whichever of the spaces [n] and [width] is smaller."""
    count, width = rows.shape
    if count >= width:
        matrix = rows.T @ rows / count
        matrix[np.diag_indices(width)] += ridge
        return np.linalg.solve(matrix, vector)
    gram = rows @ rows.T
    gram[np.diag_indices(count)] += count * ridge
    return (vector - rows.T @ np.linalg.solve(gram, rows @ vector)) / ridge
