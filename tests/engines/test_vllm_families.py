"""Families on vLLM: layers and the residual convention are found at load, and steering is that of Transformers.

Three that differ in structure run with every test: states in two tensors with norms behind the branches (gemma2), a
finished state beside the one before (cohere), and a model that vLLM runs through Transformers (olmo2). The rest runs
with `make check`. Each prints its worst difference.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")

import trimtab
from engines.oracles import BlockOracle
from engines.registry import coordinates, gap, place
from engines.subjects import TOLERANCES, Subject
from engines.vllm_families import CONTEXT, FAMILIES, GEMMA3N, Family
from trimtab.engines.vllm.generation import Batch, Order
from trimtab.errors import Unsupported
from trimtab.interventions import Ablate, Add, Cap, Gate, Pin
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

pytestmark = pytest.mark.engine

ALWAYS = ("gemma2", "cohere", "olmo2")
LENGTH, NEW = 90, 8
#: Nats, of natural log-probabilities in float32 against float64.
EXACT = 1e-5
PARAMS: dict[str, Any] = {"max_tokens": NEW, "temperature": 0.0, "ignore_eos": True, "logprobs": -1}
VOCABULARY = 99


def subject_of(family: Family, path: Any) -> Subject:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    model = family.save(path)
    engine = trimtab.load_engine(
        path, "vllm", dtype="float32", enforce_eager=True, block_size=32, max_num_seqs=8,
        max_num_batched_tokens=128, max_model_len=CONTEXT, num_gpu_blocks_override=128, **family.options,
    )  # fmt: skip
    TOLERANCES.setdefault("vllm-family", TOLERANCES["vllm-eager"])
    return Subject("vllm-family", engine, BlockOracle(model), hottest=2.0)


def plans_of(s: Subject) -> dict[str, Any]:
    first, middle, last = Site(0), Site(1), Site(s.last)
    a = 0.5 * s.size(middle)
    # One of the two is open, whatever the token.
    middling, loud = gap(coordinates(s, first, 1)), Add(amount=2 * s.size(last))
    above, below = (Gate(s.direction(first, 1), **{k: middling}, layer=0) for k in ("above", "below"))
    return {
        "plain": None,
        "add": place(s, Add(amount=a), middle),
        "add at the end": place(s, Add(amount=s.size(last)), last),
        "ablate": place(s, Ablate(), first) | place(s, Ablate(), last),
        "stack": place(s, Pin(a), middle) | place(s, Cap(low=-0.1 * a, high=0.1 * a), middle, 1),
        "gated": place(s, loud, last, gate=above) | place(s, loud, last, 2, gate=below),
        "generated": place(s, Add(amount=-a), first, positions="generated"),
    }


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ALWAYS else pytest.mark.check) for n in FAMILIES]
)
def test_a_mixed_batch_is_what_transformers_makes_of_it(name, tmp_path):
    s = subject_of(FAMILIES[name], tmp_path)
    engine: Any = s.engine
    try:
        assert engine.found["split"] is FAMILIES[name].split, engine.found
        tokens = tuple(int(t) for t in np.random.default_rng(3).integers(3, VOCABULARY, LENGTH))
        prompt, sites = Prompt(tokens), (Site(0), Site(s.last))
        for turn in range(2):  # the second time from the prefix cache, where states are not asked for
            capture = sites if turn == 0 else ()
            ranges = ((0, None),) if turn == 0 else ()
            plans = {n: engine.resolve(p, prompt) for n, p in plans_of(s).items()}
            orders = [Order(tokens, plan, dict(PARAMS), capture, ranges) for plan in plans.values()]
            worst = {"nats": 0.0, "state": 0.0}
            batch = Batch(engine, orders)
            try:
                for index, output in batch:
                    if output.finished:
                        _compare(s, batch, index, output, orders[index], list(plans)[index], worst)
            finally:
                batch.close()
            print(f"{name}: {engine.found['block']}, split {engine.found['split']}, round {turn}: {worst}")
    finally:
        engine.close()


def _compare(s: Subject, batch: Any, index: int, output: Any, order: Any, what: str, worst: dict) -> None:
    done = output.outputs[0]
    whole = order.tokens + tuple(done.token_ids)[:-1]
    batch.whole(index, output.num_cached_tokens or 0, len(whole))
    want, at = s.oracle.run(whole, order.plan), np.arange(len(order.tokens) - 1, len(whole))
    got = np.array([[row[t].logprob for t in range(len(row))] for row in done.logprobs])
    error = float(np.abs(got - want.logprobs[at][:, : got.shape[1]]).max())
    worst["nats"] = max(worst["nats"], error)
    assert error <= EXACT, f"{what}: off by {error:.2g} nats"
    for site in order.sites:
        states = batch.rows(index, site, np.arange(len(whole)))
        truth = want.state(site, "after")
        worst["state"] = max(worst["state"], float(np.abs(states - truth).max() / s.size(site)))
        s.same_states(states, truth, site, what)
    if order.plan.effective:
        plain = s.oracle.run(whole, ResolvedPlan()).logprobs[at]
        assert np.abs(plain - want.logprobs[at]).max() > 1e-2, f"{what} is too weak to tell anything"


@pytest.mark.check
def test_gemma3n_is_refused_by_name(tmp_path):
    with pytest.raises(Unsupported, match="Gemma3n.*four versions"):
        subject_of(GEMMA3N, tmp_path)
