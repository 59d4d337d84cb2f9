"""Rows that run together: their prompts, then a token for each and step, with what is read and captured on the way.

The device runs one step ahead of the host: while the tokens of a step are looked at, the next step is under way. Rows
that end meanwhile are computed once too often, and what that extra step captured is dropped, so that captures and
readings are exactly those of the tokens that were let out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from trimtab.engines.batches import RowPart
from trimtab.engines.mlx.forward import Caches, left_padded
from trimtab.engines.mlx.prefix import Prefix
from trimtab.engines.mlx.sampler import Sampler
from trimtab.engines.mlx.schedule import Reads, Schedule
from trimtab.engines.mlx.stations import running
from trimtab.engines.mlx.steps import Captured, Step, gathered, observe
from trimtab.engines.requests import Event
from trimtab.engines.rows import Row
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.mlx.engine import MLXEngine

#: Prompt tokens per forward pass of a long prompt.
CHUNK = 2_048


class Batch(RowPart):
    """Rows that run together. With `piece`, others may join, and prompts run in pieces of so many tokens."""

    def __init__(
        self, engine: MLXEngine, rows: list[Row], prefix: Prefix | None = None, piece: int | None = None
    ) -> None:
        self.engine, self.rows = engine, rows
        same: dict[tuple[tuple[int, ...], str], int] = {}
        # Equal (prompt, plan) pairs are computed once where caches can be copied.
        share = prefix is None and Caches(engine.model, []).selectable
        key = [(r.prompt.tokens, r.plan.fingerprint if share else str(i)) for i, r in enumerate(rows)]
        self.source = [same.setdefault(k, len(same)) for k in key]
        unique = [rows[self.source.index(u)] for u in range(len(same))]
        self.ids, self.columns = left_padded([r.prompt.tokens for r in unique])
        self.caches = Caches(engine.model, [int(-p[0]) for p in self.columns], joins=piece is not None)
        self.chunks = _chunks(self.ids.shape[1], piece or CHUNK)
        if prefix is not None:
            self.caches.layers, self.chunks = prefix.copies(len(unique)), self.chunks[-1:]
        self.stations = engine.stations.at(self.wanted())
        self.schedule = Schedule(self.stations, [r.plan for r in unique], engine.dtype)
        self.sampler = Sampler([(r.spec.sampling, r.index) for r in rows])
        self.positions = np.array([len(r.prompt) for r in rows])
        self.chosen = [0] * len(rows)  # tokens, those under way included
        self.captured: list[Captured] = []
        self.current: Step | None = None

    def run(self) -> Iterator[Event]:
        """Everything, without company."""
        while not self.prefill():
            pass
        while self.keys():
            yield from self.step()

    def absorb(self, other: Batch) -> None:
        """Go on with the rows of another batch, too."""
        assert self.current is not None and other.current is not None
        self.current.extend(other.current)
        self.rows = [r for r in (*self.rows, *other.rows) if r.finish is None]
        self.positions = np.concatenate([self.positions, other.positions])
        self.chosen = self.chosen + other.chosen
        self.caches.extend(other.caches)
        self.sampler.extend(other.sampler)
        self.stations = self.engine.stations.at(self.wanted())
        self.schedule = Schedule(self.stations, [r.plan for r in self.current.rows], self.engine.dtype)

    # --- prompts -----------------------------------------------------------------------------------------------

    def prefill(self) -> bool:
        """The next columns of the prompts; after the last ones every row has its first token under way."""
        (start, stop), self.chunks = self.chunks[0], self.chunks[1:]
        part, final = self.columns[:, start:stop], not self.chunks
        reads: Reads = {}
        readings = observe(self.rows, self.source, reads) if final else []
        kept = self._capture_prompts(part, reads)
        self.schedule.prepare(part, reads)
        with running(self.stations.values()):
            logits = self.engine.model(self.ids[:, start:stop], cache=self.caches.layers)
        self.captured += kept
        mx.eval([*self.caches.state, *(g.states for _, g, _ in kept)])
        if not final:
            return False
        if self.source != list(range(len(self.rows))) or len(self.ids) != len(self.rows):
            self.caches.select(self.source)
            self.schedule.select(self.source)
        last = logits[:, -1][mx.array(self.source)].astype(mx.float32)
        tokens, logprobs = self.sampler.choose(last, self.chosen)
        self.chosen = [1] * len(self.rows)
        self.current = Step(list(self.rows), tokens, logprobs, readings, self.captured)
        return True

    def _capture_prompts(self, part: np.ndarray, reads: Reads) -> list[Captured]:
        """What is captured of this chunk of the prompts: one gather per site and moment."""
        places: dict[tuple[Site, str], list[tuple[Row, np.ndarray, int]]] = {}
        for row, u in zip(self.rows, self.source, strict=True):
            if row.spec.capture is None:
                continue
            columns = np.flatnonzero(np.isin(part[u], row.prompt_rows()))
            if len(columns):
                for site in row.states:
                    places.setdefault((site, row.spec.capture.at), []).append((row, columns, u))
        return [gathered(key, members, reads) for key, members in places.items()]

    # --- tokens ------------------------------------------------------------------------------------------------

    def step(self) -> Iterator[Event]:
        """Let the tokens under way out, and start the pass that the next ones need."""
        current = self.current
        assert current is not None
        mx.async_eval([a for a in current.arrays if a is not None])
        # A monitor may change what the next step does, which then cannot begin before it has seen this one.
        waits = any(r.spec.monitor is not None and r.spec.monitor.plans for r in current.rows)
        if waits:
            yield from self._deliver(current)
        self.current = self._decode(current)
        if self.current is not None:
            mx.async_eval([a for a in self.current.arrays if a is not None])
        if not waits:
            yield from current.deliver()

    def _deliver(self, step: Step) -> Iterator[Event]:
        """`Step.deliver`, and the plans that monitors changed meanwhile take effect."""
        plans = [r.plan for r in step.rows]
        yield from step.deliver()
        if any(r.plan is not p for r, p in zip(step.rows, plans, strict=True)):
            self.schedule = Schedule(self.stations, [r.plan for r in step.rows], self.engine.dtype)

    def _decode(self, previous: Step) -> Step | None:
        """Start the forward pass of the tokens just chosen; None where no row can want another token."""
        rows, tokens = previous.rows, previous.tokens
        alive = [
            i for i, r in enumerate(rows) if r.finish is None and self.chosen[i] < r.spec.sampling.max_tokens
        ]
        if not alive:
            return None
        if len(alive) < len(rows) and self.caches.selectable:
            rows, tokens = [rows[i] for i in alive], tokens[mx.array(alive)]
            self.positions = self.positions[alive]
            self.chosen = [self.chosen[i] for i in alive]
            self.caches.select(alive)
            self.schedule.select(alive)
            self.sampler.select(alive)
        reads: Reads = {}
        readings = observe(rows, range(len(rows)), reads)
        kept = self._capture_step(rows, reads)
        self.schedule.step(self.positions, reads)
        with running(self.stations.values()):
            logits = self.engine.model(tokens[:, None], cache=self.caches.layers)[:, -1].astype(mx.float32)
        self.positions = self.positions + 1
        chosen, logprobs = self.sampler.choose(logits, self.chosen)
        self.chosen = [n + 1 for n in self.chosen]
        return Step(list(rows), chosen, logprobs, readings, kept)

    def _capture_step(self, rows: Sequence[Row], reads: Reads) -> list[Captured]:
        places: dict[tuple[Site, str], list[tuple[Row, np.ndarray, int]]] = {}
        for i, row in enumerate(rows):
            if row.spec.capture and row.finish is None and row.captures(int(self.positions[i])):
                for site in row.states:
                    places.setdefault((site, row.spec.capture.at), []).append((row, np.zeros(1, np.int64), i))
        return [gathered(key, members, reads) for key, members in places.items()]


def _chunks(length: int, size: int) -> list[tuple[int, int]]:
    """Pieces of a prompt. The last token goes alone: only its logits are wanted, and what nobody asks for is never
    computed, so that the other pieces cost no product with the vocabulary."""
    cuts = [*range(0, length - 1, size), length - 1, length]
    return list(itertools.pairwise(cuts))
