"""Requests of every kind for one vLLM engine, teacher-forced against Transformers: the distribution over the whole
vocabulary at each of vLLM's own tokens is compared with one full forward pass under the same plan.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import trimtab
from engines.checkpoints import save_tiny_llama
from engines.oracles import HookOracle
from engines.registry import place
from engines.subjects import TOLERANCES, Subject
from trimtab.engines.requests import Request, Sampling
from trimtab.engines.vllm.generation import Batch, Order
from trimtab.interventions import Ablate, Add, Cap, Deltas, Gate, Pin
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

BLOCK, NEW, LENGTH = 32, 12, 150
#: Nats, of natural log-probabilities in float32.
EXACT = 1e-5
WORST: list[float] = []


def exact_subject(folder: Path, **options: Any) -> Iterator[Subject]:
    """One engine: eager, chunks of 96 tokens, and so few blocks that a full batch preempts."""
    from transformers import AutoModelForCausalLM

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    path = save_tiny_llama(folder / "llama", context=512)
    # In float64, so that the whole difference is vLLM's.
    model = AutoModelForCausalLM.from_pretrained(path, dtype="float64", attn_implementation="eager").eval()
    settings: dict[str, Any] = {
        "enforce_eager": True, "block_size": BLOCK, "max_num_seqs": 16, "max_num_batched_tokens": 96,
        "num_gpu_blocks_override": 128, "disable_log_stats": False,
    }  # fmt: skip
    engine = trimtab.load_engine(path, "vllm", **(settings | options))
    TOLERANCES.setdefault("vllm-exact", TOLERANCES["vllm-eager"])
    yield Subject("vllm-exact", engine, HookOracle(model), hottest=2.0)
    del TOLERANCES["vllm-exact"]
    engine.close()
    print("WORST", max(WORST, default=0.0), len(WORST))


@dataclass
class Case:
    """A request, and what vLLM made of it: its tokens, the table [NEW, V] of log-probabilities, what was cached."""

    name: str
    prompt: Prompt
    plan: ResolvedPlan
    tokens: tuple[int, ...] = ()
    table: np.ndarray | None = None
    cached: int = 0
    states: dict[Site, np.ndarray] | None = None
    readings: np.ndarray | None = None


def base(seed: int = 0) -> tuple[int, ...]:
    return tuple(int(t) for t in np.random.default_rng(seed).integers(3, 99, LENGTH))


def mixed(s: Subject) -> dict[str, Any]:
    """Plans of every kind, from the first token on unless the name says otherwise."""
    first, middle, last = Site(0), Site(1), Site(s.last)
    a = 0.5 * s.size(middle)
    every = place(s, Add(amount=0.3 * s.size(first)), first)
    for site in (middle, Site(2), last):
        every = every | place(s, Add(amount=0.3 * s.size(site)), site)
    gate = Gate(s.direction(first, 1), above=0.0, layer=0)
    table = 0.2 * a * np.random.default_rng(1).standard_normal((60, s.engine.info.hidden_size))
    return {
        "plain": None,
        "add": place(s, Add(amount=a), middle),
        "add everywhere": every,
        "ablate": place(s, Ablate(), first) | place(s, Ablate(), last),
        "cap": place(s, Cap(low=-0.1 * a, high=0.1 * a), Site(2)),
        "stack": place(s, Add(amount=a), middle) | place(s, Ablate(), middle, 1) | place(s, Pin(a), middle, 2),
        "gated": place(s, Add(amount=2 * a), last, gate=gate),
        "relative": place(s, Add(amount=0.4), middle, relative=True, renormalise=True),
        "deltas": place(s, Deltas(table, start=100), middle),
        "generated": place(s, Add(amount=-a), first, positions="generated"),
        "prompt": place(s, Add(amount=a), middle, positions="prompt"),
        "from 40": place(s, Add(amount=a), first, positions={"ranges": [[40, 90]]}),
    }  # fmt: skip


def cases(s: Subject, tokens: tuple[int, ...], names: list[str] | None = None) -> list[Case]:
    prompt, plans = Prompt(tokens), mixed(s)
    return [Case(n, prompt, s.engine.resolve(plans[n], prompt)) for n in names or plans]


def run(
    s: Subject, batch: list[Case], capture: tuple[Site, ...] = (), new: int = NEW, **kinds: Any
) -> list[Case]:
    """The requests in one batch, with the whole distribution at every token."""
    params = {"max_tokens": new, "temperature": 0.0, "ignore_eos": True, "logprobs": -1}
    orders = [
        Order(c.prompt.tokens, c.plan, dict(params), capture, ((0, None),) if capture else (), **kinds)
        for c in batch
    ]
    engine: Any = s.engine
    going = Batch(engine, orders)
    try:
        for i, output in going:
            if output.finished:
                done, c = output.outputs[0], batch[i]
                c.tokens, c.cached = tuple(done.token_ids), output.num_cached_tokens or 0
                c.table = np.array([[row[t].logprob for t in range(len(row))] for row in done.logprobs])
                end = len(c.prompt) + new - 1
                going.whole(i, c.cached, end)
                c.states = {site: going.rows(i, site, np.arange(end)) for site in capture}
    finally:
        going.close()
    return batch


def check(s: Subject, case: Case, exact: float = EXACT) -> None:
    """The case is what Transformers makes of it."""
    assert case.table is not None
    whole = case.prompt.tokens + case.tokens[:-1]
    want = s.oracle.run(whole, case.plan)
    at = np.arange(len(case.prompt) - 1, len(whole))
    error = np.abs(case.table - want.logprobs[at]).max()
    WORST.append(float(error))
    assert error <= exact, f"{case.name}: off by {error:.2g} nats ({case.cached} tokens cached)"
    assert case.tokens == tuple(want.logprobs[at].argmax(1)), case.name
    for site, states in (case.states or {}).items():
        s.same_states(states, want.state(site, "after"), site, case.name)
    if case.plan.effective:
        plain = s.oracle.run(whole, ResolvedPlan()).logprobs[at]
        assert np.abs(plain - want.logprobs[at]).max() > 1e-2, f"{case.name} is too weak to tell anything"


def counted(what: str) -> float:
    """One of vLLM's own counters."""
    from vllm.v1.metrics.reader import get_metrics_snapshot

    return sum(m.value for m in get_metrics_snapshot() if m.name == f"vllm:{what}")  # type: ignore[attr-defined]


def settled(engine: Any) -> dict[str, int]:
    """What the worker holds once what was aborted is gone; the next step tells it, so there must be one."""
    for _ in range(50):
        engine.generate(Request(Prompt(base(4)[:5]), None, Sampling(max_tokens=1)))
        counts = engine.loop.call("trimtab_counts")[0]
        if counts["programs"] == 0 and len(engine.ledger) == 0:
            break
        time.sleep(0.05)
    return counts
