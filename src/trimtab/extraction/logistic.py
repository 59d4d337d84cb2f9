"""Logistic regression: v = w with sum log(1 + exp(-y (w.x + b))) + ||w||^2 / (2 C) least, y = +1 and -1.

x are the rows less their pair's midpoint (less the mean of all rows where there are no pairs), divided by one
root mean square. C is the whole method: as C -> 0 the direction tends to mean_diff (cos 1.000), and when rows are
fewer than coordinates, where the sides can always be told apart, a large C turns it towards noise. So C is
chosen on held-out groups, by the area under the ROC curve; where several do equally well, the smallest.

`row` is "weights" (a readout: h.unit + bias has the sign of the decision) or "pattern" (covariance times weights,
Haufe et al. 2014), which suits steering: weights lean into quiet directions that the model hardly uses. Raw
norm: what the sides differ by along the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import Evidence
from trimtab.extraction.folds import folds
from trimtab.extraction.method import Method
from trimtab.extraction.sample import Sample, labelled, steering_length

#: One per decade, from all but the mean difference to all but a hard margin.
GRID = tuple(10.0**e for e in range(-6, 4))
ROWS = ("weights", "pattern")
#: Fits one C after another on the rows given, and returns the weights [r] and the intercept of each.
Fit = Callable[[np.ndarray, np.ndarray, Iterable[float]], Iterable[tuple[np.ndarray, float]]]


@dataclass(frozen=True)
class Logistic(Method):
    """`C` given saves the search, which fits 10 values on each of `folds` folds."""

    name: ClassVar[str] = "logistic"
    needs: ClassVar[frozenset[str]] = frozenset({"mean", "rows"})
    signed: ClassVar[bool] = True
    sklearn: ClassVar[bool] = True

    C: float | None = None
    row: Literal["weights", "pattern"] = "weights"
    folds: int = 5

    def __post_init__(self) -> None:
        check_knobs(self.name, self.C, self.row, self.folds)

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        sample = labelled(evidence, reduced=True)
        fit = _fitter(not sample.mirrored)
        C, known = self.C, {}
        if C is None:
            C, known = choose_C(sample, GRID, fit, self.folds, self.name)
        ((weights, intercept),) = fit(sample.x, sample.y, [C])
        row = weights if self.row == "weights" else sample.pattern(weights)
        raw = steering_length(evidence, sample.lifted(row), name, self.name)
        if self.row == "weights":
            known["bias"] = sample.bias(weights, intercept)
        return raw, {**known, "C": C}


def check_knobs(name: str, C: float | None, row: str, folds: int) -> None:
    """Refuse what no fit could use."""
    if C is not None and not 0 < C < np.inf:
        raise InputError(f"{name} weighs the data by C > 0, got C={C}")
    if row not in ROWS:
        raise InputError(f"{name} stores the row 'weights' or 'pattern', got row={row!r}")
    if folds < 2:
        raise InputError(f"{name} needs at least 2 folds to choose C, got folds={folds}")


def choose_C(
    sample: Sample, grid: Iterable[float], fit: Fit, most: int, name: str
) -> tuple[float, dict[str, Any]]:
    """The C of the best mean held-out AUC, the smallest of equals, and the AUC of every C."""
    from sklearn.metrics import roc_auc_score

    grid = sorted(grid)
    held_out: list[list[float]] = [[] for _ in grid]
    for train, test in folds(sample.y, sample.groups, most, name):
        for found, (weights, _) in zip(held_out, fit(sample.x[train], sample.y[train], grid)):
            found.append(float(roc_auc_score(sample.y[test], sample.x[test] @ weights)))
    if not held_out[0]:
        raise InputError(
            f"{name} chooses its C on held-out groups, and no split leaves both sides in both parts: "
            "make the groups smaller, or give C yourself (--set C=0.001)"
        )
    means = np.mean(held_out, axis=1)
    best = int(np.flatnonzero(means >= means.max() - 1e-9)[0])
    curve = {f"{C:.3g}": float(m) for C, m in zip(grid, means)}
    return grid[best], {"held_out_auc": float(means[best]), "auc_by_C": curve}


def _fitter(intercept: bool) -> Fit:
    def fit(x: np.ndarray, y: np.ndarray, grid: Iterable[float]) -> Iterable[tuple[np.ndarray, float]]:
        from sklearn.linear_model import LogisticRegression

        # Each C starts from the optimum of the one before; the optimum itself does not depend on the start.
        model = LogisticRegression(
            fit_intercept=intercept, warm_start=True, solver="lbfgs", tol=1e-8, max_iter=5000
        )
        for C in grid:
            model.set_params(C=C).fit(x, y)
            yield model.coef_[0].copy(), float(np.ravel(model.intercept_)[0])

    return fit
