"""A soak: many concurrent requests of many kinds, some aborted, each compared with what its kind gives alone."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from engines.subjects import Subject
from engines.vllm_cases import base, mixed
from trimtab.directions import ConceptVectors
from trimtab.engines.vllm.generation import Batch, Order
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.sites import Site

TOKENS, THREADS = 6, 4


@dataclass
class Found:
    """What a request brought back."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    readings: list[np.ndarray] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)


class Soak:
    """`run(count)` requests of random kinds at once, from four threads; `worst` is the largest difference in nats."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.engine = subject, cast(Any, subject.engine)
        self.kinds = self._kinds()
        self.alone = [self._run([order])[0] for order in self.kinds]
        self.worst, self.finished, self.aborted, self.states = 0.0, 0, 0, 0
        # Or the comparison says nothing.
        assert len({(*f.tokens, *np.round(f.logprobs, 3)) for f in self.alone}) > 30
        assert np.mean([np.abs(f.logprobs).mean() for f in self.alone]) > 0.1
        self._draw = random.Random(0)

    def _kinds(self) -> list[Order]:
        """Every plan of the mixed batch on prompts of its own length; some capture, some read, some share prompts."""
        from vllm.sampling_params import RequestOutputKind

        s, engine = self.subject, self.engine
        readout = Readout.from_vectors(ConceptVectors.from_directions([s.direction(Site(1), 5)]))
        kinds, plans = [], mixed(s)
        for i, plan in enumerate([*plans.values()] * 3):
            prompt = Prompt(base(100 + i % 20)[: 120 if i % 5 == 0 else 40 + i])
            params = {
                "max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True, "logprobs": 0,
                "output_kind": RequestOutputKind.DELTA,
            }  # fmt: skip
            wants: dict[str, Any] = {}
            if i % 3 == 0:
                wants = {"sites": (Site(i % 4),), "ranges": ((0, None),)}
            if i % 4 == 0:
                wants["readout"] = readout
            kinds.append(Order(prompt.tokens, engine.resolve(plan, prompt), params, **wants))
        return kinds

    def _run(self, orders: list[Order], abort: frozenset[int] = frozenset()) -> dict[int, Found]:
        """What each brings back. Of those to abort, some go before anything of theirs has come, however busy the
        machine is; the others after two tokens, where these are seen before the last."""
        found = {i: Found() for i in range(len(orders))}
        early = {i for i in abort if i % 2}
        batch = Batch(self.engine, orders)
        try:
            for i, output in batch:
                for other in early - {i}:
                    batch.drop(other)
                    del found[other]
                early = set()
                got, order, done = found[i], orders[i], output.outputs[0]
                for token, table in zip(done.token_ids, done.logprobs, strict=True):
                    if order.readout is not None:
                        reading = batch.reading(i, len(order.tokens) - 1 + len(got.tokens))
                        assert reading is not None
                        got.readings.append(reading)
                    got.tokens.append(int(token))
                    got.logprobs.append(table[token].logprob)
                if output.finished:
                    end = len(order.tokens) + TOKENS - 1
                    batch.whole(i, output.num_cached_tokens or 0, end)
                    got.states = [batch.rows(i, site, np.arange(end)) for site in order.sites]
                elif i in abort and len(got.tokens) >= 2:
                    batch.drop(i)
                    del found[i]
        finally:
            batch.close()
        return found

    def run(self, count: int) -> None:
        """All of them are under way together."""
        chosen = [self._draw.randrange(len(self.kinds)) for _ in range(count)]
        dropped = {i for i in range(count) if self._draw.random() < 0.2}
        errors: list[BaseException] = []

        def part(first: int) -> None:
            mine = range(first, count, THREADS)
            try:
                orders = [self.kinds[chosen[i]] for i in mine]
                found = self._run(orders, frozenset(n for n, i in enumerate(mine) if i in dropped))
                for n, i in enumerate(mine):
                    if n in found:
                        self._compare(found[n], self.alone[chosen[i]])
                    else:
                        self.aborted += 1
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=part, args=(n,)) for n in range(THREADS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if errors:
            raise errors[0]

    def _compare(self, got: Found, want: Found) -> None:
        assert got.tokens == want.tokens
        self.worst = max(self.worst, float(np.abs(np.subtract(got.logprobs, want.logprobs)).max()))
        for a, b in zip(got.states + got.readings, want.states + want.readings, strict=True):
            self.subject.same_states(a, b, Site(0))
            self.states += 1
        self.finished += 1

    def memory(self) -> float:
        """Megabytes of vLLM's processes, the front end left out."""
        import psutil

        return sum(p.memory_info().rss for p in psutil.Process().children(recursive=True)) / 1e6
