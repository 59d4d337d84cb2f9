"""The floor: the fewest lines that run every shared prefix once, with the same model class. Imports nothing of trimtab.

The texts' prefixes are nodes of a tree; rows of about ROW nodes in depth-first order run as one batch with a mask of
four dimensions, and the states at the last token of every text are averaged per side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

ROW, BATCH = 256, 2_048


def rows_of(texts: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Prefixes in depth-first order, in rows that begin again from the first token."""
    rows: list[list[tuple[int, ...]]] = []
    seen: set[tuple[int, ...]] = set()
    for text in sorted(set(texts)):
        fresh = [text[:n] for n in range(1, len(text) + 1) if text[:n] not in seen]
        if not rows or len(rows[-1]) + len(fresh) > ROW:
            rows.append([])
            fresh = [text[:n] for n in range(1, len(text) + 1)]
            seen = set()
        rows[-1] += fresh
        seen.update(fresh)
    return rows


def batch_of(rows: list[list[tuple[int, ...]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, positions [R, T] and additive mask [R, 1, T, T]."""
    width = max(map(len, rows))
    ids, depth = np.zeros((2, len(rows), width), dtype=np.int64)
    sees = np.tile(np.eye(width, dtype=bool), (len(rows), 1, 1))
    for r, row in enumerate(rows):
        place = {prefix: i for i, prefix in enumerate(row)}
        for i, prefix in enumerate(row):
            ids[r, i], depth[r, i] = prefix[-1], len(prefix) - 1
            if len(prefix) > 1:
                sees[r, i] |= sees[r, place[prefix[:-1]]]
    mask = torch.zeros(len(rows), 1, width, width)
    mask.masked_fill_(~torch.from_numpy(sees)[:, None], torch.finfo(torch.float32).min)
    return torch.from_numpy(ids), torch.from_numpy(depth), mask


@torch.inference_mode()
def directions(model: Any, sides: tuple[list[tuple[int, ...]], list[tuple[int, ...]]]) -> np.ndarray:
    """Difference of the sides' mean states [layers, width] after every block."""
    states: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_hook(
            lambda m, a, out: states.append(out[0] if isinstance(out, tuple) else out)
        )
    weight: dict[tuple[int, ...], float] = {}
    for side, sign in zip(sides, (1, -1), strict=True):
        for text in side:
            weight[text] = weight.get(text, 0.0) + sign / len(side)
    rows = rows_of(sides[0] + sides[1])
    found: Any = 0
    for start in range(0, len(rows), BATCH // ROW):
        batch = rows[start : start + BATCH // ROW]
        ids, depth, mask = batch_of(batch)
        states.clear()
        model.model(input_ids=ids, attention_mask=mask, position_ids=depth, use_cache=False)
        ends = [
            (r, i, weight.pop(p)) for r, row in enumerate(batch) for i, p in enumerate(row) if p in weight
        ]
        r, i, w = (torch.tensor(x) for x in zip(*ends, strict=True))
        found = found + torch.stack([w.double() @ h[r, i].double() for h in states])
    for layer in model.model.layers:
        layer._forward_hooks.clear()
    return found.numpy()
