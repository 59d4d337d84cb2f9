"""Is a concept a mixture of the others? Ridge R^2 of each unit row on the other rows, and clusters by cosine.

beta = (X^T X + lambda I)^-1 X^T v, R^2 = 1 - |v - X beta|^2 / |v|^2, without intercept. K - 1 random rows in `width`
dimensions explain (K - 1) / width by chance, and K > width rows explain everything: then R^2 means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab.errors import MissingDependency

RIDGE = 0.01
REDUNDANT = 0.9
TOP = 5
#: Concepts whose |cosine| reaches this on average stand in one cluster.
CLUSTER_COSINE = 0.7


@dataclass(frozen=True)
class Redundancy:
    """`contributors` are the largest coefficients with their signs; `cluster` names the concepts that this one
    clusters with, itself included."""

    r2: float
    contributors: tuple[tuple[str, float], ...]
    nearest: str
    nearest_cosine: float
    chance: float
    redundant: bool
    meaningless: bool
    cluster: tuple[str, ...]


def redundancy(concepts: tuple[str, ...], units: np.ndarray) -> list[Redundancy]:
    """One entry per concept for the unit rows [K, width] of one site; K is at least 2."""
    units = np.asarray(units, np.float64)
    count, width = units.shape
    gram = units @ units.T
    clusters = _clusters(gram)
    found = []
    for i in range(count):
        rest = [j for j in range(count) if j != i]
        inner, along = gram[np.ix_(rest, rest)], gram[rest, i]
        beta = np.linalg.solve(inner + RIDGE * np.eye(count - 1), along)
        left = gram[i, i] - 2 * beta @ along + beta @ inner @ beta
        r2 = float(1 - left / gram[i, i])
        order = np.argsort(-np.abs(beta), kind="stable")[:TOP]
        near = rest[int(np.argmax(np.abs(along)))]
        found.append(
            Redundancy(
                r2=r2,
                contributors=tuple((concepts[rest[j]], float(beta[j])) for j in order),
                nearest=concepts[near],
                nearest_cosine=float(gram[i, near]),
                chance=min(1.0, (count - 1) / width),
                redundant=r2 > REDUNDANT and count <= width,
                meaningless=count > width,
                cluster=tuple(c for c, k in zip(concepts, clusters) if k == clusters[i]),
            )
        )
    return found


def _clusters(gram: np.ndarray) -> list[int]:
    """Average linkage on 1 - |cos|, cut where the average |cos| falls below `CLUSTER_COSINE`."""
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import squareform
    except ImportError as error:
        raise MissingDependency.of("scipy", "eval", "the clusters of the quality report") from error
    distance = np.clip(1 - np.abs(gram), 0, None)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="average")
    return [int(k) for k in fcluster(tree, 1 - CLUSTER_COSINE, criterion="distance")]
