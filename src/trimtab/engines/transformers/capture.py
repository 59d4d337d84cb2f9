"""Reading states of prompts: stops at the deepest site, computes no logits, keeps only the rows that are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from trimtab.engines.base import CaptureItem
from trimtab.engines.transformers.passes import Pass, padded, unsteered
from trimtab.engines.transformers.schedule import Schedule
from trimtab.resolved import ResolvedPlan, sites_of
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.transformers.engine import TransformersEngine


@dataclass(frozen=True, eq=False)
class Places:
    """Which (row, column) places of a batch are read [m], and for means the reader of each [m] and their sizes [k]."""

    rows: torch.Tensor
    columns: torch.Tensor
    readers: torch.Tensor | None = None
    sizes: torch.Tensor | None = None

    @classmethod
    def at(cls, rows: np.ndarray, columns: np.ndarray) -> Places:
        """Places as they are, without means."""
        return cls(torch.from_numpy(rows), torch.from_numpy(columns))

    @classmethod
    def of(
        cls, batch: Pass, readers: Sequence[tuple[int, np.ndarray]], mean: bool, device: torch.device
    ) -> Places:
        """`readers` are pairs of a text's place in the batch and the positions that are read in it."""
        sizes = np.array([len(positions) for _, positions in readers])
        rows = np.repeat([batch.rows[k] for k, _ in readers], sizes)
        columns = np.concatenate([batch.columns[k][positions] for k, positions in readers])
        places = [rows, columns]
        if mean and (sizes > 1).any():
            places += [np.repeat(np.arange(len(readers)), sizes), sizes]
        return cls(*(torch.from_numpy(p).to(device) for p in places))


class Gather:
    """Keeps the states of some places of a batch, or the means of each reader's places, as float32."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._found: torch.Tensor | None = None

    def __call__(self, h: torch.Tensor) -> None:
        """Copy the places [m, width] of states [B, T, width]; nothing waits for the device."""
        p = self._places
        found = h[p.rows.to(h.device), p.columns.to(h.device)].detach().float()
        if p.readers is not None and p.sizes is not None:
            sums = found.new_zeros(len(p.sizes), found.shape[-1])
            found = sums.index_add_(0, p.readers.to(h.device), found) / p.sizes.to(h.device)[:, None]
        self._found = found

    def take(self) -> np.ndarray:
        """The states [n, width] that were kept, on the host; they are handed over once."""
        assert self._found is not None
        found, self._found = self._found.cpu().numpy(), None
        return found


@dataclass(eq=False)
class Readers:
    """Distinct texts, as far as anything reads them, and who reads what: equal (text, plan) pairs run once."""

    texts: list[tuple[int, ...]]
    plans: list[ResolvedPlan]
    members: list[list[int]]
    positions: list[np.ndarray]

    @classmethod
    def of(cls, items: Sequence[CaptureItem]) -> Readers:
        """What lies after the last token that is read cannot change it: a causal model need not see it."""
        found: dict[tuple[tuple[int, ...], str], list[int]] = {}
        for i, item in enumerate(items):
            text = item.prompt.tokens[: int(item.positions.max()) + 1]
            found.setdefault((text, item.plan.fingerprint), []).append(i)
        plans = [items[group[0]].plan for group in found.values()]
        return cls([t for t, _ in found], plans, list(found.values()), [i.positions for i in items])

    def passes(self, engine: TransformersEngine) -> list[Iterator[Pass]]:
        """Forward passes over all texts; trees only where nothing steers, since edits belong to rows."""
        if any(plan.effective for plan in self.plans):
            return [padded(engine, self.texts, range(len(self.texts)))]
        return unsteered(engine, self.texts)


def capture(
    engine: TransformersEngine, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
) -> list[dict[Site, np.ndarray]]:
    """States [n, width] float32 of each item's positions at each site; equal (prompt, plan) pairs run once."""
    if not items:
        return []
    readers = Readers.of(items)
    out: list[dict[Site, np.ndarray]] = [{} for _ in items]
    for owners, found in _run(engine, readers, sites, at, mean=False):
        cuts = np.cumsum([len(items[i].positions) for i in owners])[:-1]
        for site, states in found.items():
            for i, part in zip(owners, np.split(states, cuts), strict=True):
                out[i][site] = part
    return out


def pool(
    engine: TransformersEngine,
    items: Sequence[CaptureItem],
    sites: Sequence[Site],
    advance: Callable[[int], None] | None,
) -> dict[Site, np.ndarray]:
    """Mean state [items, width] float32 over each item's positions; only the means leave the device."""
    readers = Readers.of(items)
    out = {s: np.empty((len(items), engine.info.width(s)), dtype=np.float32) for s in sites}
    done = 0
    for owners, found in _run(engine, readers, sites, "before", mean=True):
        for site, means in found.items():
            out[site][owners] = means
        done += len(owners)
        if advance is not None:
            advance(done)
    return out


def _run(
    engine: TransformersEngine, readers: Readers, sites: Sequence[Site], at: str, mean: bool
) -> Iterator[tuple[list[int], dict[Site, np.ndarray]]]:
    """After each forward pass the items that were read in it, and what was read, in their order."""
    last = engine.stations.last(sites)
    for passes in readers.passes(engine):
        for batch in passes:
            owners = [(k, i) for k, text in enumerate(batch.texts) for i in readers.members[text]]
            chosen = [(k, readers.positions[i]) for k, i in owners]
            places = Places.of(batch, chosen, mean, engine.forward.device)
            gathers = {s: Gather(places) for s in sites}
            plans = [readers.plans[text] for text in batch.texts]
            wanted = {*sites, *sites_of(plans)}
            with engine.stations.installed(wanted) as stations, torch.inference_mode():
                edits = plans if any(plan.effective for plan in plans) else []
                Schedule(stations, edits).prepare(batch.positions, {(s, at): [g] for s, g in gathers.items()})
                stations[last].set_stop()
                engine.run_until_stop(batch.ids, batch.positions, batch.mask, stations)
            engine.packing.tokens += batch.positions.size
            yield [i for _, i in owners], {s: g.take() for s, g in gathers.items()}
