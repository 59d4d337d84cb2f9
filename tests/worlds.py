"""Synthetic activations in which the truth is planted, and the traps that this field has met.

Each world says what a right method finds in it and what a wrong one finds instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab.directions import ConceptVectors, Direction, Origin
from trimtab.sites import STREAMS, ModelInfo, Site


@dataclass(frozen=True)
class World:
    """Paired rows [n, width] and the planted unit `truth` [width]; `decoy` is what a mistaken method finds."""

    positive: np.ndarray
    negative: np.ndarray
    truth: np.ndarray
    decoy: np.ndarray | None = None


def unit(width: int, seed: int) -> np.ndarray:
    """A reproducible unit vector off every axis."""
    v = np.random.default_rng([seed, width]).standard_normal(width)
    return v / np.linalg.norm(v)


def beside(u: np.ndarray, seed: int) -> np.ndarray:
    """A unit vector orthogonal to `u`."""
    v = unit(len(u), seed)
    v -= (v @ u) * u
    return v / np.linalg.norm(v)


def planted(n: int = 64, width: int = 24, shift: float = 4.0, noise: float = 0.5, seed: int = 0) -> World:
    """The plain case: pairs share a strong nuisance, and differ by `shift` along the truth and a little noise."""
    rng = np.random.default_rng(seed)
    truth = unit(width, seed + 1)
    shared = 3.0 * rng.standard_normal((n, width)) + 5.0 * unit(width, seed + 2)
    positive = shared + 0.5 * shift * truth + noise * rng.standard_normal((n, width))
    negative = shared - 0.5 * shift * truth + noise * rng.standard_normal((n, width))
    return World(positive, negative, truth)


def shared_shift(n: int = 64, width: int = 24, seed: int = 0) -> World:
    """The centred-PCA trap: every difference holds the same shift, and varies along a decoy.

    Centring the differences deletes what they share, so centred PCA finds the decoy; uncentred PCA and the mean
    find the truth.
    """
    rng = np.random.default_rng(seed)
    truth = unit(width, seed + 1)
    decoy = beside(truth, seed + 2)
    base = rng.standard_normal((n, width))
    along = rng.standard_normal(n)
    along -= along.mean()
    difference = 4.0 * truth + 2.0 * along[:, None] * decoy + 0.05 * rng.standard_normal((n, width))
    return World(base + 0.5 * difference, base - 0.5 * difference, truth, decoy)


def massive_channel(n: int = 64, width: int = 24, seed: int = 0) -> World:
    """One channel is a hundred times larger than the rest and says nothing: whatever chases variance finds it."""
    world = planted(n, width, seed=seed)
    channel = np.eye(width)[3]
    size = 100 * (1 + 0.3 * np.random.default_rng(seed + 9).standard_normal((n, 1)))
    return World(world.positive + size * channel, world.negative + size * channel, world.truth, channel)


def identical(n: int = 8, width: int = 24, seed: int = 0) -> World:
    """The shared-last-token trap: what is read does not depend on the text at all, so both sides are one row."""
    row = np.repeat(unit(width, seed)[None], n, axis=0)
    return World(row, row.copy(), unit(width, seed + 1))


def alike(concepts: int = 5, n: int = 32, width: int = 24, own: float = 0.3, seed: int = 0) -> list[World]:
    """A family too alike: each concept's truth is mostly one direction (the decoy) that they all share."""
    common = unit(width, seed + 1)
    found = []
    for i in range(concepts):
        mine = own * beside(common, seed + 2 + i)
        truth = (common + mine) / np.linalg.norm(common + mine)
        rng = np.random.default_rng([seed, i])
        base = rng.standard_normal((n, width))
        noise = 0.1 * rng.standard_normal((n, width))
        found.append(World(base + 2 * truth + noise, base - 2 * truth - noise, truth, common))
    return found


def model(n_layers: int = 10, width: int = 24, **kwargs: object) -> ModelInfo:
    """A model that exists on paper only; every stream has the residual width except `mlp_act`, twice as wide."""
    widths = {Site(n, s): 2 * width if s == "mlp_act" else width for n in range(n_layers) for s in STREAMS}
    defaults = {"id": "paper", "context_length": 64, "vocab_size": 100}
    return ModelInfo(n_layers=n_layers, hidden_size=width, widths=widths, **(defaults | kwargs))  # type: ignore[arg-type]


def vectors(
    concepts: tuple[str, ...] = ("joy", "calm"),
    layers: tuple[int, ...] = (2, 5, 6),
    width: int = 24,
    **kwargs: object,
) -> ConceptVectors:
    """A file whose raw norms, typical norms and calibration differ at every site, so that a mix-up shows."""
    return ConceptVectors.from_directions(
        [
            Direction.from_raw(
                name,
                Site(layer),
                (1 + i + layer) * unit(width, 100 * i + layer),
                mean=0.5 * layer + i,
                std=1.0 + 0.1 * layer + i,
                typical_norm=10.0 + layer,
            )
            for i, name in enumerate(concepts)
            for layer in layers
        ],
        **kwargs,
    )


def origin(**kwargs: object) -> Origin:
    """Where a file of `vectors` would come from."""
    return Origin(**({"model": "paper", "n_layers": 10} | kwargs))  # type: ignore[arg-type]
