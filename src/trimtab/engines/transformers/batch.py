"""Rows that run together: their prompts, then a token for each and step, with what is read and captured on the way.

Rows whose prompts are equal and whose plans do the same to them are prefilled once and then copied (plans that act on
generated tokens only do nothing to a prompt), and rows that have finished leave the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import DynamicCache

from trimtab.engines.batches import RowPart
from trimtab.engines.requests import Event
from trimtab.engines.rows import Row
from trimtab.engines.transformers.capture import Gather, Places
from trimtab.engines.transformers.forward import Padded
from trimtab.engines.transformers.merging import RESERVE, merge, obstacle
from trimtab.engines.transformers.readings import Readings
from trimtab.engines.transformers.sampler import Sampler
from trimtab.engines.transformers.schedule import Reads, Schedule
from trimtab.engines.transformers.stations import hooked
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.transformers.engine import TransformersEngine

#: A batch is rebuilt without its finished rows once so large a share of it has finished.
COMPACT = 0.2


class Batch(RowPart):
    """Rows that run together. With `piece`, a longer prompt runs in pieces of so many tokens."""

    def __init__(self, engine: TransformersEngine, rows: list[Row], piece: int | None = None) -> None:
        self.engine, self.rows, self.piece = engine, rows, piece
        starts: dict[tuple[int, int], ResolvedPlan] = {}
        for r in rows:
            if (id(r.plan), len(r.prompt)) not in starts:
                starts[id(r.plan), len(r.prompt)] = r.plan.until(len(r.prompt))
        begin = [starts[id(r.plan), len(r.prompt)] for r in rows]
        same: dict[tuple[tuple[int, ...], str], int] = {}
        self.source = [
            same.setdefault((r.prompt.tokens, b.fingerprint), len(same))
            for r, b in zip(rows, begin, strict=True)
        ]
        firsts = dict(reversed(list(zip(self.source, zip(rows, begin, strict=True), strict=True))))
        unique = [firsts[u][0] for u in range(len(same))]
        self.padded = Padded.of([r.prompt.tokens for r in unique], engine.forward.device)
        self.stations = engine.stations.at(self.wanted())
        self.schedule = Schedule(self.stations, [firsts[u][1] for u in range(len(same))])
        self.cache = engine.forward.cache(self.padded.ids.shape[1] + self._room())
        self.mergeable = obstacle(self.cache) is None
        self.mask = self.padded.mask
        self.positions = np.array([len(r.prompt) for r in rows])
        self.readings: list[np.ndarray | None] = []
        self.done = 0  # columns of the prompts that have run

    def _room(self) -> int:
        """Tokens to reserve: in a batch that others join, caches are merged long before a long limit is reached."""
        most = max(r.spec.sampling.max_tokens for r in self.rows)
        return most if self.piece is None else min(most, RESERVE)

    def run(self) -> Iterator[Event]:
        """Everything, without company."""
        with hooked(self.stations.values()):
            while not self._prefill():
                pass
            while self.keys():
                yield from self._step()

    # --- a part of a batch that others join --------------------------------------------------------------------

    def prefill(self) -> bool:
        """Run the next piece of the prompts."""
        with hooked(self.stations.values()):
            return self._prefill()

    def step(self) -> Iterator[Event]:
        """One token for every row."""
        with hooked(self.stations.values()):
            yield from self._step()

    @torch.inference_mode()
    def absorb(self, other: Batch) -> None:
        """Go on with the rows of another batch, too."""
        mine, theirs = self._alive(), other._alive()
        self.rows = [*(self.rows[i] for i in mine), *(other.rows[i] for i in theirs)]
        self.positions = np.concatenate([self.positions[mine], other.positions[theirs]])
        self.readings = [*(self.readings[i] for i in mine), *(other.readings[i] for i in theirs)]
        self.logits = torch.cat([self.logits[mine], other.logits[theirs]])
        self.sampler.select(mine)
        other.sampler.select(theirs)
        self.sampler.extend(other.sampler)
        self._merge([(self.cache, mine), (other.cache, theirs)])
        self.stations = self.engine.stations.at(self.wanted())
        self.schedule = Schedule(self.stations, [r.plan for r in self.rows])

    def _alive(self) -> list[int]:
        return [i for i, r in enumerate(self.rows) if r.finish is None]

    def _merge(self, caches: Sequence[tuple[DynamicCache, Sequence[int]]]) -> None:
        """Right-align the cached tokens of the rows; as many columns as the longest row has tokens."""
        columns = int(self.positions.max())
        merge(caches, columns)
        pads = columns - self.positions
        real = np.arange(columns)[None] >= pads[:, None]
        self.mask = torch.from_numpy(real).long().to(self.engine.forward.device) if pads.any() else None

    # --- prompts -----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _prefill(self) -> bool:
        """The next columns of the prompts; after the last one every row stands before its first token."""
        padded, start = self.padded, self.done
        columns = padded.ids.shape[1]
        stop = columns if self.piece is None or self.mask is not None else min(columns, start + self.piece)
        self.done = stop
        reads: Reads = {}
        readings = Readings(self.rows if stop == columns else [], self.source, reads)
        gathers = self._prompt_gathers(reads, start, stop)
        positions = padded.positions[:, start:stop]
        self.schedule.prepare(positions, reads)
        ids = padded.ids[:, start:stop]
        logits = self.engine.run(ids, positions, self.mask, self.stations, self.cache)[:, -1]
        for site, gather, row in gathers:
            row.states[site].append(gather.take())
        if stop < columns:
            return False
        self.logits = logits.float()
        self.sampler = Sampler([(r.spec.sampling, r.index) for r in self.rows], logits.device)
        if self.source != list(range(len(self.rows))) or len(padded.ids) != len(self.rows):
            picks = torch.tensor(self.source, device=self.engine.forward.device)
            self.cache.reorder_cache(picks)  # type: ignore[arg-type]
            self.mask = None if self.mask is None else self.mask[picks]
            self.logits = self.logits[picks.to(logits.device)]
        # A prefill knew what acts on prompts only.
        self.schedule = Schedule(self.stations, [r.plan for r in self.rows])
        self.readings = readings.values()
        return True

    def _prompt_gathers(self, reads: Reads, start: int, stop: int) -> list[tuple[Site, Gather, Row]]:
        """What is captured of these columns of the prompts, added to `reads`: one gather per row and site."""
        found = []
        for row, u in zip(self.rows, self.source, strict=True):
            if row.spec.capture is None:
                continue
            columns = row.prompt_rows() + self.padded.pads[u]
            columns = columns[(columns >= start) & (columns < stop)] - start
            for site in row.states if len(columns) else ():
                gather = Gather(Places.at(np.full(len(columns), u), columns))
                reads.setdefault((site, row.spec.capture.at), []).append(gather)
                found.append((site, gather, row))
        return found

    # --- tokens ------------------------------------------------------------------------------------------------

    def _step(self) -> Iterator[Event]:
        """A token for every row, and the forward pass that the next one needs."""
        tokens, logprobs = self.sampler.choose(self.logits, [len(r.tokens) for r in self.rows])
        plans = [r.plan for r in self.rows]
        yield from self._advance(tokens.tolist(), logprobs.tolist())
        if not self.keys():
            return
        if any(r.plan is not p for r, p in zip(self.rows, plans, strict=True)):
            self.schedule = Schedule(self.stations, [r.plan for r in self.rows])
        self._decode(self._compact(tokens))

    def _advance(self, tokens: list[int], logprobs: list[float]) -> Iterator[Event]:
        for i, row in enumerate(self.rows):
            if row.finish is not None:
                continue
            event = row.advance(tokens[i], logprobs[i], self.readings[i])
            if event is not None:
                yield event
            if row.finish is not None:
                yield row.close()

    @torch.inference_mode()
    def _compact(self, tokens: torch.Tensor) -> torch.Tensor:
        """Drop finished rows when enough have finished, and the padding that only they needed."""
        alive = self._alive()
        if len(alive) > (1 - COMPACT) * len(self.rows):
            return tokens
        self.rows = [self.rows[i] for i in alive]
        self.positions = self.positions[alive]
        self.schedule.select(alive)
        self.sampler.select(alive)
        if self.mergeable:
            self._merge([(self.cache, alive)])
        else:
            picks = torch.tensor(alive, device=self.engine.forward.device)
            self.cache.reorder_cache(picks)  # type: ignore[arg-type]
            self.mask = None if self.mask is None else self.mask[picks]
        return tokens[torch.tensor(alive, device=tokens.device)]

    @torch.inference_mode()
    def _decode(self, tokens: torch.Tensor) -> None:
        """One more token per row: its logits and readings, and what is captured of it."""
        engine = self.engine
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        reads: Reads = {}
        readings = Readings(self.rows, range(len(self.rows)), reads)
        kept = self._step_gathers(reads)
        self.schedule.step(self.positions, reads)
        ids = tokens[:, None].to(engine.forward.device)
        logits = engine.run(ids, self.positions[:, None], self.mask, self.stations, self.cache)
        self.logits = logits[:, -1].float()
        for site, gather, rows in kept:
            for row, state in zip(rows, gather.take(), strict=True):
                row.states[site].append(state)
        self.positions = self.positions + 1
        self.readings = readings.values()

    def _step_gathers(self, reads: Reads) -> list[tuple[Site, Gather, list[Row]]]:
        """Captures of one decode step, added to `reads`; finished rows capture nothing."""
        places: dict[tuple[Site, str], list[int]] = {}
        for i, row in enumerate(self.rows):
            if row.spec.capture and row.finish is None and row.captures(int(self.positions[i])):
                for site in row.states:
                    places.setdefault((site, row.spec.capture.at), []).append(i)
        kept = []
        for (site, at), index in places.items():
            gather = Gather(Places.at(np.array(index), np.zeros(len(index), dtype=np.int64)))
            reads.setdefault((site, at), []).append(gather)
            kept.append((site, gather, [self.rows[i] for i in index]))
        return kept
