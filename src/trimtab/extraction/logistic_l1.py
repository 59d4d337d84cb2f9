"""Sparse logistic regression: v = w with sum log(1 + exp(-y w.x)) + ||w||_1 / C least, y = +1 and -1.

x are the rows as in `logistic`, without pairs centred between the sides' means and each side weighing the same,
so that no intercept is needed (the solver would penalise one). Few neurons get a weight: which ones depends on
the axes of the stream, and on the sample, because of two neurons that say the same either may be taken. So the
fit is repeated on resampled groups, and the share of the resamples that pick a neuron again is reported.

C is chosen on held-out groups among multiples of the smallest one that picks any neuron, 2 / max |sum y x|
(equal sides);
given by hand, one below that is refused, because then w = 0. `row` and the raw norm are as in `logistic`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import Evidence
from trimtab.extraction.logistic import check_knobs, choose_C
from trimtab.extraction.method import Method
from trimtab.extraction.sample import Sample, labelled, steering_length

#: Multiples of the smallest C that picks anything.
MULTIPLES = (1.5, 3.0, 10.0, 30.0, 100.0)
#: By how much a coordinate left outside may pull harder than the penalty: the solver is no more exact than that.
SLACK = 1e-4
#: Coordinates taken in at first.
INTAKE = 64
#: Neurons that the provenance names, by weight.
NAMED = 20


@dataclass(frozen=True)
class LogisticL1(Method):
    """`C` given saves the search over 5 values on each of `folds` folds; each of the `bootstraps` costs one more
    fit (0: no selection frequency).
    """

    name: ClassVar[str] = "logistic_l1"
    needs: ClassVar[frozenset[str]] = frozenset({"mean", "rows"})
    signed: ClassVar[bool] = True
    sklearn: ClassVar[bool] = True

    C: float | None = None
    row: Literal["weights", "pattern"] = "weights"
    folds: int = 5
    bootstraps: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_knobs(self.name, self.C, self.row, self.folds)
        if self.bootstraps < 0:
            raise InputError(f"logistic_l1 resamples 0 times or more, got bootstraps={self.bootstraps}")

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        sample = labelled(evidence, reduced=False, balanced=True)
        least, C, known = _least(sample), self.C, {}
        if C is None:
            C, known = choose_C(sample, [m * least for m in MULTIPLES], _fit, self.folds, self.name)
        ((weights, _),) = _fit(sample.x, sample.y, [C])
        if not weights.any():
            raise InputError(
                f"logistic_l1 with C={C:.3g} picks no neuron for {name!r} at {evidence.site}: "
                f"C must be above {least:.3g} here (leave C out to have it chosen)"
            )
        known |= self._neurons(sample, weights, C)
        if self.row == "weights":
            known["bias"] = sample.bias(weights, 0.0)
        row = weights if self.row == "weights" else sample.pattern(weights)
        return steering_length(evidence, row, name, self.name), {**known, "C": C}

    def _neurons(self, sample: Sample, weights: np.ndarray, C: float) -> dict[str, Any]:
        """How many neurons were picked, how often they are again, and the heaviest of them."""
        picked = np.flatnonzero(weights)
        known: dict[str, Any] = {"picked": len(picked)}
        if not self.bootstraps:
            return known
        rng = np.random.default_rng(self.seed)
        count = int(sample.groups.max()) + 1
        again = np.zeros(len(weights))
        for _ in range(self.bootstraps):
            times = np.bincount(rng.integers(count, size=count), minlength=count)[sample.groups]
            kept = times > 0
            if len(np.unique(sample.y[kept])) == 2:
                ((redrawn, _),) = _fit(sample.x[kept], sample.y[kept], [C], times[kept], weights != 0)
                again += redrawn != 0
        again /= self.bootstraps
        heaviest = picked[np.argsort(-np.abs(weights[picked]), kind="stable")][:NAMED]
        known["picked_again"] = float(again[picked].mean())
        known["neurons"] = {int(i): float(again[i]) for i in heaviest}
        return known


def _least(sample: Sample) -> float:
    """The smallest C at which any weight leaves 0: there the slope of the loss reaches 1 / C."""
    return float(1 / np.abs(_slope(sample.x, sample.y, _balance(sample.y), None)).max())


def _balance(y: np.ndarray, times: np.ndarray | None = None) -> np.ndarray:
    """A weight for each row [n] by which both sides weigh the same, times how often the row was drawn."""
    drawn = np.ones(len(y)) if times is None else times.astype(np.float64)
    return drawn * drawn.sum() / (2 * np.bincount(y, weights=drawn)[y])


def _slope(x: np.ndarray, y: np.ndarray, weight: np.ndarray, values: np.ndarray | None) -> np.ndarray:
    """How fast the loss falls along each coordinate [r], where the rows have these decision values (0: None)."""
    sign = np.where(y == 1, 1.0, -1.0)
    pull = 0.5 if values is None else 0.5 - 0.5 * np.tanh(sign * values / 2)
    return (weight * sign * pull) @ x


def _fit(
    x: np.ndarray,
    y: np.ndarray,
    grid: Iterable[float],
    times: np.ndarray | None = None,
    first: np.ndarray | None = None,
) -> Iterable[tuple[np.ndarray, float]]:
    """The optimum for each C, found among a few coordinates: those that pull hardest are taken in until none
    outside pulls harder than the penalty holds, which is the condition of the optimum over all of them. `times`
    [n] says how often each row counts, `first` [width] which coordinates to begin with.
    """
    from sklearn.linear_model import LogisticRegression

    weight = _balance(y, times)
    weights, values, inside = np.zeros(x.shape[1]), np.zeros(len(y)), np.zeros(x.shape[1], bool)
    inside |= False if first is None else first
    for C in grid:
        model = LogisticRegression(
            C=C, l1_ratio=1, solver="liblinear", fit_intercept=False, random_state=0, tol=1e-6, max_iter=2000
        )
        stale = True  # the weights are those of the C before
        while True:
            pull = np.where(inside, 0.0, np.abs(_slope(x, y, weight, values)))
            if stale or pull.max() > (1 + SLACK) / C:
                # The hardest first, as many as have a weight: most of the rest then stop pulling.
                room = np.argsort(-pull, kind="stable")[: max(INTAKE, np.count_nonzero(weights))]
                inside[room[pull[room] > (1 + SLACK) / C]] = True
                if inside.any():
                    weights[inside] = model.fit(x[:, inside], y, sample_weight=weight).coef_[0]
                    values = x[:, inside] @ weights[inside]
                stale = False
            else:
                break
        yield weights.copy(), 0.0
