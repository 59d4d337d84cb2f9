"""Many requests at once: each gets what it gets alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np

from trimtab.conformance.bounds import distance
from trimtab.conformance.registry import NotRun, TooWeak, check, ensure
from trimtab.conformance.stands import Direct
from trimtab.conformance.subject import Subject, watch
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.requests import Request
from trimtab.interventions import Ablate, Add, Cap, Deltas, Gate, Pin
from trimtab.plans import EMPTY, SteeringPlan
from trimtab.readouts import Readout


def mixed(s: Subject) -> list[Request]:
    """Requests that differ in everything: prompt, vector, layer, operator, positions, sampling, what is read. An engine
    that cannot do some of it gets the others."""
    p0, p1, p2 = s.prompts
    a = s.push(s.middle, 0.6)
    table = np.full((4, s.engine.info.width(s.middle)), 0.3 * a / np.sqrt(s.engine.info.width(s.middle)))
    spec = watch(s.first, s.last)
    readout = Readout.from_vectors(ConceptVectors.from_directions([s.direction(s.middle, 5)]))
    gate = Gate(
        s.direction(s.first, 1), above=float(np.median(s.coordinates(s.first, 1))), layer=s.first.layer
    )
    add = s.place(Add(amount=a), s.middle)
    both = s.place(Ablate(), s.first, 2) | s.place(Add(amount=s.push(s.last, -0.6)), s.last, 1)
    found = [
        s.ask(p0, EMPTY, capture=spec, readout=readout),
        s.ask(p1, add, capture=spec, readout=readout),
        s.ask(p2, both, temperature=1.0, capture=spec),
        s.ask(p0, s.place(Pin(a), s.middle, 3, positions="generated"), readout=readout),
        s.ask(p1, s.place(Deltas(table, start=2), s.middle), new=3, capture=spec),
        s.ask(p2, EMPTY, temperature=1.0),
        s.ask(p1, s.place(Add(amount=a), s.middle, gate=gate), temperature=1.0, n=2, capture=watch(s.middle)),
        s.ask(p0, s.place(Cap(high=0.0), s.first, positions="last_prompt"), capture=spec, readout=readout),
    ]
    return [r for r in found if s.able(r)]


@check()
def batchmates(s: Subject) -> str:
    """In a batch of requests that differ in everything each gets what it gets alone, in any order and company."""
    requests = mixed(s)
    alone = [s.run(r)[0] for r in requests]
    worst = max(s.right(x, r, "alone") for r, done in zip(requests, alone, strict=True) for x in done.samples)
    whole = list(range(len(requests)))
    orders = (
        whole,
        whole[3::2] + whole[::2] + whole[1:3:2],
        whole[:2],
        whole[1::-1],
        [*whole[4:5], *whole[:1]],
    )
    for order in orders:
        together = s.run([requests[i] for i in order])
        for i, done in zip(order, together, strict=True):
            for j, (got, want) in enumerate(zip(done.samples, alone[i].samples, strict=True)):
                s.same_sample(got, want, f"request {i}, sample {j}, in batch {order}")
    return f"{len(requests)} requests in {len(orders)} batches, off by {worst:.1g} nats"


@check()
def batch_sizes(s: Subject) -> str:
    """Batches of every size up to the largest: no padded row is read, no row is left out."""
    plan, worst = s.place(Add(amount=s.push(s.middle, 0.8)), s.middle), 0.0
    sizes = (1, 2, 3, 5, 9, s.stand.batch)
    for size in sizes:
        prompts = [s.fresh(5 + i % 7) for i in range(size)]
        requests = [s.ask(p, plan if i % 2 == 0 else EMPTY, new=3) for i, p in enumerate(prompts)]
        for i, (request, done) in enumerate(zip(requests, s.run(requests), strict=True)):
            worst = max(worst, s.right(done.samples[0], request, f"request {i} of {size}"))
    return f"{', '.join(map(str, sizes))} requests, off by {worst:.1g} nats"


@check()
def distinct_plans(s: Subject) -> str:
    """As many different vectors as requests in one batch: each request is steered by its own."""
    prompt, count = s.fresh(16), s.stand.batch
    sites = [s.sites[i % len(s.sites)] for i in range(count)]
    requests = [
        s.ask(prompt, s.place(Add(amount=s.push(x, 1.2)), x, which=10 + i)) for i, x in enumerate(sites)
    ]
    done = [d.samples[0] for d in s.run(requests)]
    worst = max(s.right(x, r, f"vector {i}") for i, (x, r) in enumerate(zip(done, requests, strict=True)))
    for i, (sample, request) in enumerate(zip(done, requests, strict=True)):
        s.effect(sample, request, requests[(i + 1) % count].plan, f"vector {i} against its neighbour's")
    return f"{count} vectors at {len(set(sites))} layers, off by {worst:.1g} nats"


@check()
def strength_sweep(s: Subject) -> str:
    """One vector at many strengths in one batch, as in a dose response: each request gets its own strength."""
    prompt, count = s.fresh(16), s.stand.batch
    doses = np.linspace(-1.5, 1.5, count)
    requests = [s.ask(prompt, s.place(Add(amount=float(d) * s.size(s.middle)), s.middle)) for d in doses]
    done = [d.samples[0] for d in s.run(requests)]
    worst = max(s.right(x, r, f"strength {i}") for i, (x, r) in enumerate(zip(done, requests, strict=True)))
    s.effect(done[0], requests[0], requests[-1].plan, "the lowest strength against the highest")
    prints = {x.applied.fingerprint for x in done}
    ensure(len(prints) == count, f"{count} strengths have {len(prints)} fingerprints")
    return f"{count} strengths, off by {worst:.1g} nats"


@check()
def id_prefix(s: Subject) -> str:
    """A plain request whose id begins like a steered one's, or contains it, stays plain, at the same time."""
    plan = s.place(Add(amount=s.push(s.middle, 1.5)), s.middle)
    prompt = s.fresh(20)
    ids = {"run": plan, "run-1": EMPTY, "ru": EMPTY, "0_run": EMPTY, "run-10": plan}
    requests = [replace(s.ask(prompt, p), id=name) for name, p in ids.items()]
    for request, done in zip(requests, s.run(requests), strict=True):
        ensure(done.id == request.id, f"request {request.id} came back as {done.id}")
        s.right(done.samples[0], request, f"request {request.id}")
    s.effect(s.one(requests[0]), requests[0])
    if "plugin" in s.stand.has:
        _straight(s, prompt, ids)
        return f"{len(ids)} ids, and the same sent straight to vLLM with n = 3"
    return f"{len(ids)} ids"


def _straight(s: Subject, prompt: Any, ids: dict[str, Any]) -> None:
    """vLLM's own ids and its own n, past trimtab's front."""
    resolved = {name: s.resolved(p, prompt) for name, p in ids.items()}
    direct = [Direct(name, prompt.tokens, p, n=3, temperature=1.0) for name, p in resolved.items()]
    for request, answers in zip(direct, s.stand.send(s.engine, direct), strict=True):
        ensure(len(answers) == 3, f"{request.id}: {len(answers)} of 3 samples came back")
        for i, answer in enumerate(answers):
            want = s.wanted(prompt, answer.tokens, request.plan)
            s.same_logprobs(answer.logprobs, want, f"sample {i} of {request.id}, sent straight to vLLM")


@check()
def concurrency(s: Subject) -> str:
    """Asynchronous calls side by side, each with a plan, a capture and a seed of its own, do not disturb each other."""
    plans = [r.plan for r in mixed(s)]
    if not any(s.resolved(p, s.prompts[0]).effective for p in plans):
        raise NotRun("the engine takes none of the plans of this check")
    requests = [
        s.ask(
            s.fresh(10 + 3 * i), plans[i % len(plans)], new=8, temperature=float(i % 2), seed=i,
            capture=s.watch(s.sites[i % len(s.sites)], positions="generated") if i % 3 == 0 else None,
        )
        for i in range(12)
    ]  # fmt: skip

    async def together() -> list[Any]:
        return await asyncio.gather(*(s.engine.agenerate(r) for r in requests))

    worst = 0.0
    for i, (request, got) in enumerate(zip(requests, asyncio.run(together()), strict=True)):
        worst = max(worst, s.right(got[0].samples[0], request, f"call {i}"))
    return f"{len(requests)} calls, off by {worst:.1g} nats"


@check()
def default_plan(s: Subject) -> str:
    """Inside `steered` requests without a plan use it, a plan of one's own wins, and afterwards nothing is left."""
    plan = s.place(Add(amount=s.push(s.middle, 0.7)), s.middle)
    prompt = s.prompts[0]
    plain, steered = s.one(s.ask(prompt, EMPTY)), s.one(s.ask(prompt, plan))
    with s.engine.steered(plan):
        s.same_sample(s.one(s.ask(prompt, None)), steered, "inside")
        s.same_sample(s.one(s.ask(prompt, EMPTY)), plain, "a plain plan inside")
        got = asyncio.run(s.engine.agenerate(s.ask(prompt, None)))[0].samples[0]
        s.same_sample(got, steered, "asynchronous, inside")
    s.same_sample(s.one(s.ask(prompt, None)), plain, "afterwards")
    return "inside, inside with a plan, and afterwards"


@check()
def abort(s: Subject) -> str:
    """Streams that are left in the middle leave nothing behind: no plan, no rows, no memory."""
    plan = s.place(Add(amount=s.push(s.middle, 0.8)), s.middle) | s.place(Ablate(), s.last, 1)
    prompt, spec = s.fresh(30), watch(s.middle)
    # Plain requests have no plan at all here: what an abandoned stream left as the default would reach them.
    want = [s.one(s.ask(prompt, p, capture=spec)) for p in (EMPTY, plan)]
    for _ in range(3):
        going: Any = s.engine.stream([s.ask(prompt, plan, new=60, capture=spec)] * 4)
        for _ in range(2):
            next(going)
        going.close()
    waiting: Any = s.engine.stream(s.ask(prompt, plan, capture=spec))
    events = [next(waiting), next(waiting)]
    s.same_sample(s.one(s.ask(prompt, None, capture=spec)), want[0], "a plain request while a stream waits")
    events += list(waiting)
    s.same_sample(events[-1].sample, want[1], "a stream that waited")
    for chosen, expected in zip((None, plan), want, strict=True):
        s.same_sample(s.one(s.ask(prompt, chosen, capture=spec)), expected, "after aborted streams")
    for _ in range(50):
        s.one(s.ask(prompt, EMPTY, new=1))  # the workers hear of what has ended with the next step
        if (held := s.stand.held(s.engine)) == 0:
            break
    ensure(held == 0, f"{held} programs, rows or records are held for requests that are gone")
    return "12 streams left after two tokens; nothing is held"


@check()
def many_vectors(s: Subject) -> str:
    """Far more different vectors than fit at once, one after the other: rows are freed and never mixed up."""
    count = max(64, s.stand.bank + 2 * s.stand.batch)
    rng = np.random.default_rng(s.seed)
    prompt, site = s.fresh(8), s.middle
    raw = rng.standard_normal((count, s.engine.info.width(site)))
    plans = [
        SteeringPlan.add(Direction.from_raw("many", site, r), amount=s.push(site, 1.2), layers=[site.layer])
        for r in raw
    ]
    worst, found = 0.0, []
    for start in range(0, count, s.stand.batch):
        requests = [s.ask(prompt, p, new=1) for p in plans[start : start + s.stand.batch]]
        done = s.run(requests)
        if start % (8 * s.stand.batch) == 0 or start + s.stand.batch >= count:
            for i, (request, one) in enumerate(zip(requests, done, strict=True)):
                worst = max(worst, s.right(one.samples[0], request, f"vector {start + i} of {count}"))
                found.append(
                    distance(s.wanted(prompt, one.samples[0].tokens, EMPTY), one.samples[0].logprobs)
                )
    if not s.clear(float(np.median(found))):
        raise TooWeak("the vectors are too weak to prove anything")
    ensure(min(found) > 0, "a vector was not applied at all")
    return f"{count} vectors, {s.stand.batch} at a time, off by {worst:.1g} nats"
