"""Reading states of prompts: stops at the deepest site, computes no logits, keeps only the rows that are read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from trimtab.engines.base import CaptureItem
from trimtab.engines.transformers.forward import Padded, batches
from trimtab.engines.transformers.stations import Schedule, Stopped, sites_of
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.transformers.engine import TransformersEngine

#: Prompt tokens in one forward pass, padding included.
BATCH_TOKENS = 8_192
BATCH_ROWS = 256


class Gather:
    """Keeps the states of some (row, column) places of a batch, as float32 on the host."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray) -> None:
        self._rows, self._columns = torch.from_numpy(rows), torch.from_numpy(columns)
        self.states: np.ndarray | None = None

    def __call__(self, h: torch.Tensor) -> None:
        """Copy the places [n, width] of states [B, T, width]."""
        found = h[self._rows.to(h.device), self._columns.to(h.device)]
        self.states = found.detach().float().cpu().numpy()


def capture(
    engine: TransformersEngine, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
) -> list[dict[Site, np.ndarray]]:
    """States [n, width] float32 of each item's positions at each site; equal (prompt, plan) pairs run once."""
    if not items:
        return []
    # What lies after the last token that is read cannot change it: a causal model need not see it.
    ends = [int(i.positions.max()) + 1 for i in items]
    groups: dict[tuple[tuple[int, ...], str], list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault((item.prompt.tokens[: ends[i]], item.plan.fingerprint), []).append(i)
    keys = list(groups)
    out: list[dict[Site, np.ndarray]] = [{} for _ in items]
    wanted = {*sites, *sites_of(i.plan for i in items)}
    with engine.stations.installed(wanted) as stations, torch.inference_mode():
        for batch in batches([len(tokens) for tokens, _ in keys], BATCH_TOKENS, BATCH_ROWS):
            members = [groups[keys[b]] for b in batch]
            padded = Padded.of([keys[b][0] for b in batch], engine.forward.device)
            owners = [(row, i) for row, group in enumerate(members) for i in group]
            rows = np.concatenate([np.full(len(items[i].positions), row) for row, i in owners])
            columns = np.concatenate([items[i].positions + padded.pads[row] for row, i in owners])
            gathers = {s: Gather(rows, columns) for s in sites}
            schedule = Schedule(stations, [items[group[0]].plan for group in members])
            schedule.prepare(padded.positions, {(s, at): [g] for s, g in gathers.items()})
            stations[engine.stations.last(sites)].set_stop()
            with contextlib.suppress(Stopped):
                engine.run(padded.ids, padded.positions, padded.mask, stations)
            cuts = np.cumsum([len(items[i].positions) for _, i in owners])[:-1]
            for site, gather in gathers.items():
                assert gather.states is not None
                for (_, i), part in zip(owners, np.split(gather.states, cuts), strict=True):
                    out[i][site] = part
    return out
