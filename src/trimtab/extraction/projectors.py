"""Mean projectors of texts and the top of their difference, without a [width, width] eigenproblem.

A text's tokens X [T, width] = U diag(sigma) V span a subspace with the projector V.T V. A weighted mean of
projectors is B.T diag(s) B, with the rows V of all texts in B [r, width] and their weights in s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trimtab.errors import InputError

#: Singular values below this share of the largest are rounding (tokens are float32).
RANK = 1e-6
#: Seed of the eigensolver's start where nothing better is known.
START = 0


def span(tokens: np.ndarray, rank: int | None = None, soft: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(orthonormal rows V [r, width], their weights [r]) of a text's tokens [T, width]. float64.

    A full projector counts a noise direction as much as the strongest, and of T >= width tokens it is the identity:
    `soft` weights sigma^2 / (sigma^2 + median sigma^2) tell them apart; `rank` keeps the strongest.
    """
    _, values, rows = np.linalg.svd(np.asarray(tokens, np.float64), full_matrices=False)
    keep = values > RANK * values[0]
    if rank is not None:
        keep[rank:] = False
    values, rows = values[keep], rows[keep]
    power = values**2
    return rows, power / (power + np.median(power)) if soft else np.ones(len(power))


def top_of(
    rows: np.ndarray,
    weights: np.ndarray,
    k: int,
    rest: Callable[[np.ndarray], np.ndarray] | None = None,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues, falling, and their orthonormal rows [k, width], of B.T diag(w) B + rest.

    B [r, width]; `rest` multiplies a vector by a further symmetric part. With r < width and no rest the problem is
    solved exactly in the span of B (QR, then [r, r]); else by Lanczos, to machine precision, from `start`.
    """
    count, width = rows.shape
    if rest is None and count < width:
        basis, triangle = np.linalg.qr(rows.T)
        values, vectors = np.linalg.eigh((triangle * weights) @ triangle.T)
        values, found = values[::-1][:k], (basis @ vectors[:, ::-1][:, :k]).T
        return values, found
    if k >= width - 1:
        raise InputError(
            f"a subspace of k={k} directions needs a width above {k + 1}, got {width}: use a smaller k"
        )
    from scipy.sparse.linalg import LinearOperator, eigsh

    def product(x: np.ndarray) -> np.ndarray:
        y = rows.T @ (weights * (rows @ x.ravel()))
        return y if rest is None else y + rest(x.ravel())

    start = np.random.default_rng(START).standard_normal(width) if start is None else start
    operator = LinearOperator((width, width), matvec=product, dtype=np.float64)  # type: ignore[call-arg]
    values, vectors = eigsh(operator, k=k, which="LA", v0=start)
    order = np.argsort(-values)
    return values[order], vectors[:, order].T
