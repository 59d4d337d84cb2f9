"""Requests of trimtab as requests of vLLM, one for every sample, and their outputs as events."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from trimtab.engines.batches import places_of, rows_at
from trimtab.engines.exactness import rows_of
from trimtab.engines.handles import CaptureHandle
from trimtab.engines.requests import Event, Request, Sampling
from trimtab.engines.rows import Row
from trimtab.engines.vllm.boarding import Order, board, check_ended, distrust, reading_of
from trimtab.engines.vllm.ledger import Record
from trimtab.engines.vllm.loop import Flight
from trimtab.errors import SteeringLost
from trimtab.prompts import Prompt, Range
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.vllm.engine import VllmEngine

T = TypeVar("T")


class Batch:
    """Orders that are under way together, with what the workers must hold for them. Close it, always."""

    def __init__(self, engine: VllmEngine, orders: Sequence[Order]) -> None:
        self.engine, self.orders = engine, orders
        self.records: list[Record | None] = []
        self._held: list[tuple[str, ...]] = []
        self._flight: Flight | None = None
        try:
            self._flight = Flight(engine.loop, [self._board(o) for o in orders])
        except BaseException:
            self.close()
            raise

    def _board(self, order: Order) -> tuple[str, tuple[int, ...], Any]:
        engine, key = self.engine, self.engine.new_key()
        params = engine.sampling(**order.params, detokenize=False)
        if order.tells:
            self.records.append(engine.ledger.open(key, len(order.tokens) + (params.max_tokens or 0)))
            board(engine, order, key, params, self._held)
        else:
            self.records.append(None)
        return key, order.tokens, params

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """(index, output of vLLM) until every order is finished or dropped."""
        assert self._flight is not None
        self.open = set(range(len(self.orders)))
        while self.open:
            index, output = self._flight.next()
            if index in self.open:
                if output.finished:
                    self.open.discard(index)
                    self._trusting(check_ended, output.outputs[0])
                yield index, output

    def drop(self, index: int) -> None:
        """Enough of this one."""
        assert self._flight is not None
        if index in self.open:
            self.open.discard(index)
            self._flight.drop(index)

    def reading(self, index: int, position: int) -> np.ndarray | None:
        """The calibrated reading [L, C] of the state at a position; waits for it. None without a readout."""
        readout, record = self.orders[index].readout, self.records[index]
        if readout is None or record is None:
            return None
        return self._trusting(reading_of, self.engine, record, readout, position)

    def whole(self, index: int, cached: int, end: int) -> None:
        """Wait for the receipt of every position in [cached, end)."""
        record = self.records[index]
        if record is not None:
            self._trusting(self.engine.ledger.whole, record, cached, end)

    def rows(self, index: int, site: Site, positions: np.ndarray) -> np.ndarray:
        """Captured states [n, width] at positions."""
        record = self.records[index]
        assert record is not None
        return record.rows(site.layer, positions)

    def handle(self, index: int, positions: np.ndarray) -> CaptureHandle:
        """What was captured at positions, unread."""
        order, record = self.orders[index], self.records[index]
        assert record is not None
        return record.handle(order.sites, positions, order.at, self.engine.info.hidden_size)

    def _trusting(self, call: Callable[..., T], *args: Any) -> T:
        try:
            return call(*args)
        except SteeringLost:
            distrust(self.engine)
            raise

    def close(self) -> None:
        """Abort what still runs and let go of what was held."""
        if self._flight is not None:
            self._flight.close()
        for record in self.records:
            if record is not None:
                self.engine.ledger.close(record.key)
        for names in self._held:
            self.engine.shelf.release(names)
        self.records, self._held = [], []


def generate(engine: VllmEngine, requests: Sequence[Request], stream: bool) -> Iterator[Event]:
    """Events of prepared requests; without `stream` only the last one of each sample."""
    rows = rows_at(engine, places_of(requests), stream)
    batch = Batch(engine, [_order(engine, row, stream) for row in rows])
    cached = [0] * len(rows)
    try:
        for index, output in batch:
            row, done = rows[index], output.outputs[0]
            cached[index] = max(cached[index], output.num_cached_tokens or 0)
            for token, table in zip(done.token_ids, done.logprobs, strict=True):
                reading = batch.reading(index, len(row.prompt) - 1 + len(row.tokens))
                event = row.advance(int(token), table[token].logprob, reading)
                if event is not None:
                    yield event
                if row.finish is not None:
                    break
            if row.finish is not None:
                batch.drop(index)
                yield _close(batch, index, row, cached[index])
            elif output.finished:
                raise SteeringLost(
                    f"vLLM ended a request early ({done.finish_reason}); its output is withheld"
                )
    finally:
        batch.close()


def _seed(sampling: Sampling, index: int) -> int | None:
    """vLLM's generators cannot be wound forward: a sample that goes on gets a seed that nothing else has."""
    if sampling.seed is None or sampling.resumes is None:
        return None if sampling.seed is None else sampling.seed + index
    return zlib.crc32(repr((sampling.seed, sampling.resumes)).encode())


def _order(engine: VllmEngine, row: Row, stream: bool) -> Order:
    from vllm.sampling_params import RequestOutputKind

    spec, sampling = row.spec, row.spec.sampling
    watched = stream or bool(sampling.stop) or spec.readout is not None
    params = {
        "n": 1,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": _seed(sampling, row.index),
        "max_tokens": sampling.max_tokens,
        "ignore_eos": sampling.ignore_eos,
        "stop_token_ids": [] if sampling.ignore_eos else sorted(engine.ends),
        "logprobs": 0,
        "output_kind": RequestOutputKind.DELTA if watched else RequestOutputKind.FINAL_ONLY,
    }
    return Order.of(row.prompt, row.plan, params, spec.capture, spec.readout)


def _close(batch: Batch, index: int, row: Row, cached: int) -> Event:
    """The last event of a sample, once its receipt is whole."""
    processed = len(row.prompt) + len(row.tokens) - 1
    batch.whole(index, cached, processed)
    order = batch.orders[index]
    if order.sites:
        row.handle = batch.handle(index, rows_of(order.ranges, processed))
    return row.close()


def capture(
    engine: VllmEngine,
    items: Sequence[tuple[Prompt, np.ndarray, ResolvedPlan]],
    sites: Sequence[Site],
    at: str,
) -> list[dict[Site, np.ndarray]]:
    """States [n, width] of each (prompt, positions [n], plan) at each site."""
    orders = [
        Order(p.tokens, plan, {"max_tokens": 1, "temperature": 0.0}, tuple(sites), _ranges(positions), at)
        for p, positions, plan in items
    ]
    found: list[dict[Site, np.ndarray]] = [{} for _ in orders]
    batch = Batch(engine, orders)
    try:
        for index, output in batch:
            if output.finished:
                prompt, positions, _ = items[index]
                batch.whole(index, output.num_cached_tokens or 0, len(prompt))
                found[index] = {s: batch.rows(index, s, positions) for s in sites}
    finally:
        batch.close()
    return found


def _ranges(positions: np.ndarray) -> tuple[Range, ...]:
    """Ascending positions as half-open ranges."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    return tuple((int(p[0]), int(p[-1]) + 1) for p in np.split(positions, breaks))
