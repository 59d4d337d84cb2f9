"""Leading eigenvectors of a second moment F.T F - n m m.T, without forming it where it is large."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Up to this width the matrix is formed and solved exactly (a fraction of a second).
DENSE = 1024
BLOCK, STEPS, TOLERANCE = 8, 300, 1e-9


def leading(factor: np.ndarray, shift: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """Largest eigenvalue and its unit vector [width] of F.T F, less shift shift.T where given. float64.

    F [k, width] is `Evidence.factor`; `shift` is sqrt(n) * mean(D) for the centred moment. Few rows are solved
    in their own [k, k] space. Large widths use block power iteration with Rayleigh-Ritz, from a fixed start; one
    that has not settled falls back to the exact solve.
    """
    factor = np.asarray(factor, np.float64)
    count, width = factor.shape
    if shift is None and count < width and count <= DENSE:
        values, vectors = np.linalg.eigh(factor @ factor.T)
        row = factor.T @ vectors[:, -1]
        length = float(np.linalg.norm(row))
        return float(values[-1]), row / length if length else np.eye(1, width)[0]  # all zeros: any row leads
    if width > DENSE:
        found = _iterate(_product(factor, shift), width)
        if found is not None:
            return found
    moment = factor.T @ factor
    if shift is not None:
        moment -= np.outer(shift, shift)
    values, vectors = np.linalg.eigh(moment)
    return float(values[-1]), vectors[:, -1]


def top(factor: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest singular values of F [n, width] and their orthonormal rows [k, width], exactly. float64."""
    factor = np.asarray(factor, np.float64)
    if len(factor) > factor.shape[1]:
        factor = np.asarray(np.linalg.qr(factor, mode="r"))
    _, values, rows = np.linalg.svd(factor, full_matrices=False)
    return values[:k], rows[:k]


def _product(factor: np.ndarray, shift: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
    def product(x: np.ndarray) -> np.ndarray:
        y = factor.T @ (factor @ x)
        return y if shift is None else y - np.outer(shift, shift @ x)

    return product


def _iterate(product: Callable[[np.ndarray], np.ndarray], width: int) -> tuple[float, np.ndarray] | None:
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((width, BLOCK)))[0]
    for _ in range(STEPS):
        image = product(basis)
        values, rotation = np.linalg.eigh(basis.T @ image)
        vector, value = basis @ rotation[:, -1], float(values[-1])
        if np.linalg.norm(image @ rotation[:, -1] - value * vector) <= TOLERANCE * abs(value):
            return value, vector
        basis = np.linalg.qr(image)[0]
    return None
