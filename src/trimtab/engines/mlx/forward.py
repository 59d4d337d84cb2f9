"""Padded batches of prompts and the key-value caches that a batch needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import BatchKVCache, KVCache, make_prompt_cache


def right_padded(tokens: Sequence[Sequence[int]]) -> tuple[mx.array, np.ndarray]:
    """(ids [B, T], absolute positions [B, T], -1 at padding). In a causal model what follows a text cannot change it,
    so that passes without a cache pad on the right and need no mask."""
    longest = max(map(len, tokens))
    ids = np.array([list(t) + [0] * (longest - len(t)) for t in tokens])
    steps = np.arange(longest)[None]
    return mx.array(ids), np.where(steps < np.array([[len(t)] for t in tokens]), steps, -1)


def left_padded(tokens: Sequence[Sequence[int]]) -> tuple[mx.array, np.ndarray]:
    """(ids [B, T], absolute positions [B, T], negative at padding): the last column holds every row's last token."""
    longest = max(map(len, tokens))
    pads = np.array([longest - len(t) for t in tokens])
    ids = np.array([[0] * p + list(t) for p, t in zip(pads, tokens, strict=True)])
    return mx.array(ids), np.arange(longest)[None] - pads[:, None]


class Caches:
    """The caches of all blocks for one batch. `ragged` says whether rows of different lengths can share a batch."""

    def __init__(self, model: nn.Module, pads: Sequence[int], joins: bool = False) -> None:
        """`joins` says that rows of other lengths may come later (`extend`)."""
        self.layers: list[Any] = make_prompt_cache(model)
        if any(pads) or joins:
            self.layers = [BatchKVCache(list(pads)) for _ in self.layers]

    @staticmethod
    def ragged(model: nn.Module) -> bool:
        """Whether every block keeps plain keys and values, which can be padded on the left."""
        return all(type(c) is KVCache for c in make_prompt_cache(model))

    @property
    def selectable(self) -> bool:
        """Whether rows can be dropped and repeated."""
        return all(type(c) in (KVCache, BatchKVCache) for c in self.layers)

    def select(self, index: Sequence[int]) -> None:
        """Go on with some of the rows (or with rows repeated)."""
        picks = mx.array(list(index))
        for c in self.layers:
            if isinstance(c, BatchKVCache):
                c.filter(picks)
            else:
                c.keys, c.values = c.keys[picks], c.values[picks]

    def extend(self, other: Caches) -> None:
        """Go on with the rows of other caches, too; both were made to be joined."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.extend(theirs)

    @property
    def state(self) -> list[Any]:
        """Everything to evaluate."""
        return [c.state for c in self.layers]
