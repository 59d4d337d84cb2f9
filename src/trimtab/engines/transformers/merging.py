"""Caches of two batches made one, and caches whose longest rows have left made shorter.

Columns are right-aligned: the last column of every row is its last token, and what a shorter row has on its left is
padding that the attention mask hides. Its numbers must be finite all the same (a weight of 0 times NaN is NaN), and so
they are zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer, LinearAttentionLayer

from trimtab.engines.transformers.forward import Roomy

#: Room for this many more tokens in a merged cache; it grows where it must.
RESERVE = 256
Rows = tuple[torch.Tensor, torch.Tensor]


def obstacle(cache: DynamicCache) -> str | None:
    """The kind of layer that keeps rows from being merged; None where all can be."""
    known = (Roomy, DynamicSlidingWindowLayer, LinearAttentionLayer)
    strange = [type(layer).__name__ for layer in cache.layers if type(layer) not in known]
    return strange[0] if strange else None if cache.layers else "unknown"


def recurrent(cache: DynamicCache) -> bool:
    """Whether a layer keeps a running state, for which prompts are not cut into pieces."""
    return any(isinstance(layer, LinearAttentionLayer) for layer in cache.layers)


def merge(caches: Sequence[tuple[DynamicCache, Sequence[int]]], columns: int) -> None:
    """Make the first cache one of the chosen rows of every cache, in order, of `columns` columns."""
    for layers in zip(*(c.layers for c, _ in caches), strict=True):
        first: Any = layers[0]
        if isinstance(first, LinearAttentionLayer):
            _merge_states(layers, [rows for _, rows in caches])
            continue
        if not first.is_initialized:  # a layer that uses another one's keys and values
            continue
        rows = [_index(r, layer) for layer, (_, r) in zip(layers, caches, strict=True)]
        keys = list(zip((layer.keys for layer in layers), rows, strict=True))
        values = list(zip((layer.values for layer in layers), rows, strict=True))
        if isinstance(first, Roomy):
            capacity = columns + RESERVE
            first.hold(_aligned(keys, columns, capacity), _aligned(values, columns, capacity), columns)
        else:
            width = min(columns, first.sliding_window - 1)
            first.keys, first.values = _aligned(keys, width, width), _aligned(values, width, width)
            first.cumulative_length = columns


def _index(rows: Sequence[int], layer: Any) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.long, device=layer.device)


def _aligned(parts: Sequence[Rows], columns: int, capacity: int) -> torch.Tensor:
    """[rows of all parts, heads, capacity, width] with each part's last columns right-aligned at `columns`."""
    states = parts[0][0]
    count = sum(len(rows) for _, rows in parts)
    out = states.new_zeros(count, states.shape[1], capacity, states.shape[3])
    at = 0
    for held, rows in parts:
        taken = min(columns, held.shape[2])
        if taken:
            target = out[at : at + len(rows), :, columns - taken : columns]
            target.copy_(held.narrow(2, held.shape[2] - taken, taken).index_select(0, rows))
        at += len(rows)
    return out


def _merge_states(layers: Sequence[Any], rows: Sequence[Sequence[int]]) -> None:
    first = layers[0]
    for name in ("conv_states", "recurrent_states"):
        for i, state in getattr(first, name).items():
            if state is not None:
                picked = [
                    getattr(layer, name)[i].index_select(0, _index(r, layer))
                    for layer, r in zip(layers, rows, strict=True)
                ]
                getattr(first, name)[i] = torch.cat(picked)
