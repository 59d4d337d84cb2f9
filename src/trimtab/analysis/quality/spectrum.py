"""How many dimensions the differences fill: first-PC ratio, k at 90 % and participation ratios, against chance.

lambda are the squared singular values of the differences over n - 1. Paired data: D = P - N, row by row. Unpaired: the
positives minus the mean of the negatives. Uncentred, because centring deletes the shift that all pairs share; the
centred spectrum stands beside it. At most min(n, width) dimensions can show, one fewer centred, and few rows always
look low-dimensional: every figure therefore has a chance level, its value when the labels are dealt at random among
all rows. (Flipping the sign of whole pairs would not do: it leaves an uncentred spectrum exactly as it is.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trimtab.analysis.quality.samples import Sample

PERMUTATIONS = 40
#: Share of the total that the signal dimensions hold.
SIGNAL = 0.9
#: More rows than this are sampled: an eigenvalue problem of that size, once per permutation.
MAX_ROWS = 256
SHOWN = 20


@dataclass(frozen=True)
class Shape:
    """Figures of one spectrum."""

    first_pc_ratio: float
    k_signal_at_90pct: int
    effective_dim_signal: float
    effective_dim_full: float


FIGURES = ("first_pc_ratio", "k_signal_at_90pct", "effective_dim_signal", "effective_dim_full")


@dataclass(frozen=True)
class Chance:
    """What random labels give: mean, and the 5 % and 95 % quantiles."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Spectrum:
    """`eigenvalues` are the largest (at most 20); `limit` is the most dimensions that `n` rows could show; `p` the
    share of random labellings whose first PC is as strong."""

    of: str
    centred: bool
    n: int
    limit: int
    shape: Shape
    eigenvalues: tuple[float, ...]
    chance: Mapping[str, Chance]
    p: float
    permutations: int


def participation(values: np.ndarray) -> float:
    """(sum)^2 / sum of squares: how many equal eigenvalues would be as spread as these."""
    return float(values.sum() ** 2 / (values**2).sum())


def shape(values: np.ndarray) -> Shape:
    """Figures of eigenvalues, in any order; at least one must be positive."""
    values = np.sort(np.maximum(np.asarray(values, np.float64), 0.0))[::-1]
    total = values.sum()
    # The tolerance keeps four equal values from needing a fifth by rounding.
    k = int(np.searchsorted(np.cumsum(values), SIGNAL * total * (1 - 1e-12)) + 1)
    return Shape(float(values[0] / total), k, participation(values[:k]), participation(values))


def spectra(sample: Sample, seed: int = 0, permutations: int = PERMUTATIONS) -> tuple[Spectrum, Spectrum]:
    """The uncentred and the centred spectrum, with their chance levels."""
    rng = np.random.default_rng(seed)
    gram, n = _gram(sample, rng)
    order = np.arange(len(gram))
    values = [_eigenvalues(gram, order, n, sample.paired, centred) for centred in (False, True)]
    null: list[list[Shape]] = [[], []]
    for _ in range(permutations):
        shuffled = rng.permutation(len(gram))
        for which, centred in enumerate((False, True)):
            null[which].append(shape(_eigenvalues(gram, shuffled, n, sample.paired, centred)))
    width = sample.rows.shape[1]
    return tuple(
        _spectrum(v, c, n, width, sample.paired, drawn) for v, c, drawn in zip(values, (False, True), null)
    )  # type: ignore[return-value]


def _gram(sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Inner products of all rows (of a sample, where there are many), positives first, and how many positives."""
    sides = sample.positive, sample.negative
    if sample.paired:
        kept = np.sort(rng.permutation(sample.positives)[:MAX_ROWS])
        sides = kept, kept + sample.positives
    else:
        sides = tuple(np.sort(rng.permutation(s)[:MAX_ROWS]) for s in sides)
    rows = sample.rows[np.concatenate(sides)]
    rows = rows - rows.mean(0)  # differences do not change, and large shared offsets cost no digits
    return rows @ rows.T, len(sides[0])


def _eigenvalues(gram: np.ndarray, order: np.ndarray, n: int, paired: bool, centred: bool) -> np.ndarray:
    """Squared singular values over n - 1 of the differences when the first n of `order` are the positives."""
    p, q = order[:n], order[n:]
    if paired:
        cross = gram[np.ix_(p, q)]
        inner = gram[np.ix_(p, p)] - cross - cross.T + gram[np.ix_(q, q)]
    else:
        off = gram[np.ix_(p, q)].mean(1)
        inner = gram[np.ix_(p, p)] - off[:, None] - off[None] + gram[np.ix_(q, q)].mean()
    if centred:
        inner = inner - inner.mean(0) - inner.mean(1)[:, None] + inner.mean()
    return np.maximum(np.linalg.eigvalsh(inner), 0.0)[::-1] / max(1, n - 1)


def _spectrum(
    values: np.ndarray, centred: bool, n: int, width: int, paired: bool, null: list[Shape]
) -> Spectrum:
    found = shape(values)
    chance = {}
    for name in FIGURES:
        drawn = np.array([getattr(s, name) for s in null], np.float64)
        chance[name] = Chance(float(drawn.mean()), *(float(x) for x in np.quantile(drawn, (0.05, 0.95))))
    as_strong = sum(s.first_pc_ratio >= found.first_pc_ratio - 1e-12 for s in null)
    return Spectrum(
        of="paired differences" if paired else "positives minus the mean of the negatives",
        centred=centred,
        n=n,
        limit=min(n - centred, width),
        shape=found,
        eigenvalues=tuple(float(v) for v in values[:SHOWN]),
        chance=chance,
        p=(1 + as_strong) / (1 + len(null)),
        permutations=len(null),
    )
