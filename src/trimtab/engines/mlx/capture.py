"""Reading states of prompts. Passes are lazy: what lies behind the deepest site that is read is never computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from trimtab.engines.base import CaptureItem
from trimtab.engines.batches import batches
from trimtab.engines.mlx.forward import right_padded
from trimtab.engines.mlx.schedule import Schedule
from trimtab.engines.mlx.stations import running
from trimtab.resolved import sites_of
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.mlx.engine import MLXEngine

#: Prompt tokens in one forward pass, padding included.
BATCH_TOKENS, BATCH_ROWS = 8_192, 256


class Gather:
    """Keeps the states of some (row, column) places of a batch, as float32."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray) -> None:
        self._rows, self._columns = mx.array(rows), mx.array(columns)
        self.states: mx.array | None = None

    def __call__(self, h: mx.array) -> None:
        """Take the places [n, width] of states [B, T, width]."""
        self.states = h[self._rows, self._columns].astype(mx.float32)


def capture(
    engine: MLXEngine, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
) -> list[dict[Site, np.ndarray]]:
    """States [n, width] float32 of each item's positions at each site; equal (prompt, plan) pairs run once."""
    ends = [int(i.positions.max()) + 1 for i in items]
    groups: dict[tuple[tuple[int, ...], str], list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault((item.prompt.tokens[: ends[i]], item.plan.fingerprint), []).append(i)
    keys = list(groups)
    out: list[dict[Site, np.ndarray]] = [{} for _ in items]
    stations = engine.stations.at({*sites, *sites_of(i.plan for i in items)})
    for batch in batches([len(tokens) for tokens, _ in keys], BATCH_TOKENS, BATCH_ROWS):
        members = [groups[keys[b]] for b in batch]
        ids, positions = right_padded([keys[b][0] for b in batch])
        owners = [(row, i) for row, group in enumerate(members) for i in group]
        rows = np.concatenate([np.full(len(items[i].positions), row) for row, i in owners])
        columns = np.concatenate([items[i].positions for _, i in owners])
        gathers = {s: Gather(rows, columns) for s in sites}
        schedule = Schedule(stations, [items[group[0]].plan for group in members], engine.dtype)
        schedule.prepare(positions, {(s, at): [g] for s, g in gathers.items()})
        with running(stations.values()):
            engine.model(ids)
        mx.eval([g.states for g in gathers.values()])
        cuts = np.cumsum([len(items[i].positions) for _, i in owners])[:-1]
        for site, gather in gathers.items():
            for (_, i), part in zip(owners, np.split(np.array(gather.states), cuts), strict=True):
                out[i][site] = part
    return out
