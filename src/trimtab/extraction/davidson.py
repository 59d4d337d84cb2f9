"""The top eigenpairs of many matrices C_i.T C_i + rest at once: a few rows of each one's own, and a large part that
all of them share.

Block Davidson. What multiplies by `rest` goes through it in blocks that hold the columns of several matrices, so that
it runs at the speed of matrix products and not of memory. The eigenvectors of C.T C are known from the small C C.T;
with them (theta - C.T C + level) is inverted in closed form, and that preconditions: only the part of `rest` that
differs from -level times the identity is left to iterate on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.errors import InputError

#: A pair counts as found once |A u - theta u| is below this share of the largest eigenvalue. The eigenvalue is then
#: off by about its square over the gap to the next ones, the vector by it over that gap.
TOLERANCE = 1e-8
#: Vectors that are sought beside the k: they take the slow convergence that the edge of the block has.
MARGIN = 3
#: Rounds after which a search that has not converged is an error.
ROUNDS = 200
#: Rounds between restarts, and matrices whose columns share a block.
RESTART, TOGETHER = 12, 16

Rest = Callable[[np.ndarray], np.ndarray]
Top = tuple[np.ndarray, np.ndarray]


def tops(factors: Sequence[np.ndarray], k: int, rest: Rest, level: float) -> list[Top]:
    """(k largest eigenvalues, falling; their orthonormal rows [k, width]) of C.T C + rest for each C [r, width], or
    as many as C has rank: what is beyond is not positive.

    `rest` multiplies a block [width, n] by a symmetric part without positive eigenvalues, of mean eigenvalue -level.
    Needs r < width. float64.
    """
    found: list[Top] = []
    for start in range(0, len(factors), TOGETHER):
        searches = [_Search(c, k, level) for c in factors[start : start + TOGETHER]]
        active = searches
        for _ in range(ROUNDS):
            blocks = [s.asks for s in active]
            ends = np.cumsum([b.shape[1] for b in blocks])[:-1]
            for search, block in zip(active, np.split(rest(np.hstack(blocks)), ends, axis=1)):
                search.take(block)
            active = [s for s in active if not s.done]
            if not active:
                break
        else:
            raise InputError(
                f"the {k} leading directions did not converge in {ROUNDS} rounds (residual {active[0].residual:.1e}): "
                "their eigenvalues are nearly equal; use another k"
            )
        found += [s.answer for s in searches]
    return found


@dataclass(frozen=True)
class _Own:
    """Eigenvalues [r], falling, and eigenvectors [width, r] of C.T C."""

    values: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> _Own:
        values, small = np.linalg.eigh(rows @ rows.T)
        values, small = values[::-1], small[:, ::-1]
        keep = values > 1e-12 * values[0]
        values = values[keep]
        return cls(values, rows.T @ (small[:, keep] / np.sqrt(values)))

    def times(self, block: np.ndarray) -> np.ndarray:
        return self.vectors @ (self.values[:, None] * (self.vectors.T @ block))

    def solve(self, block: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """(shift - C.T C)^-1 applied to each column with its own shift; near an eigenvalue it is held off."""
        away = shifts - self.values[:, None]
        least = 1e-4 * np.abs(shifts)
        away = np.where(np.abs(away) < least, np.copysign(least, away), away)
        inside = (self.values[:, None] / away) * (self.vectors.T @ block)
        return (block + self.vectors @ inside) / shifts


class _Search:
    """One matrix: an orthonormal basis that grows by the preconditioned residuals of its leading Ritz vectors.

    The basis starts with the leading eigenvectors of C.T C. `rest` only lowers the form x.A x, so outside the span of
    all those eigenvectors whose eigenvalue reaches the k-th Ritz value nothing can exceed that value: these are
    added in the second round, and no leading direction is missed however strongly `rest` reorders them.
    """

    def __init__(self, rows: np.ndarray, k: int, level: float) -> None:
        self.own, self.level = _Own.of(rows), level
        self.size = min(k + MARGIN, len(self.own.values))
        self.k = min(k, self.size)
        width = rows.shape[1]
        self.basis, self.image = np.empty((width, 0)), np.empty((width, 0))
        self.asks = self.own.vectors[:, : self.size]
        self.covered, self.rounds, self.done, self.residual = False, 0, False, np.inf

    def take(self, product: np.ndarray) -> None:
        """The block that was asked for, multiplied by `rest`: find the Ritz pairs and say what is asked next."""
        self.basis = np.hstack([self.basis, self.asks])
        self.image = np.hstack([self.image, self.own.times(self.asks) + product])
        values, small = np.linalg.eigh(self.basis.T @ self.image)
        values, small = values[::-1], small[:, ::-1]
        if not self.covered:
            self.covered = True
            more = self.own.vectors[:, self.size : int((self.own.values >= values[self.k - 1]).sum())]
            if more.shape[1]:
                self.asks = more
                return
        self.rounds += 1
        leading, lead = values[: self.size], small[:, : self.size]
        ritz = self.basis @ lead
        residuals = self.image @ lead - ritz * leading
        lengths = np.linalg.norm(residuals, axis=0)
        bound = TOLERANCE * np.abs(values).max()
        self.residual = float(lengths[: self.k].max())
        if self.residual <= bound:
            self.done, self.answer = True, (leading[: self.k], ritz[:, : self.k].T)
            return
        if self.rounds % RESTART == 0:
            keep = small[:, : 3 * self.size]
            self.basis, self.image = self.basis @ keep, self.image @ keep
        open_ = lengths > bound
        self.asks = self._fresh(self.own.solve(residuals[:, open_], leading[open_] + self.level))

    def _fresh(self, block: np.ndarray) -> np.ndarray:
        """Orthonormal columns of what a block adds to the basis."""
        block = block / np.linalg.norm(block, axis=0)
        for _ in range(2):  # once leaves rounding errors where a column lies nearly inside the basis
            block = block - self.basis @ (self.basis.T @ block)
            block, triangle = np.linalg.qr(block)
            block = block[:, np.abs(np.diag(triangle)) > 1e-12]
        return block
