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


@dataclass(frozen=True, eq=False)
class Neurons:
    """Unit `columns` [d, m] of what neurons write, and the largest |cosine| of random directions with any of them."""

    columns: np.ndarray
    null: np.ndarray

    @classmethod
    def of(cls, columns: np.ndarray, seed: int = 0) -> Neurons:
        """From what neurons write, [d, m]; a neuron that writes nothing is parallel to nothing."""
        lengths = np.linalg.norm(columns, axis=0)
        shown = (columns / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
        random = np.random.default_rng(seed).standard_normal((DRAWS, len(columns)), np.float32)
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        return cls(shown, np.abs(random @ shown).max(1))


def nearest_neuron(unit: np.ndarray, neurons: Neurons) -> Neuron:
    """Of a unit row [d]."""
    width, count = neurons.columns.shape
    if width != len(unit):
        raise Unsupported(f"neurons write {width} numbers, and the direction has {len(unit)}")
    cosines = np.asarray(unit, np.float32) @ neurons.columns
    index = int(np.argmax(np.abs(cosines)))
    return Neuron(
        index=index,
        cosine=float(cosines[index]),
        neurons=count,
        expected=float(min(1.0, np.sqrt(2 * np.log(count) / width))),
        chance=float(neurons.null.mean()),
        chance_high=float(np.quantile(neurons.null, 0.95)),
        single=bool(abs(cosines[index]) > ONE_NEURON),
    )
