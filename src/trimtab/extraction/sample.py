"""Rows as a classifier sees them: labelled, centred, on one scale, in as few coordinates as hold them.

Paired rows lose their pair's midpoint, so that what the two texts share cannot be mistaken for the concept;
other rows lose the mean of them all. Dividing by one root mean square, the same for every coordinate, makes a
penalty mean the same at every layer. n rows span at most n directions: a penalty that does not care for axes
(L2) has its optimum in their span, so fitting the [n, n] coordinates is exact and width no longer costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.extraction.folds import pair_groups, row_groups
from trimtab.extraction.method import NOTHING, differences, mean_difference


@dataclass(frozen=True, eq=False)
class Sample:
    """`x` [n, r] scaled coordinates, `y` [n] of 1 and 0, `groups` [n]; row i is centre + scale * basis @ x_i.

    `basis` [width, r] has orthonormal columns (None: the axes themselves); `mirrored` rows come as +D/2 and
    -D/2, so that no intercept is needed.
    """

    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    centre: np.ndarray
    scale: float
    basis: np.ndarray | None = None
    mirrored: bool = False

    def lifted(self, coordinates: np.ndarray) -> np.ndarray:
        """A row [width] from its coordinates [r]."""
        return coordinates if self.basis is None else self.basis @ coordinates

    def bias(self, weights: np.ndarray, intercept: float) -> float:
        """What makes h.(w / ||w||) + bias a positive multiple of the decision value, for weights on `x`."""
        length = float(np.linalg.norm(weights))
        return float(intercept * self.scale / length - self.lifted(weights / length) @ self.centre)

    def pattern(self, weights: np.ndarray) -> np.ndarray:
        """Covariance times weights, in coordinates [r] (Haufe et al. 2014): what moves the decision value in the
        data, where the weights are what reads it."""
        return self.x.T @ (self.x @ weights) / len(self.x)


def labelled(evidence: Evidence, *, reduced: bool, balanced: bool = False) -> Sample:
    """The evidence's rows as a sample; `reduced` to the rows' span, which only penalties that do not care for
    axes allow; `balanced` centres between the means of the sides instead of on the mean of all rows.
    """
    assert evidence.rows is not None
    both = [evidence.rows[POSITIVE], evidence.rows[NEGATIVE]]
    y = np.repeat([1, 0], [len(rows) for rows in both])
    pairs = differences(evidence)
    if pairs is not None:
        half, groups = pairs / 2, np.tile(pair_groups(evidence, pairs), 2)
        x, basis, scale = _scaled(half, reduced)
        centre = (evidence.mean[POSITIVE] + evidence.mean[NEGATIVE]) / 2
        return Sample(np.concatenate([x, -x]), y, groups, centre, scale, basis, mirrored=True)
    rows = np.concatenate(both)
    middle = (evidence.mean[POSITIVE] + evidence.mean[NEGATIVE]) / 2
    centre = middle if balanced else rows.mean(0)
    x, basis, scale = _scaled(rows - centre, reduced)
    return Sample(x, y, row_groups(evidence, rows - centre), centre, scale, basis)


def _scaled(rows: np.ndarray, reduced: bool) -> tuple[np.ndarray, np.ndarray | None, float]:
    scale = float(np.sqrt(np.mean(rows**2)))
    if not reduced or len(rows) >= rows.shape[1]:
        return rows / scale, None, scale
    basis, coordinates = np.linalg.qr(rows.T)
    return coordinates.T / scale, basis, scale


def steering_length(evidence: Evidence, row: np.ndarray, name: str, method: str) -> np.ndarray:
    """`row` [width] with the length that the sides differ by along it, |mean(P) - mean(N)| . row / ||row||: scale 1
    then moves a text of one side as far along the row as the other side lies. A classifier's own length says how sure
    it is, not how far to go. A row along which they do not differ is an `InputError`.
    """
    size = float(np.linalg.norm(row))
    unit = row / size if size else row
    length = abs(float(unit @ mean_difference(evidence)))
    if length <= NOTHING * max(float(np.linalg.norm(m)) for m in evidence.mean.values()):
        raise InputError(
            f"the row that {method} finds for {name!r} at {evidence.site} is one along which the sides do not "
            "differ on average, so it has no length to steer by: use --method mean_diff, or more texts"
        )
    return unit * length
