"""Sampling under a plan: n samples, seeds, filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from trimtab.conformance.registry import check, ensure
from trimtab.conformance.subject import Subject
from trimtab.engines.requests import ScoreRequest
from trimtab.interventions import Add
from trimtab.plans import EMPTY


@check()
def n_gt_1(s: Subject) -> str:
    """Every one of n samples is its own text, steered, captured and read under the request's plan."""
    plan, prompt = s.place(Add(amount=s.push(s.middle, 0.8)), s.middle), s.prompts[0]
    request = s.ask(prompt, plan, new=8, temperature=1.0, n=3, capture=s.watch(s.middle))
    samples, worst = s.run(request)[0].samples, 0.0
    ensure(len(samples) == 3, f"3 samples were asked for, {len(samples)} came")
    ensure(len({x.tokens for x in samples}) > 1, "the samples of one request are all the same")
    for i, sample in enumerate(samples):
        ensure(sample.capture is not None or not s.captures, f"sample {i} has no capture")
        worst = max(worst, s.right(sample, request, f"sample {i}"))
        s.effect(sample, request, what=f"sample {i}")
        count = len(prompt) + len(sample.tokens) - 1
        ensure(
            sample.applied.tokens_steered == count,
            f"sample {i}: {sample.applied.tokens_steered} tokens steered",
        )
    return f"3 samples, off by {worst:.1g} nats"


@check()
def seeds(s: Subject) -> str:
    """A seeded sample is the same alone, among others and in another place; another seed gives another text."""
    plan = s.place(Add(amount=s.push(s.first, 0.3)), s.first)
    mine = s.ask(s.prompts[1], plan, temperature=1.0, n=3)
    others = [s.ask(s.prompts[0], EMPTY, temperature=1.0, seed=1), s.ask(s.prompts[2])]
    want = [x.tokens for x in s.run(mine)[0].samples]
    for batch, at in (([mine, *others], 0), ([*others, mine], 2), ([others[0], mine, mine], 2)):
        got = [x.tokens for x in s.run(batch)[at].samples]
        ensure(got == want, f"place {at} of a batch of {len(batch)} changes a seeded sample")
    runs = {s.one(s.ask(s.prompts[1], EMPTY, new=8, temperature=1.0, seed=n)).tokens for n in range(6)}
    ensure(len(runs) > 1, "six seeds give one text")
    return f"3 batches; 6 seeds give {len(runs)} texts"


@check()
def filters(s: Subject) -> str:
    """top_k 1 and a tiny top_p are greedy; top_k 2 draws only the two likeliest tokens of the steered distribution."""
    plan, prompt = s.place(Add(amount=s.push(s.middle, 0.3)), s.middle), s.prompts[0]
    greedy = s.one(s.ask(prompt, plan)).tokens
    narrowest: dict[str, dict[str, Any]] = {"top_k 1": {"top_k": 1}, "top_p 1e-6": {"top_p": 1e-6}}
    for name, narrow in narrowest.items():
        got = s.one(s.ask(prompt, plan, temperature=1.0, **narrow)).tokens
        ensure(got == greedy, f"{name} is not greedy")
    drawn = s.run(s.ask(prompt, plan, temperature=2.0, top_k=2, n=4))[0].samples
    for sample in drawn:
        table = s.engine.score(ScoreRequest(prompt, sample.tokens, plan, "all"))[0].distribution
        assert table is not None
        for i, token in enumerate(sample.tokens):
            row = table[len(prompt) - 1 + i]
            least = np.sort(row)[-2] - 2 * s.bounds.table
            ensure(row[token] >= least, f"top_k 2 drew token {token}, which is not among the two likeliest")
    return f"greedy twice; {len(drawn)} samples of the two likeliest"
