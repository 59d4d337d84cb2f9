"""How each engine is started for a verification, so that what is rare happens, and how one sees that it did.

Checks use the engine's public face; the few things that have none (blocks that were thrown out, a worker that forgets)
are here, one stand per engine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.conformance.registry import FEATURES, NotRun
from trimtab.engines.base import Engine
from trimtab.errors import UnknownName
from trimtab.resolved import ResolvedPlan


@dataclass(frozen=True)
class Direct:
    """A request sent straight to the server under an id of the client's choice, with its own n samples."""

    id: str
    tokens: tuple[int, ...]
    plan: ResolvedPlan
    n: int = 1
    new: int = 6
    temperature: float = 0.0


@dataclass(frozen=True, eq=False)
class Answer:
    """One of its samples; `cached` tokens of the prompt were not computed."""

    tokens: tuple[int, ...]
    logprobs: np.ndarray
    cached: int


class Stand:
    """An engine that needs nothing special."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.has = FEATURES[engine]
        self.chunk = 0  # tokens of a prompt that are read at once; 0 without chunks
        self.block = 0  # tokens of a block of the prefix cache
        self.bank = 0  # rows of the bank of vectors
        self.batch = 16  # requests that certainly run at the same time

    def options(self, context: int | None, layers: int | None) -> dict[str, Any]:
        """Options of `load`, for a model of this context and depth."""
        return {}

    def in_chunks(self, engine: Engine) -> Engine:
        """The engine that reads prompts in chunks."""
        return engine

    def preemptions(self, engine: Engine) -> int:
        """How often a running request has been thrown out."""
        raise NotRun(f"the {self.engine} engine preempts nothing")

    def held(self, engine: Engine) -> int:
        """What is held for requests; 0 when nothing runs and nothing has leaked."""
        return 0

    def forget(self, engine: Engine, plan: ResolvedPlan) -> None:
        """Make the workers lose the vectors of a plan, as after a restart."""
        raise NotRun(f"the {self.engine} engine has no workers")

    def register_again(self) -> None:
        """Load the plugin once more in this process."""
        raise NotRun(f"the {self.engine} engine has no plugin")

    def send(self, engine: Engine, requests: Sequence[Direct]) -> list[list[Answer]]:
        """Samples of requests that run together, past trimtab's own front."""
        raise NotRun(f"the {self.engine} engine has no other front")


class ReferenceStand(Stand):
    """The numpy model; a second copy reads prompts in chunks."""

    def __init__(self) -> None:
        super().__init__("reference")
        self.chunk = 7

    def in_chunks(self, engine: Engine) -> Engine:
        """A copy; its weights are made, not loaded."""
        return type(engine).load(chunk=self.chunk)  # type: ignore[attr-defined]


class VllmStand(Stand):
    """vLLM with small chunks, and with fewer blocks than a full batch needs."""

    def __init__(self) -> None:
        super().__init__("vllm")
        self.chunk, self.block, self.bank = 96, 32, 256

    def options(self, context: int | None, layers: int | None) -> dict[str, Any]:
        """Chunks of 96 tokens, 16 requests at once, blocks for about three quarters of them."""
        length = min(context or 512, 512)
        longest = min(length, 300)
        blocks = max(-(-length // self.block) + 1, 12 * -(-longest // self.block))
        self.bank = max(self.bank, 8 * (layers or 0))
        return {
            "block_size": self.block,
            "max_num_seqs": self.batch,
            "max_num_batched_tokens": self.chunk,
            "max_model_len": length,
            "num_gpu_blocks_override": blocks,
            "disable_log_stats": False,
            "bank": self.bank,
        }

    def preemptions(self, engine: Engine) -> int:
        """vLLM's own count."""
        from vllm.v1.metrics.reader import get_metrics_snapshot

        time.sleep(0.2)  # counted just after the last output is handed out
        found = [m for m in get_metrics_snapshot() if m.name == "vllm:num_preemptions"]
        return int(sum(m.value for m in found))  # type: ignore[attr-defined]

    def held(self, engine: Any) -> int:
        """Programs and rows in the workers, open records here."""
        counts = engine.loop.call("trimtab_counts")
        return sum(c["programs"] + c["bank"] for c in counts) + len(engine.ledger)

    def forget(self, engine: Any, plan: ResolvedPlan) -> None:
        """Drop the arrays in the workers alone: the front end still believes that they are there."""
        names = engine.shelf.hold(plan.vectors)
        engine.shelf.release(names)
        engine.loop.call("trimtab_drop", list(names))

    def register_again(self) -> None:
        """What vLLM does in every process, a second and a third time."""
        from trimtab.engines.vllm import plugin

        plugin.register()
        plugin.register()

    def send(self, engine: Any, requests: Sequence[Direct]) -> list[list[Answer]]:
        """vLLM's own `generate`, with the plan in `extra_args` as the HTTP server puts it there."""

        async def together() -> list[Any]:
            return await asyncio.gather(*(_final(engine, r, keys[i]) for i, r in enumerate(requests)))

        keys = [engine.new_key() for _ in requests]
        held = [engine.shelf.hold(r.plan.vectors) for r in requests]
        records = [engine.ledger.open(k, len(r.tokens) + r.new) for k, r in zip(keys, requests, strict=True)]
        try:
            outputs = engine.loop.submit(together()).result(timeout=300)
            for r, record, output in zip(requests, records, outputs, strict=True):
                if r.plan.effective:
                    engine.ledger.whole(record, output.num_cached_tokens or 0, len(r.tokens))
        finally:
            for key, names in zip(keys, held, strict=True):
                engine.ledger.close(key)
                engine.shelf.release(names)
        return [[_answer(output, done) for done in output.outputs] for output in outputs]


async def _final(engine: Any, request: Direct, key: str) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from trimtab.engines.vllm.ticket import KEY, Ticket, plan_json

    plan = request.plan
    ticket = Ticket(key, engine.epoch, plan_json(plan), plan.first_position())
    params = SamplingParams(
        n=request.n,
        temperature=request.temperature,
        seed=5 if request.temperature else None,
        max_tokens=request.new,
        ignore_eos=True,
        logprobs=0,
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args={KEY: ticket.to_text()} if plan.effective else None,
    )
    last = None
    async for output in engine.loop.llm.generate(
        {"prompt_token_ids": list(request.tokens)}, params, request.id
    ):
        last = output
    return last


def _answer(output: Any, done: Any) -> Answer:
    tokens = tuple(int(t) for t in done.token_ids)
    chosen = [row[t].logprob for t, row in zip(tokens, done.logprobs, strict=True)]
    return Answer(tokens, np.array(chosen), output.num_cached_tokens or 0)


def stand_of(engine: str) -> Stand:
    """The stand of a registered engine."""
    if engine not in FEATURES:
        raise UnknownName.of("engine of the conformance kit", engine, FEATURES)
    special: dict[str, type[Any]] = {"reference": ReferenceStand, "vllm": VllmStand}
    return special[engine]() if engine in special else Stand(engine)
