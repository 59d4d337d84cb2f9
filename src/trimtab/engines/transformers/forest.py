"""Pack texts into rows of prefix trees: what texts have in common from their first token on is computed once.

The texts are sorted, so that a text shares with the one before it all that it shares with any before it. A row is a
stretch of the sorted texts: its first text is laid down whole, every other adds what follows the part that it shares.
Nodes lie in depth-first order, so node j descends from node i exactly if i <= j < end(i), where end(i) is the first
node behind i's subtree: one number per node describes the whole attention mask.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

#: Longest rows that are tried; a text that is longer still gets a row of its own length.
ROW_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, eq=False)
class Forest:
    """Rows of one forward pass: token ids [R, T], depths [R, T] (-1 at padding) and ends [R, T].

    `row[k]` and `path[k]` say where the tokens of the k-th text lie: at these columns of that row. `texts` are the
    indices of the texts that the rows hold.
    """

    ids: np.ndarray
    depths: np.ndarray
    ends: np.ndarray
    texts: tuple[int, ...]
    row: tuple[int, ...]
    path: tuple[np.ndarray, ...]

    def mask(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Additive attention mask [R, 1, T, T]: a node sees its ancestors and itself."""
        ends = torch.from_numpy(self.ends).to(device)[:, None, None, :]
        at = torch.arange(self.ids.shape[1], device=device)
        seen = (at[None, :] <= at[:, None]) & (at[:, None] < ends)
        return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)


@dataclass(frozen=True, eq=False)
class Plan:
    """How sorted texts are cut into rows: stretches [start, stop) of `order`, and the nodes in each."""

    order: tuple[int, ...]
    shared: np.ndarray
    stretches: tuple[tuple[int, int], ...]
    nodes: tuple[int, ...]

    def cost(self, reach: float) -> float:
        """Tokens of linear work, rows padded to the longest; attention over `reach` tokens costs as much again."""
        longest = max(self.nodes)
        return len(self.nodes) * longest * (1 + longest / reach)


def plan(texts: Sequence[tuple[int, ...]], reach: float) -> Plan:
    """The cheapest cut of distinct `texts`: short rows repeat shared beginnings, long ones cost attention."""
    order, shared, lengths = _sorted(texts)
    longest = max(lengths)
    found: list[Plan] = []
    for limit in sorted({max(longest, n) for n in ROW_TOKENS}):
        found.append(_levelled(_cut(order, shared, lengths, limit), lengths, longest))
        if len(found[-1].nodes) == 1:  # a longer row would be the same
            break
    return min(found, key=lambda p: p.cost(reach))


def whole(texts: Sequence[tuple[int, ...]]) -> Plan:
    """All texts in one row."""
    order, shared, lengths = _sorted(texts)
    return _cut(order, shared, lengths, sum(lengths))


def _sorted(texts: Sequence[tuple[int, ...]]) -> tuple[list[int], np.ndarray, list[int]]:
    """The order of the sorted texts, how many tokens each shares with the one before it, and their lengths."""
    order = sorted(range(len(texts)), key=lambda i: texts[i])
    arrays = [np.asarray(texts[i], dtype=np.int64) for i in order]
    shared = [0, *(_common(a, b) for a, b in itertools.pairwise(arrays))]
    return order, np.array(shared), [len(a) for a in arrays]


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many first tokens two texts share."""
    n = min(len(a), len(b))
    different = a[:n] != b[:n]
    return int(different.argmax()) if different.any() else n


def _cut(order: Sequence[int], shared: np.ndarray, lengths: Sequence[int], limit: int) -> Plan:
    stretches: list[tuple[int, int]] = []
    nodes: list[int] = []
    start = used = 0
    for k, (both, length) in enumerate(zip(shared.tolist(), lengths, strict=True)):
        if k and used + length - both > limit:
            stretches.append((start, k))
            nodes.append(used)
            start, used = k, 0
        used += length if k == start else length - both
    stretches.append((start, len(lengths)))
    return Plan(tuple(order), shared, tuple(stretches), (*nodes, used))


def _levelled(found: Plan, lengths: Sequence[int], longest: int) -> Plan:
    """As many rows, of lengths as equal as can be: what a short last row would lose is padding."""
    rows = len(found.nodes)
    low, high = max(longest, math.ceil(sum(found.nodes) / rows)), max(found.nodes)
    while low < high:
        middle = (low + high) // 2
        tried = _cut(found.order, found.shared, lengths, middle)
        if len(tried.nodes) <= rows:
            found, high = tried, min(middle, max(tried.nodes))
        else:
            low = middle + 1
    return found


def lay(texts: Sequence[tuple[int, ...]], found: Plan, rows: Sequence[int]) -> Forest:
    """The forest of some rows of a plan."""
    width = max(found.nodes[r] for r in rows)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    depths = np.full((len(rows), width), -1, dtype=np.int64)
    ends = np.tile(np.arange(1, width + 1), (len(rows), 1))  # padding sees itself alone
    members: list[int] = []
    at_row: list[int] = []
    paths: list[np.ndarray] = []
    for row, r in enumerate(rows):
        start, stop = found.stretches[r]
        path, used = np.zeros(0, dtype=np.int64), 0
        for k in range(start, stop):
            tokens, both = texts[found.order[k]], 0 if k == start else int(found.shared[k])
            ends[row, path[both:]] = used
            new = np.arange(used, used + len(tokens) - both)
            path = np.concatenate([path[:both], new])
            ids[row, new], depths[row, new] = tokens[both:], np.arange(both, len(tokens))
            used += len(new)
            members.append(found.order[k])
            at_row.append(row)
            paths.append(path)
        ends[row, path] = used
    return Forest(ids, depths, ends, tuple(members), tuple(at_row), tuple(paths))
