"""Which rows stay together when evidence is split, and splits that do not depend on the order of the rows.

A split that tears a pair, or two texts of one scenario, apart measures memory and not the concept. Rows without
a named group are groups of their own, numbered by their distance from the middle: that number, unlike the row's
place, survives shuffling, scaling and swapping the sides.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence


def pair_groups(evidence: Evidence, differences: np.ndarray) -> np.ndarray:
    """The group of every pair, [n] integers from 0."""
    if evidence.groups is not None:
        return np.unique(np.array(evidence.groups[POSITIVE]), return_inverse=True)[1]
    return _ranks(differences)


def row_groups(evidence: Evidence, centred: np.ndarray) -> np.ndarray:
    """The group of every row [n+ + n-] of the positives and then the negatives; `centred` are those rows."""
    if evidence.groups is not None:
        names = np.array([*evidence.groups[POSITIVE], *evidence.groups[NEGATIVE]])
        return np.unique(names, return_inverse=True)[1]
    return _ranks(centred)


def halves(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks [rows] of two halves of about as many groups each."""
    even = groups % 2 == 0
    return even, ~even


def folds(
    labels: np.ndarray, groups: np.ndarray, most: int, name: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers (train [n], held out [m]) of at most `most` folds with whole groups and both labels on both sides; a
    side of one group is an `InputError`."""
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(np.unique(groups[labels == side])) for side in np.unique(labels))
    if fewest < 2:
        raise InputError(
            f"{name} chooses its C on held-out groups, and one side has only {fewest}: "
            "give more texts or more groups, or give C yourself (--set C=0.001)"
        )
    splitter = StratifiedGroupKFold(min(most, fewest))
    for train, test in splitter.split(np.zeros(len(labels)), labels, groups):
        if all(len(np.unique(labels[part])) == 2 for part in (train, test)):
            yield train, test


def _ranks(rows: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(np.linalg.norm(rows, axis=1), kind="stable"), kind="stable")
