"""What one request leaves behind for the next: prefix caches, names, preemption, and the plain model afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np

from trimtab.conformance.registry import check, ensure
from trimtab.conformance.stands import Direct
from trimtab.conformance.subject import NEW, Subject, watch
from trimtab.engines.requests import ScoreRequest
from trimtab.interventions import Ablate, Add, Cap, Deltas, Gate, Pin
from trimtab.plans import EMPTY, SteeringPlan
from trimtab.prompts import Prompt

#: How often a batch is run so that requests are thrown out: on a busy machine they may come one after the other.
TRIES = 3


def plans_of_every_kind(s: Subject, end: int) -> dict[str, Any]:
    """Plans for prompts of `end` tokens, from the first token on unless the name says otherwise."""
    a = s.push(s.middle, 0.6)
    every = s.place(Add(amount=s.push(s.first, 0.3)), s.first)
    for site in s.sites[1:]:
        every = every | s.place(Add(amount=s.push(site, 0.3)), site)
    gate = Gate(
        s.direction(s.first, 1), above=float(np.median(s.coordinates(s.first, 1))), layer=s.first.layer
    )
    width = s.engine.info.width(s.middle)
    table = a / np.sqrt(width) * np.random.default_rng(1).standard_normal((40, width))
    found = {
        "plain": EMPTY,
        "add": s.place(Add(amount=a), s.middle),
        "at every layer": every,
        "ablate": s.place(Ablate(), s.first) | s.place(Ablate(), s.last),
        "cap": s.place(Cap(low=-0.1 * a, high=0.1 * a), s.middle),
        "stack": s.place(Add(amount=a), s.middle)
        | s.place(Ablate(), s.middle, 1)
        | s.place(Pin(a), s.middle, 2),
        "gated": s.place(Add(amount=s.push(s.last, 1.5)), s.last, gate=gate),
        "relative": s.place(Add(amount=0.5), s.middle, relative=True, renormalise=True),
        "deltas": s.place(Deltas(table, start=max(0, end - 20)), s.middle),
        "generated": s.place(Add(amount=-a), s.middle, positions="generated"),
        "prompt": s.place(Add(amount=a), s.middle, positions="prompt"),
        "a range": s.place(Add(amount=a), s.middle, positions={"ranges": [[end // 3, 2 * end // 3]]}),
    }
    return {n: p for n, p in found.items() if s.able(s.ask(s.prompts[0], p))}


@check()
def cache_isolation(s: Subject) -> str:
    """Plain and steered requests with one prompt, in any order, never read each other's keys and values."""
    worst, count = 0.0, 0
    a = s.push(s.first, 0.8)
    steered = s.place(Add(amount=a), s.first)
    other = s.place(Add(amount=-a), s.first) | s.place(Add(amount=a), s.middle, 1)
    for order in ((steered, EMPTY, steered, other, EMPTY), (EMPTY, steered, EMPTY, other, steered)):
        prompt = s.fresh(120)
        for turn, plan in enumerate(order):
            request = s.ask(prompt, plan)
            sample = s.one(request)
            if turn == 0:
                s.effect(sample, s.ask(prompt, steered), what="the plan")
            name = "plain" if plan is EMPTY else "steered"
            worst, count = max(worst, s.right(sample, request, f"turn {turn + 1}, {name}")), count + 1
    return f"{count} requests over 2 prompts of {len(prompt)} tokens, off by {worst:.1g} nats"


@check()
def cache_rounds(s: Subject) -> str:
    """Three rounds of a batch of every kind of plan on one prompt: cold, on a shorter prefix, and in reverse order."""
    tokens, worst = s.fresh(110).tokens, 0.0
    for turn in range(3):
        prompt = Prompt(tokens if turn != 1 else tokens[: len(tokens) - 13])
        plans = plans_of_every_kind(s, len(prompt))
        names = list(plans)[:: -1 if turn == 2 else 1]
        requests = [s.ask(prompt, plans[n]) for n in names]
        for name, request, done in zip(names, requests, s.run(requests), strict=True):
            worst = max(worst, s.right(done.samples[0], request, f"round {turn + 1}, {name}"))
    return f"3 rounds of {len(names)} plans, off by {worst:.1g} nats"


@check("prefix_cache")
def cache_sharing(s: Subject) -> str:
    """The prefix cache stays on: plain blocks are shared up to the first steered token, and a plan reuses its own."""
    prompt, block = s.fresh(150), s.stand.block
    whole, a = (len(prompt) - 1) // block * block, 0.8 * s.size(s.first)
    first = block + block // 4  # in the second block
    turns = [
        ("plain, cold", EMPTY, 0),
        ("steered from the first token", s.place(Add(amount=a), s.first), 0),
        ("for generated tokens only", s.place(Add(amount=a), s.first, positions="generated"), whole),
        (
            f"from token {first} on",
            s.place(Add(amount=a), s.first, positions={"ranges": [[first, None]]}),
            block,
        ),
        ("plain again", EMPTY, whole),
        ("the first plan again", s.place(Add(amount=a), s.first), whole),
        ("the same at another strength", s.place(Add(amount=1.5 * a), s.first), 0),
    ]
    for i, (name, plan, expected) in enumerate(turns):
        resolved = s.resolved(plan, prompt)
        answer = s.stand.send(s.engine, [Direct(f"share-{i}", prompt.tokens, resolved, new=NEW)])[0][0]
        ensure(
            answer.cached == expected, f"{name}: {answer.cached} tokens came from the cache, not {expected}"
        )
        s.same_logprobs(answer.logprobs, s.wanted(prompt, answer.tokens, resolved), name)
    return f"{len(turns)} requests read 0, {block} or {whole} tokens from the cache, as they should"


@check()
def content_not_name(s: Subject) -> str:
    """A name that is given to another vector steers by the new one at once, also where the old one has left a cache."""
    prompt, name, worst = s.fresh(80), "conformance", 0.0
    kwargs: dict[str, Any] = {"amount": s.push(s.middle, 1.5), "layers": [s.middle.layer]}
    for which in (0, 1, 0):
        s.engine.library[name] = s.direction(s.middle, which)
        try:
            request = s.ask(prompt, SteeringPlan.add(name, **kwargs), new=8)
            sample, resolved = s.one(request), s.resolved(request.plan, request.prompt)
        finally:
            del s.engine.library[name]
        inline = s.resolved(SteeringPlan.add(s.direction(s.middle, which), **kwargs), prompt)
        ensure(
            resolved.fingerprint == inline.fingerprint,
            "a named vector has another fingerprint than its content",
        )
        worst = max(
            worst,
            s.same_logprobs(sample.logprobs, s.wanted(prompt, sample.tokens, inline), f"vector {which}"),
        )
        s.effect(
            sample, s.ask(prompt, inline, new=8), SteeringPlan.add(s.direction(s.middle, 1 - which), **kwargs)
        )
    return f"one name, two vectors, off by {worst:.1g} nats"


@check("preemption")
def preemption(s: Subject) -> str:
    """Requests that are thrown out and begin again are steered, captured and finished as if nothing had happened."""
    limit = min(s.engine.info.context_length or 300, 300)
    length, new = limit // 2, limit - limit // 2 - 1
    plans = plans_of_every_kind(s, length)
    names = [list(plans)[i % len(plans)] for i in range(s.stand.batch)]
    spec = s.watch(s.middle, s.last)
    requests = [s.ask(s.fresh(length), plans[n], new=new, capture=spec) for n in names]
    before = s.stand.preemptions(s.engine)
    done, count = [], 0
    for _ in range(TRIES):
        done = s.run(requests)
        count = s.stand.preemptions(s.engine) - before
        if count:
            break
    ensure(
        count > 0,
        "no request was thrown out: this shows nothing (fewer blocks, or longer requests, are needed)",
    )
    worst = max(
        s.right(d.samples[0], r, f"{n} after {count} preemptions")
        for n, r, d in zip(names, requests, done, strict=True)
    )
    rows = sum(len(d.samples[0].capture.positions) for d in done if d.samples[0].capture is not None)
    return f"{count} preemptions, {2 * rows} captured rows, off by {worst:.1g} nats"


@check("plugin")
def registered_twice(s: Subject) -> str:
    """Loading the plugin again changes nothing: edits are not applied twice, nothing recurses."""
    s.stand.register_again()
    plan, prompt = s.place(Add(amount=s.push(s.middle, 0.8)), s.middle), s.fresh(70)
    worst = 0.0
    for chosen in (plan, EMPTY, plan):
        request = s.ask(prompt, chosen, capture=s.watch(s.middle))
        worst = max(worst, s.right(s.one(request), request))
    return f"off by {worst:.1g} nats"


@check()
def plain_afterwards(s: Subject) -> str:
    """After steered requests of every kind the plain model is the plain model, bit for bit where it runs alone."""
    prompt, spec = s.prompts[0], watch(*s.sites)
    before = s.one(s.ask(prompt, EMPTY, capture=spec))
    plans = plans_of_every_kind(s, len(prompt))
    s.run([s.ask(prompt, p, new=3) for p in plans.values()])
    after = s.one(s.ask(prompt, EMPTY, capture=spec))
    ensure(after.tokens == before.tokens, "the plain model writes something else than before")
    ensure(
        np.array_equal(after.logprobs, before.logprobs), "the plain model's log-probabilities have changed"
    )
    for site in s.sites:
        assert after.capture is not None and before.capture is not None
        ensure(
            np.array_equal(after.capture[site], before.capture[site]), f"plain states at {site} have changed"
        )
    s.right(after, s.ask(prompt), "the plain model")
    table = s.engine.score(ScoreRequest(prompt, None, EMPTY, "last"))[0].distribution
    ensure(table is not None and bool(np.isfinite(table).all()), "a plain distribution is not finite")
    return f"{len(plans)} plans, then the same bits"
