"""Is the direction one neuron? Cosines with what each MLP neuron of the layer writes, against chance.

The largest of m cosines with strangers is about sqrt(2 ln m / d) in d dimensions. Real columns are not isotropic, so
the same maximum over random directions against the same matrix stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab.errors import Unsupported

#: Above this a direction is, for most purposes, one neuron.
ONE_NEURON = 0.6
DRAWS = 100


@dataclass(frozen=True)
class Neuron:
    """The neuron whose writing is most parallel: `cosine` has its sign; `expected` is sqrt(2 ln m / d), `chance` and
    `chance_high` the mean and 95 % quantile of the same maximum for random directions."""

    index: int
    cosine: float
    neurons: int
    expected: float
    chance: float
    chance_high: float
    single: bool


def nearest_neuron(unit: np.ndarray, columns: np.ndarray, seed: int = 0) -> Neuron:
    """Of a unit row [d] and what neurons write [d, m]."""
    unit = np.asarray(unit, np.float64)
    if columns.shape[0] != len(unit):
        raise Unsupported(f"neurons write {columns.shape[0]} numbers, and the direction has {len(unit)}")
    lengths = np.linalg.norm(columns, axis=0)
    shown = columns / np.where(lengths > 0, lengths, 1.0)
    cosines = unit @ shown
    index = int(np.argmax(np.abs(cosines)))
    width, count = columns.shape
    random = np.random.default_rng(seed).standard_normal((DRAWS, width))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    null = np.abs(random @ shown).max(1)
    return Neuron(
        index=index,
        cosine=float(cosines[index]),
        neurons=count,
        expected=float(min(1.0, np.sqrt(2 * np.log(count) / width))),
        chance=float(null.mean()),
        chance_high=float(np.quantile(null, 0.95)),
        single=bool(abs(cosines[index]) > ONE_NEURON),
    )
