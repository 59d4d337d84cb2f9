"""Requests that cannot be steered as asked: they end with an error of their own, and nobody else has anything of it."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from trimtab.conformance.registry import check, ensure
from trimtab.conformance.subject import Subject
from trimtab.engines.requests import Request
from trimtab.errors import SteeringLost
from trimtab.interventions import Ablate, Add, Pin
from trimtab.plans import EMPTY, SteeringPlan


@check("workers")
def lost_is_withheld(s: Subject) -> str:
    """A request that the workers cannot steer is an error and not a plain answer; the next one is right."""
    plan, prompt = s.place(Add(amount=s.push(s.first, 0.8)), s.first, 9), s.fresh(70)
    request = s.ask(prompt, plan)
    s.stand.forget(s.engine, s.resolved(request.plan, request.prompt))
    try:
        sample = s.one(request)
    except SteeringLost as error:
        said = str(error)
    else:
        plain = s.wanted(prompt, sample.tokens, EMPTY)
        same = np.abs(plain - sample.logprobs).max() <= s.bounds.logprob
        ensure(False, f"an answer was given without the vector{', and it is the plain one' if same else ''}")
    worst = s.right(s.one(request), request, "the next request with the same plan")
    worst = max(worst, s.right(s.one(s.ask(prompt)), s.ask(prompt), "the next plain request"))
    return f"SteeringLost ({said[:60]}…); afterwards off by {worst:.1g} nats"


@check("workers")
def non_finite_contained(s: Subject) -> str:
    """An edit that makes states non-finite ends its own request, by name, however often it comes: those beside it get
    what they get alone, and afterwards the same prompt is right, to the bit where it runs alone."""
    worst, prompt = 0.0, s.fresh(70)
    # Captures are computed and not read from a prefix cache: twice the same steps, hence the same bits.
    plain, probe, others = s.ask(prompt), s.ask(prompt, capture=s.watch(s.last)), mates(s)
    before = s.one(probe)
    for positions in ("all", "generated"):
        bad = s.ask(prompt, overflowing(s, positions), new=8)
        for turn in range(2):
            lost, *done = asyncio.run(_together(s, [bad, *others]))
            named = isinstance(lost, SteeringLost) and "finite" in str(lost)
            ensure(named, f"{positions}, turn {turn + 1}: states were not finite, and {_said(lost)}")
            for i, (request, got) in enumerate(zip(others, done, strict=True)):
                what = f"{positions}, turn {turn + 1}, request {i} beside it"
                ensure(not isinstance(got, BaseException), f"{what}: {_said(got)}")
                worst = max(worst, s.right(got[0].samples[0], request, what))
            what = f"the same prompt plain, after {positions}"
            for request in (plain, probe):
                (got,) = asyncio.run(_together(s, [request]))
                ensure(not isinstance(got, BaseException), f"{what}: {_said(got)}")
                worst = max(worst, s.right(got[0].samples[0], request, what))
            same = np.array_equal(got[0].samples[0].logprobs, before.logprobs)
            ensure(same, f"{what}: other bits than before")
    why = str(lost).rpartition("withheld: ")[2]
    return f"4 requests ended ({why[:60]}…), {len(others)} beside each, off by {worst:.1g} nats"


def overflowing(s: Subject, positions: str) -> SteeringPlan:
    """Steps that each are finite numbers, and whose sum no number format of the engine holds."""
    most = 1e308 if s.engine.info.dtype == "float64" else 3e38
    first = s.place(Add(amount=most), s.first, positions=positions)
    return first | s.place(Add(amount=most), s.first, 1, positions=positions, relative=True)


def mates(s: Subject) -> list[Request]:
    """Requests of several kinds, long enough to be there before and after."""
    a = s.push(s.middle, 0.6)
    plans = (
        EMPTY,
        s.place(Add(amount=s.push(s.first, 0.5)), s.first),
        s.place(Ablate(), s.first) | s.place(Pin(a), s.middle, 1),
        s.place(Add(amount=0.5), s.first, relative=True, renormalise=True),
        s.place(Add(amount=a), s.middle, positions="generated"),
    )
    return [
        s.ask(s.fresh(20 + 9 * i), p, new=12, capture=s.watch(s.last) if i % 2 else None)
        for i, p in enumerate(plans)
    ]


async def _together(s: Subject, requests: list[Request]) -> list[Any]:
    """Completions, or the errors in their place."""
    return await asyncio.gather(*(s.engine.agenerate(r) for r in requests), return_exceptions=True)


def _said(found: Any) -> str:
    """An outcome in words."""
    if isinstance(found, BaseException):
        return f"{type(found).__name__}: {found}"
    return f"its answer was given out, {found[0].samples[0].tokens}"
