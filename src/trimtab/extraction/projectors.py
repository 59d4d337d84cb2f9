"""Mean projectors of texts and the top of their difference, without a [width, width] eigenproblem.

A text's tokens X [T, width] = U diag(sigma) V span a subspace with the projector V.T V. A weighted mean of
projectors is B.T diag(s) B, with the rows V of all texts in B [r, width] and their weights in s.

Where concepts take each other's texts as negatives, the projectors of all texts are summed once, into S, and
M(P) - M(N) = sum over the few texts i that are not among the m negatives of (c_i / n + 1 / m) V_i.T V_i - S / m,
where text i stands c_i times among the n positives (a text that is negative as well counts c_i / n).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from trimtab.errors import InputError
from trimtab.extraction.davidson import Top, tops

#: Singular values below this share of the largest are rounding (tokens are float32).
RANK = 1e-6
#: Seed of the eigensolver's start where nothing better is known.
START = 0
#: Rows of orthonormal bases that are added to the sum of projectors at a time.
CHUNK = 2048

Texts = Sequence[np.ndarray]
Span = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


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


def top_of(rows: np.ndarray, weights: np.ndarray, k: int) -> Top:
    """The k largest eigenvalues, falling, and their orthonormal rows [k, width], of B.T diag(w) B, B [r, width].

    With r < width the problem is solved exactly in the span of B (QR, then [r, r]); else by block Davidson where the
    rows of positive weight are few, which gives no more than these, and by Lanczos where they are many.
    """
    count, width = rows.shape
    if count < width:
        basis, triangle = np.linalg.qr(rows.T)
        values, vectors = np.linalg.eigh((triangle * weights) @ triangle.T)
        return values[::-1][:k], (basis @ vectors[:, ::-1][:, :k]).T
    up = weights > 0
    if 2 * up.sum() <= width:
        down, less = rows[~up], -weights[~up, None]
        factor = np.sqrt(weights[up])[:, None] * rows[up]
        return tops([factor], k, lambda x: -(down.T @ (less * (down @ x))), float(less.sum() / width))[0]
    if k >= width - 1:
        raise InputError(
            f"a subspace of k={k} directions needs a width above {k + 1}, got {width}: use a smaller k"
        )
    return _lanczos(rows, weights, k)


def _lanczos(rows: np.ndarray, weights: np.ndarray, k: int) -> Top:
    from scipy.sparse.linalg import LinearOperator, eigsh

    def product(x: np.ndarray) -> np.ndarray:
        return rows.T @ (weights * (rows @ x.ravel()))

    width = rows.shape[1]
    start = np.random.default_rng(START).standard_normal(width)
    operator = LinearOperator((width, width), matvec=product, dtype=np.float64)  # type: ignore[call-arg]
    values, vectors = eigsh(operator, k=k, which="LA", v0=start)
    order = np.argsort(-values)
    return values[order], vectors[:, order].T


class Together:
    """The texts of many concepts at one site, by identity, and the sum of their projectors, made once."""

    def __init__(self, texts: Texts, span: Span) -> None:
        self.span = span
        self.texts = {id(x): x for x in texts}
        self.rest, self.trace = _total(list(self.texts.values()), span)

    def tops(self, sides: Sequence[tuple[Texts, Texts]], k: int) -> list[Top | None]:
        """`top_of` of every (positives, negatives); None where a side repeats a text, or the concept's own part is
        not small, so that it is better solved alone.
        """
        factors: dict[int, np.ndarray] = {}
        for i, (positive, negative) in enumerate(sides):
            rows = self._own(positive, negative)
            if rows is not None:
                factors[i] = rows
        if not factors:
            return [None] * len(sides)
        width = next(iter(factors.values())).shape[1]
        found = dict(zip(factors, tops(list(factors.values()), k, self.rest, self.trace / width)))
        return [
            (found[i][0] / len(negative), found[i][1]) if i in found else None
            for i, (_, negative) in enumerate(sides)
        ]

    def _own(self, positive: Texts, negative: Texts) -> np.ndarray | None:
        """C [r, width] with C.T C = m (M(P) - M(N)) + S."""
        n, m = len(positive), len(negative)
        up, down = Counter(map(id, positive)), Counter(map(id, negative))
        if max(down.values()) > 1:
            return None
        weights = {i: up[i] * m / n + (i not in down) for i in self.texts if up[i] or i not in down}
        if 2 * sum(len(self.texts[i]) for i in weights) > positive[0].shape[1]:
            return None
        parts = [(np.sqrt(weights[i]), *self.span(self.texts[i])) for i in weights]
        return np.concatenate([scale * np.sqrt(w)[:, None] * rows for scale, rows, w in parts])


def _total(texts: Texts, span: Span) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """What multiplies a block by -S, S the sum of the texts' projectors, and the trace of S. S is formed where that
    is less work than going through the rows of all texts.
    """
    width, trace = texts[0].shape[1], 0.0
    formed = 2 * sum(len(x) for x in texts) > width
    total, held = np.zeros((width, width) if formed else (0, 0)), [np.empty((0, width))]
    for text in texts:
        rows, weights = span(text)
        trace += float(weights.sum())
        held.append(np.sqrt(weights)[:, None] * rows)
        if formed and sum(map(len, held)) > CHUNK:
            stacked = np.concatenate(held)
            total += stacked.T @ stacked
            held = []
    stacked = np.concatenate([np.empty((0, width)), *held])
    if not formed:
        return lambda block: -(stacked.T @ (stacked @ block)), trace
    total += stacked.T @ stacked
    return lambda block: -(total @ block), trace
