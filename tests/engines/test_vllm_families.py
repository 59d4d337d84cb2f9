"""Families on vLLM: layers and the residual convention are found at load, and steering is that of Transformers.

Three that differ in structure run with every test: states in two tensors with norms behind the branches (gemma2), a
finished state beside the one before (cohere), and a model that vLLM runs through Transformers (olmo2). The rest runs
with `make check`. Each prints its worst difference.

Where vLLM computes a family in 16 bits only, plans may be no further off than a few times what the plain model is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
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
from trimtab.errors import MissingDependency, Unsupported
from trimtab.interventions import Ablate, Add, Cap, Gate, Pin
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

pytestmark = pytest.mark.engine

ALWAYS = ("gemma2", "cohere", "olmo2")
LENGTH, NEW = 90, 8
#: Nats, of natural log-probabilities in float32 against float64.
EXACT = 1e-5
#: How many times the plain model's own error a plan may be off, in 16 bits.
COARSE = 4.0
#: How many times more than it is off a plan must change, or the comparison says nothing; and that in 16 bits, where a
#: plan that is not there is still off by all that it changes.
TELLING, TELLING_COARSE = 5.0, 2.5
PARAMS: dict[str, Any] = {"max_tokens": NEW, "temperature": 0.0, "ignore_eos": True, "logprobs": -1}
VOCABULARY = 99


def subject_of(family: Family, path: Any) -> Subject:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    model = family.save(path)
    engine = trimtab.load_engine(
        path, "vllm", enforce_eager=True, block_size=32, max_num_seqs=8, max_num_batched_tokens=128,
        max_model_len=CONTEXT, num_gpu_blocks_override=128, **family.options,
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
    family = FAMILIES[name]
    if family.vision and find_spec("torchvision") is None:
        with pytest.raises(MissingDependency, match="torchvision"):
            subject_of(family, tmp_path)
        return
    s = subject_of(family, tmp_path)
    engine: Any = s.engine
    try:
        assert engine.found["split"] is family.split, engine.found
        tokens = tuple(int(t) for t in np.random.default_rng(3).integers(3, VOCABULARY, LENGTH))
        sites = (Site(0), Site(s.last))
        plans = {n: engine.resolve(p, Prompt(tokens)) for n, p in plans_of(s).items()}
        for turn in range(2):  # the second time from the prefix cache, where states are not asked for
            answers = run(s, tokens, list(plans.values()), () if turn else sites)
            errors = {n: compare(s, tokens, a, plans[n]) for n, a in zip(plans, answers, strict=True)}
            if family.dtype != "float32":
                del errors["gated"]  # rounding opens and closes gates
            worst = np.max([e[:2] for e in errors.values()], axis=0)
            print(f"{name}: {engine.found['block']}, split {family.split}, round {turn}: {worst[0]:.2g} nats, "
                  f"{worst[1]:.2g} of the typical norm")  # fmt: skip
            nats, state, telling = EXACT, s.tolerance.state, TELLING
            if family.dtype != "float32":
                print({n: tuple(round(x, 3) for x in e) for n, e in errors.items()})
                nats, state = (COARSE * error for error in errors["plain"][:2])
                telling = TELLING_COARSE
            for what, (off, away, effect) in errors.items():
                assert off <= nats, f"{what}: off by {off:.2g} nats"
                assert away <= state, f"{what}: states are off by {away:.2g} of the typical norm"
                assert what == "plain" or effect > max(1e-2, telling * off), (
                    f"{what} tells nothing: {effect:.2g}"
                )
    finally:
        engine.close()


@dataclass(frozen=True)
class Answer:
    """What vLLM made of a plan: tokens, the table [NEW, V] of log-probabilities, the states [T, width] at sites."""

    tokens: tuple[int, ...]
    table: np.ndarray
    states: dict[Site, np.ndarray]


def run(s: Subject, tokens: Any, plans: list[Any], sites: tuple[Site, ...]) -> list[Answer]:
    """The plans in one batch, for one prompt."""
    ranges, found = ((0, None),) if sites else (), {}
    batch = Batch(s.engine, [Order(tokens, p, dict(PARAMS), sites, ranges) for p in plans])
    try:
        for index, output in batch:
            if output.finished:
                done, count = output.outputs[0], len(tokens) + NEW - 1
                batch.whole(index, output.num_cached_tokens or 0, count)
                table = np.array([[row[t].logprob for t in range(len(row))] for row in done.logprobs])
                states = {site: batch.rows(index, site, np.arange(count)) for site in sites}
                found[index] = Answer(tuple(done.token_ids), table, states)
    finally:
        batch.close()
    return [found[i] for i in sorted(found)]


def compare(s: Subject, tokens: Any, answer: Answer, plan: Any) -> tuple[float, float, float]:
    """By how much log-probabilities (nats) and states (of the typical norm) differ from those of Transformers, and by
    how much the plan changes the log-probabilities."""
    whole = tokens + answer.tokens[:-1]
    want, at = s.oracle.run(whole, plan), np.arange(len(tokens) - 1, len(whole))
    expected = want.logprobs[at][:, : answer.table.shape[1]]
    away = [
        np.abs(states - want.state(site, "after")).max() / s.size(site)
        for site, states in answer.states.items()
    ]
    plain = s.oracle.run(whole, ResolvedPlan()).logprobs[at]
    effect = np.abs(plain - want.logprobs[at]).max()
    return float(np.abs(answer.table - expected).max()), float(max(away, default=0.0)), float(effect)


def test_gemma3n_is_refused_by_name(tmp_path):
    with pytest.raises(Unsupported, match="Gemma3n.*four versions"):
        subject_of(GEMMA3N, tmp_path)


@pytest.mark.check
def test_linear_attention_is_refused_in_a_number_format_that_vllm_does_not_compute(tmp_path):
    with pytest.raises(Unsupported, match="bfloat16 only, not in float32"):
        subject_of(replace(FAMILIES["qwen3-next"], dtype="float32"), tmp_path)
