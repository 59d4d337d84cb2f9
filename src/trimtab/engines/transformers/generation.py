"""Batched decoding where every row has its own plan, sampling and captures.

Rows whose prompts are equal and whose plans do the same to them are prefilled once and then copied (plans that act on
generated tokens only do nothing to a prompt), rows that have finished leave the batch, and what is read
of the states is read inside the forward pass that computes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trimtab.engines.requests import Event, Request
from trimtab.engines.rows import Row
from trimtab.engines.transformers.capture import Gather, Places
from trimtab.engines.transformers.forward import Padded, batches, bytes_per_token
from trimtab.engines.transformers.sampler import Sampler
from trimtab.engines.transformers.stations import Read, Schedule, Station, sites_of
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.transformers.engine import TransformersEngine

#: Rows and logits (floats) of a batch, and bytes of its keys and values.
BATCH_ROWS, BATCH_LOGITS, CACHE_BYTES = 512, 1 << 26, 2 << 30
#: A batch is rebuilt without its finished rows once so large a share of it has finished.
COMPACT = 0.2

Reads = dict[tuple[Site, str], list[Read]]


def generate(engine: TransformersEngine, requests: Sequence[Request], stream: bool) -> Iterator[Event]:
    """Events of prepared requests; without `stream` only the last one of each sample."""
    rows = [
        Row(i, j, r, engine.encoder, engine.ends, stream)
        for i, r in enumerate(requests)
        for j in range(r.sampling.n)
    ]
    lengths = [len(r.prompt) + r.spec.sampling.max_tokens for r in rows]
    count = max(1, min(BATCH_ROWS, BATCH_LOGITS // (engine.info.vocab_size or 1)))
    for batch in batches(lengths, CACHE_BYTES // bytes_per_token(engine.model), count):
        yield from Batch(engine, [rows[i] for i in batch]).run()


class Batch:
    """Rows that run together."""

    def __init__(self, engine: TransformersEngine, rows: list[Row]) -> None:
        self.engine, self.rows = engine, rows
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
        self.unique = [firsts[u][0] for u in range(len(same))]
        self.begin = [firsts[u][1] for u in range(len(same))]
        self.observed: list[_Reading] = []

    def run(self) -> Iterator[Event]:
        """Prefill, then one token per row and step."""
        engine, wanted = self.engine, sites_of(r.plan for r in self.rows)
        for row in self.rows:
            wanted |= set(row.states) | set(row.spec.readout.sites if row.spec.readout else ())
            wanted |= sites_of(row.spec.monitor.plans) if row.spec.monitor else set()
        with engine.stations.installed(wanted) as stations:
            logits = self._prefill(stations)
            sampler = Sampler([(r.spec.sampling, r.index) for r in self.rows], logits.device)
            step = 0
            while True:
                tokens, logprobs = sampler.choose(logits, step)
                plans = [r.plan for r in self.rows]
                yield from self._advance(tokens.tolist(), logprobs.tolist())
                if all(r.finish for r in self.rows):
                    return
                if any(r.plan is not p for r, p in zip(self.rows, plans, strict=True)):
                    self.schedule = Schedule(stations, [r.plan for r in self.rows])
                tokens = self._compact(tokens, sampler)
                logits = self._decode(tokens, stations)
                step += 1

    @torch.inference_mode()
    def _prefill(self, stations: dict[Site, Station]) -> torch.Tensor:
        """Logits [rows, V] after every row's prompt."""
        engine = self.engine
        padded = Padded.of([r.prompt.tokens for r in self.unique], engine.forward.device)
        longest = padded.ids.shape[1]
        room = longest + max(r.spec.sampling.max_tokens for r in self.rows)
        self.cache = engine.forward.cache(room)
        self.schedule = Schedule(stations, self.begin)
        pads = padded.pads[self.source]
        gathers = self._prompt_gathers(padded.pads)
        reads = self._observe(self.source)
        for (site, at), gather, _, _ in gathers:
            reads.setdefault((site, at), []).append(gather)
        self.schedule.prepare(padded.positions, reads)
        logits = engine.run(padded.ids, padded.positions, padded.mask, stations, self.cache)[:, -1]
        for (site, _), gather, row, _ in gathers:
            row.states[site].append(gather.take())
        self.mask = padded.mask
        self.positions = np.array([len(r.prompt) for r in self.rows])
        if self.source != list(range(len(self.rows))) or len(self.unique) != len(self.rows):
            logits = self._take(self.source, logits)
        self.schedule = Schedule(
            stations, [r.plan for r in self.rows]
        )  # a prefill knew what acts on prompts only
        self.pads = pads
        return logits.float()

    def _prompt_gathers(self, pads: np.ndarray) -> list[tuple[tuple[Site, str], Gather, Row, int]]:
        """What is captured of prompts: one gather per row and site."""
        found = []
        for row, u in zip(self.rows, self.source, strict=True):
            positions = row.prompt_rows() if row.spec.capture else np.empty(0, np.int64)
            if len(positions):
                assert row.spec.capture is not None
                for site in row.states:
                    gather = Gather(Places.at(np.full(len(positions), u), positions + pads[u]))
                    found.append(((site, row.spec.capture.at), gather, row, u))
        return found

    def _take(self, index: Sequence[int], logits: torch.Tensor | None = None) -> Any:
        """Reorder the cache, the mask and the schedule to the batch rows `index` (repeats allowed)."""
        picks = torch.tensor(index, device=self.engine.forward.device)
        self.cache.reorder_cache(picks)  # type: ignore[arg-type]
        self.schedule.select(index)
        if self.mask is not None:
            self.mask = self.mask[picks]
        return None if logits is None else logits[picks.to(logits.device)]

    def _advance(self, tokens: list[int], logprobs: list[float]) -> Iterator[Event]:
        readings = self._readings()
        for i, row in enumerate(self.rows):
            if row.finish is not None:
                continue
            event = row.advance(tokens[i], logprobs[i], readings.get(i))
            if event is not None:
                yield event
            if row.finish is not None:
                yield row.close()

    @torch.inference_mode()
    def _compact(self, tokens: torch.Tensor, sampler: Sampler) -> torch.Tensor:
        """Drop finished rows when enough have finished."""
        alive = [i for i, r in enumerate(self.rows) if r.finish is None]
        if len(alive) > (1 - COMPACT) * len(self.rows):
            return tokens
        self.rows = [self.rows[i] for i in alive]
        self.positions = self.positions[alive]
        self._take(alive)
        sampler.select(alive)
        return tokens[torch.tensor(alive, device=tokens.device)]

    @torch.inference_mode()
    def _decode(self, tokens: torch.Tensor, stations: dict[Site, Station]) -> torch.Tensor:
        """Logits [B, V] after one more token per row."""
        engine = self.engine
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        reads = self._observe(range(len(self.rows)))
        kept = self._step_gathers(reads)
        self.schedule.step(self.positions, reads)
        ids = tokens[:, None].to(engine.forward.device)
        logits = engine.run(ids, self.positions[:, None], self.mask, stations, self.cache)[:, -1]
        for site, gather, rows in kept:
            for row, state in zip(rows, gather.take(), strict=True):
                row.states[site].append(state)
        self.positions = self.positions + 1
        return logits.float()

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

    # --- readings of the states that emit tokens ---------------------------------------------------------------

    def _observe(self, source: Sequence[int]) -> Reads:
        """Reads of the last column for every readout among the rows; row i is batch row `source[i]`."""
        members: dict[int, list[int]] = {}
        for i, row in enumerate(self.rows):
            if row.spec.readout is not None and row.finish is None:
                members.setdefault(id(row.spec.readout), []).append(i)
        self.observed, reads = [], {}
        for rows in members.values():
            readout = self.rows[rows[0]].spec.readout
            assert readout is not None
            found = _Reading(readout, rows, np.array([source[i] for i in rows]))
            self.observed.append(found)
            for site in readout.sites:
                reads.setdefault((site, readout.at), []).append(found.reader(site))
        return reads

    def _readings(self) -> dict[int, np.ndarray]:
        """The reading [L, C] of each observed row's last state."""
        return {i: value for o in self.observed for i, value in zip(o.rows, o.values(), strict=True)}


class _Reading:
    """Scores of one readout over some rows of a batch, one matrix product per site."""

    def __init__(self, readout: Readout, rows: list[int], source: np.ndarray) -> None:
        self.readout, self.rows, self.source = readout, rows, torch.from_numpy(source)
        self.found: dict[Site, np.ndarray] = {}

    def reader(self, site: Site) -> Read:
        def read(h: torch.Tensor) -> None:
            states = h[self.source.to(h.device), -1].float()
            matrix = torch.tensor(self.readout.rows[site], dtype=torch.float32, device=h.device)
            self.found[site] = (states @ matrix.T).cpu().numpy()

        return read

    def values(self) -> np.ndarray:
        """Calibrated scores [rows, L, C] float32."""
        r = self.readout
        scores = [(self.found[s] - r.offset[s]) / r.scale[s] for s in r.sites]
        return np.stack(scores, axis=1).astype(np.float32)
