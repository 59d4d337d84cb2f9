"""Batched decoding where every row has its own plan, sampling and captures.

The device runs one step ahead of the host: while the tokens of a step are looked at, the next step is under way. Rows
that end meanwhile are computed once too often, and what that extra step captured is dropped, so that captures and
readings are exactly those of the tokens that were let out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from trimtab.engines.mlx.capture import Gather, batches
from trimtab.engines.mlx.forward import Caches, left_padded
from trimtab.engines.mlx.prefix import Prefix
from trimtab.engines.mlx.sampler import Sampler
from trimtab.engines.mlx.schedule import Reads, Schedule, sites_of
from trimtab.engines.mlx.stations import Station, running
from trimtab.engines.requests import Event, Request
from trimtab.engines.rows import Row
from trimtab.readouts import Readout
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.mlx.engine import MLXEngine

#: Rows of a batch, and tokens (prompt and new) that its caches may hold.
BATCH_ROWS, BATCH_TOKENS = 256, 1 << 18
#: Prompt tokens per forward pass of a long prompt.
CHUNK = 2_048


def generate(
    engine: MLXEngine, requests: Sequence[Request], stream: bool, prefix: Prefix | None = None
) -> Iterator[Event]:
    """Events of prepared requests; without `stream` only the last one of each sample."""
    rows = [
        Row(i, j, r, engine.encoder, engine.ends, stream)
        for i, r in enumerate(requests)
        for j in range(r.sampling.n)
    ]
    lengths = [len(r.prompt) + r.spec.sampling.max_tokens for r in rows]
    for batch in batches(lengths, BATCH_TOKENS, BATCH_ROWS):
        members = [rows[i] for i in batch]
        if prefix is not None:
            groups = [members] if prefix.repeatable else [[row] for row in members]
        else:
            groups = [members] if engine.ragged else _of_equal_length(members)
        for group in groups:
            yield from Batch(engine, group, prefix).run()


def _of_equal_length(rows: Sequence[Row]) -> list[list[Row]]:
    """Rolling or recurrent caches cannot be padded: rows of one prompt length run together."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(len(row.prompt), []).append(row)
    return list(groups.values())


@dataclass(eq=False)
class Step:
    """What one forward pass gives, still on the device: a token per row, and what was read of the states before it."""

    rows: list[Row]
    tokens: mx.array
    logprobs: mx.array
    readings: list[Scores] = field(default_factory=list)
    captured: list[tuple[Site, Gather, list[tuple[Row, int]]]] = field(default_factory=list)

    @property
    def arrays(self) -> list[mx.array | None]:
        """Everything to evaluate."""
        found: list[mx.array | None] = [self.tokens, self.logprobs]
        found += [a for r in self.readings for a in r.found.values()]
        return found + [g.states for _, g, _ in self.captured]

    def deliver(self) -> Iterator[Event]:
        """Hand every row that still runs its token, with what was captured and read for it."""
        tokens: Any = self.tokens.tolist()
        logprobs: Any = self.logprobs.tolist()
        readings = {i: v for r in self.readings for i, v in zip(r.rows, r.values(), strict=True)}
        for site, gather, places in self.captured:
            table = np.array(gather.states)
            at = 0
            for row, count in places:
                if row.finish is None:
                    row.states[site].append(table[at : at + count])
                at += count
        for i, row in enumerate(self.rows):
            if row.finish is None:
                event = row.advance(tokens[i], logprobs[i], readings.get(i))
                if event is not None:
                    yield event
                if row.finish is not None:
                    yield row.close()


class Scores:
    """Coordinates of one readout over some rows' last states, one matrix product per site."""

    def __init__(self, readout: Readout, rows: list[int], source: Sequence[int]) -> None:
        self.readout, self.rows, self._source = readout, rows, mx.array(list(source))
        self.found: dict[Site, mx.array] = {}

    def reader(self, site: Site):
        """What keeps the coordinates when `site` passes by."""

        def read(h: mx.array) -> None:
            self.found[site] = h[self._source, -1].astype(mx.float32) @ mx.array(self.readout.rows[site]).T

        return read

    def values(self) -> np.ndarray:
        """Calibrated scores [rows, L, C] float32."""
        r = self.readout
        scores = [(np.array(self.found[s]) - r.offset[s]) / r.scale[s] for s in r.sites]
        return np.stack(scores, axis=1).astype(np.float32)


class Batch:
    """Rows that run together."""

    def __init__(self, engine: MLXEngine, rows: list[Row], prefix: Prefix | None = None) -> None:
        self.engine, self.rows, self.prefix = engine, rows, prefix

    def run(self) -> Iterator[Event]:
        """Prefill, then one token per row and step, one step ahead."""
        wanted = sites_of(r.plan for r in self.rows)
        for row in self.rows:
            wanted |= set(row.states) | set(row.spec.readout.sites if row.spec.readout else ())
            wanted |= sites_of(row.spec.monitor.plans) if row.spec.monitor else set()
        # A monitor may change what the next step does, which then cannot begin before it has seen this one.
        waits = any(r.spec.monitor is not None and r.spec.monitor.plans for r in self.rows)
        stations = self.engine.stations.at(wanted)
        self.sampler = Sampler([(r.spec.sampling, r.index) for r in self.rows])
        current: Step | None = self._prefill(stations)
        number = 0
        while current is not None:
            number += 1
            mx.async_eval([a for a in current.arrays if a is not None])
            if waits:
                yield from self._deliver(current, stations)
            ahead = self._decode(current, number, stations)
            if ahead is not None:
                mx.async_eval([a for a in ahead.arrays if a is not None])
            if not waits:
                yield from current.deliver()
            current = ahead if any(r.finish is None for r in self.rows) else None

    def _deliver(self, step: Step, stations: dict[Site, Station]) -> Iterator[Event]:
        """`Step.deliver`, and the plans that monitors changed meanwhile take effect."""
        plans = [r.plan for r in step.rows]
        yield from step.deliver()
        if any(r.plan is not p for r, p in zip(step.rows, plans, strict=True)):
            self.schedule = Schedule(stations, [r.plan for r in step.rows], self.engine.dtype)

    def _prefill(self, stations: dict[Site, Station]) -> Step:
        """The first token of every row; equal (prompt, plan) pairs are computed once where caches can be copied."""
        engine = self.engine
        same: dict[tuple[tuple[int, ...], str], int] = {}
        share = self.prefix is None and Caches(engine.model, []).selectable
        key = [(r.prompt.tokens, r.plan.fingerprint if share else str(i)) for i, r in enumerate(self.rows)]
        source = [same.setdefault(k, len(same)) for k in key]
        unique = [self.rows[source.index(u)] for u in range(len(same))]
        ids, positions = left_padded([r.prompt.tokens for r in unique])
        self.caches = Caches(engine.model, [int(-p[0]) for p in positions])
        chunks = _chunks(ids.shape[1])
        if self.prefix is not None:
            self.caches.layers, chunks = self.prefix.copies(len(unique)), chunks[-1:]
        self.schedule = Schedule(stations, [r.plan for r in unique], engine.dtype)
        self.captured: list[tuple[Site, Gather, list[tuple[Row, int]]]] = []
        logits, readings = None, []
        for start, stop in chunks:
            part, final = positions[:, start:stop], stop == ids.shape[1]
            reads: Reads = {}
            readings = self._observe(source, reads) if final else []
            kept = self._capture_prompts(source, part, reads)
            self.schedule.prepare(part, reads)
            with running(stations.values()):
                logits = engine.model(ids[:, start:stop], cache=self.caches.layers)
            self.captured += kept
            mx.eval([*self.caches.state, *(g.states for _, g, _ in kept)])
        assert logits is not None
        if source != list(range(len(self.rows))) or len(unique) != len(self.rows):
            self.caches.select(source)
            self.schedule.select(source)
        self.positions = np.array([len(r.prompt) for r in self.rows])
        last = logits[:, -1][mx.array(source)].astype(mx.float32)
        tokens, logprobs = self.sampler.choose(last, 0)
        return Step(list(self.rows), tokens, logprobs, readings, self.captured)

    def _capture_prompts(
        self, source: Sequence[int], part: np.ndarray, reads: Reads
    ) -> list[tuple[Site, Gather, list[tuple[Row, int]]]]:
        """What is captured of this chunk of the prompts: one gather per site and moment."""
        places: dict[tuple[Site, str], list[tuple[Row, np.ndarray, int]]] = {}
        for row, u in zip(self.rows, source, strict=True):
            if row.spec.capture is None:
                continue
            columns = np.flatnonzero(np.isin(part[u], row.prompt_rows()))
            if len(columns):
                for site in row.states:
                    places.setdefault((site, row.spec.capture.at), []).append((row, columns, u))
        return [_gather(key, members, reads) for key, members in places.items()]

    def _decode(self, previous: Step, number: int, stations: dict[Site, Station]) -> Step | None:
        """Start the forward pass of the tokens just chosen; None where no row can want another token."""
        alive = [
            i for i, r in enumerate(previous.rows) if r.finish is None and number < r.spec.sampling.max_tokens
        ]
        if not alive:
            return None
        tokens = previous.tokens
        if len(alive) < len(previous.rows) and self.caches.selectable:
            tokens = tokens[mx.array(alive)]
            self.positions = self.positions[alive]
            self.caches.select(alive)
            self.schedule.select(alive)
            self.sampler.select(alive)
            rows = [previous.rows[i] for i in alive]
        else:
            rows = previous.rows
        reads: Reads = {}
        self.rows_here = rows
        readings = self._observe(range(len(rows)), reads, rows)
        kept = self._capture_step(rows, reads)
        self.schedule.step(self.positions, reads)
        with running(stations.values()):
            logits = self.engine.model(tokens[:, None], cache=self.caches.layers)[:, -1].astype(mx.float32)
        self.positions = self.positions + 1
        chosen, logprobs = self.sampler.choose(logits, number)
        return Step(list(rows), chosen, logprobs, readings, kept)

    def _capture_step(
        self, rows: Sequence[Row], reads: Reads
    ) -> list[tuple[Site, Gather, list[tuple[Row, int]]]]:
        places: dict[tuple[Site, str], list[tuple[Row, np.ndarray, int]]] = {}
        for i, row in enumerate(rows):
            if row.spec.capture and row.finish is None and row.captures(int(self.positions[i])):
                for site in row.states:
                    places.setdefault((site, row.spec.capture.at), []).append((row, np.zeros(1, np.int64), i))
        return [_gather(key, members, reads) for key, members in places.items()]

    def _observe(
        self, source: Sequence[int], reads: Reads, rows: Sequence[Row] | None = None
    ) -> list[Scores]:
        """Reads of the last column for every readout among the rows; row i is batch row `source[i]`."""
        members: dict[int, list[int]] = {}
        chosen = self.rows if rows is None else rows
        for i, row in enumerate(chosen):
            if row.spec.readout is not None and row.finish is None:
                members.setdefault(id(row.spec.readout), []).append(i)
        found = []
        for index in members.values():
            readout = chosen[index[0]].spec.readout
            assert readout is not None
            found.append(Scores(readout, index, [source[i] for i in index]))
            for site in readout.sites:
                reads.setdefault((site, readout.at), []).append(found[-1].reader(site))
        return found


def _chunks(length: int) -> list[tuple[int, int]]:
    """Pieces of a prompt. The last token goes alone: only its logits are wanted, and what nobody asks for is never
    computed, so that the other pieces cost no product with the vocabulary."""
    cuts = [*range(0, length - 1, CHUNK), length - 1, length]
    return list(itertools.pairwise(cuts))


def _gather(
    key: tuple[Site, str], members: Sequence[tuple[Row, np.ndarray, int]], reads: Reads
) -> tuple[Site, Gather, list[tuple[Row, int]]]:
    rows = np.concatenate([np.full(len(columns), u) for _, columns, u in members])
    gather = Gather(rows, np.concatenate([columns for _, columns, _ in members]))
    reads.setdefault(key, []).append(gather)
    return key[0], gather, [(row, len(columns)) for row, columns, _ in members]
