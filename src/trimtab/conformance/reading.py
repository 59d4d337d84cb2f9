"""Captures, readings and scores: exactly what was asked for, and equal to the truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from trimtab.conformance.bounds import distance, gap
from trimtab.conformance.registry import Failed, TooWeak, check, ensure
from trimtab.conformance.subject import NEW, Subject, watch
from trimtab.directions import ConceptVectors
from trimtab.engines.requests import ScoreRequest
from trimtab.interventions import Ablate, Add, Cap, Deltas, Gate, Pin
from trimtab.plans import EMPTY, SteeringPlan
from trimtab.readouts import Readout


def mixed_plan(s: Subject) -> SteeringPlan:
    """Edits at the first and the last layer, the second on some tokens only."""
    return s.place(Add(amount=0.5 * s.size(s.first)), s.first) | s.place(
        Pin(0.3 * s.size(s.last)), s.last, positions={"after": 3}
    )


@check()
def capture_parity(s: Subject) -> str:
    """Captures of a batch, plain and steered, before and after the edits, equal the truth's residual stream."""
    worst = 0.0
    for plan in (EMPTY, mixed_plan(s)):
        for at in ("before", "after"):
            captures = s.engine.capture(list(s.prompts), s.sites, at=at, plan=plan)
            for prompt, capture in zip(s.prompts, captures, strict=True):
                resolved = s.resolved(plan, prompt)
                for site in s.sites:
                    want = s.wanted_states(prompt, (), resolved, site, at)
                    worst = max(worst, s.same_states(capture[site], want, site, f"{at} the edits"))
    if s.truth is None:
        return f"alone and in a batch agree to {worst:.1g} of the typical norm (compared with itself)"
    return f"off by {worst:.1g} of the typical norm; the plain engine's own rounding is {s.noise[0]:.1g}"


@check()
def capture_rows(s: Subject) -> str:
    """Captures hold the sites and the positions that were asked for, all of them and no others, as float32."""
    prompt, length = s.prompts[0], len(s.prompts[0])
    asked: list[tuple[Any, list[int]]] = [
        ("last_prompt", [length - 1]),
        ("prompt", list(range(length))),
        ({"after": 1}, list(range(2, length))),
        ({"ranges": [[0, 2], [length - 2, None]]}, [0, 1, length - 2, length - 1]),
    ]
    for sites in ([s.first], [s.last], s.sites):
        for kind, rows in asked:
            capture = s.engine.capture(prompt, sites, positions=kind)[0]
            ensure(set(capture.values) == set(sites), f"asked for {sites}, got {list(capture.values)}")
            ensure(
                list(capture.positions) == rows, f"{kind}: positions {list(capture.positions)}, not {rows}"
            )
            for site in sites:
                ensure(capture[site].dtype == np.float32, f"{site} came back as {capture[site].dtype}")
                s.same_states(capture[site], s.plain(site)[rows], site, str(kind))
    return f"{3 * len(asked)} selections"


@check()
def capture_generated(s: Subject) -> str:
    """Captures of a generation cover every token that went through the model, each at its own absolute position."""
    plan, worst = mixed_plan(s), 0.0
    requests = [s.ask(p, plan, capture=watch(s.first, s.last)) for p in s.prompts]
    for request, done in zip(requests, s.run(requests), strict=True):
        sample = done.samples[0]
        assert sample.capture is not None
        want = list(range(len(done.prompt) + len(sample.tokens) - 1))
        ensure(list(sample.capture.positions) == want, f"positions {list(sample.capture.positions)}")
        worst = max(worst, s.right(sample, request, "while generating"))
    length = len(s.prompts[0])
    for kind, rows in (("generated", list(range(length, length + NEW - 1))), ("last_prompt", [length - 1])):
        request = s.ask(s.prompts[0], plan, capture=watch(s.first, positions=kind))
        sample = s.one(request)
        assert sample.capture is not None
        ensure(list(sample.capture.positions) == rows, f"{kind}: positions {list(sample.capture.positions)}")
        worst = max(worst, s.right(sample, request, kind))
    return (
        f"log-probabilities off by {worst:.1g} nats, states within {s.bounds.state:.1g} of the typical norm"
    )


@check()
def reading_parity(s: Subject) -> str:
    """Readings are the rows times the states that emitted each token, raw and z, before and after the edits; streamed
    readings are the same."""
    sites = sorted({s.first, s.last})
    named = [replace(s.direction(x, which), name=f"concept {which}") for which in (0, 3) for x in sites]
    vectors, worst = ConceptVectors.from_directions(named), 0.0
    for z in (False, True):
        for at in ("before", "after"):
            readout = Readout.from_vectors(vectors, z=z, at=at)
            requests = [
                s.ask(p, mixed_plan(s), capture=watch(*sites, at=at), readout=readout) for p in s.prompts
            ]
            events = list(s.engine.stream(requests))
            for i, prompt in enumerate(s.prompts):
                mine = [e for e in events if e.request == i]
                sample = mine[-1].sample
                if sample is None or sample.readings is None or sample.capture is None:
                    raise Failed("a request came back without its readings")
                emitting = list(range(len(prompt) - 1, len(prompt) - 1 + len(sample.tokens)))
                ensure(
                    list(sample.readings.positions) == emitting, f"read at {list(sample.readings.positions)}"
                )
                for layer, site in enumerate(sites):
                    want = readout.apply(site, sample.capture[site][emitting])
                    unit = float(np.max(readout.scale[site])) if z else 1.0
                    error = float(np.abs(sample.readings.values[:, layer] - want).max()) * unit / s.size(site)
                    ensure(
                        error <= 10 * s.bounds.state, f"{at} {site}, z={z}: off by {error:.2g} of the norm"
                    )
                    worst = max(worst, error)
                streamed = np.stack([e.reading for e in mine if e.token is not None])  # type: ignore[misc]
                ensure(
                    np.array_equal(streamed, sample.readings.values),
                    "streamed readings differ from the final ones",
                )
                s.right(sample, requests[i], "a request that is read")
    return f"off by {worst:.1g} of the typical norm"


def operators(s: Subject) -> dict[str, SteeringPlan]:
    """A plan for every operator and flag at the middle layer, of sizes that matter there."""
    site = s.middle
    a, middle = s.push(site, 0.9), gap(s.coordinates(site))
    width = s.engine.info.width(site)
    table = a / np.sqrt(width) * np.linspace(-1, 1.5, 6 * width).reshape(6, -1)
    gate = Gate(s.direction(site, 1), above=gap(s.coordinates(site, 1)))
    add = s.place(Add(amount=a), site)
    found = {
        "add": add,
        "add dose": s.place(Add(dose=0.5), site),
        "relative": s.place(Add(amount=0.5), site, relative=True),
        "renormalise": s.place(Add(amount=a), site, renormalise=True),
        "ablate": s.place(Ablate(), site),
        "reflect": s.place(Ablate(keep=-1.0), site),
        "cap high": s.place(Cap(high=middle), site),
        "cap low": s.place(Cap(low=middle), site),
        "pin": s.place(Pin(a), site),
        "deltas": s.place(Deltas(table, start=2), site),
        "gated": s.place(Add(amount=a), site, gate=gate),
        "scaled pin": s.place(Pin(a), site).scaled(0.4),
        "some positions": s.place(Add(amount=a), site, positions={"after": 2}),
        "stacked": add | s.place(Ablate(), site, 1) | s.place(Cap(low=-0.1 * a, high=0.1 * a), site, 2),
    }
    return {n: p for n, p in found.items() if s.able(s.ask(s.prompts[0], p))}


@check()
def score_parity(s: Subject) -> str:
    """Distributions over the full vocabulary, plain and under every operator, are the truth's and sum to 1."""
    prompt, extra, worst = s.prompts[0], s.prompts[1].tokens[-3:], 0.0
    plans = {"plain": EMPTY, **operators(s)}
    requests = [ScoreRequest(prompt, extra, p, "all") for p in plans.values()]
    plain: np.ndarray | None = None
    for name, request, got in zip(plans, requests, s.engine.score(requests), strict=True):
        table = got.distribution
        if table is None or table.shape[0] != len(prompt) + len(extra):
            raise Failed(f"{name}: not a distribution after every token")
        off = float(np.abs(np.exp(table.astype(np.float64)).sum(1) - 1).max())
        ensure(off < max(1e-3, s.bounds.table), f"{name}: probabilities sum to 1 only within {off:.2g}")
        chosen = table[np.arange(len(prompt) - 1, len(table) - 1), list(extra)]
        s.same_logprobs(got.logprobs, chosen, f"{name}: the score of its own distribution")
        if s.truth is not None:
            want = s.truth.run((*prompt.tokens, *extra), s.resolved(request.plan, prompt)).logprobs
        else:
            alone = s.engine.score(request)[0].distribution
            assert alone is not None
            want = alone
        worst = max(worst, s.same_logprobs(table, want, name))
        if plain is None:
            plain = table
        else:
            ensure(not np.array_equal(table, plain), f"{name}: the scores are those of the plain model")
    return f"{len(plans)} plans, {plain.shape[1] if plain is not None else 0} tokens wide, off by {worst:.1g} nats"


@check()
def generation_parity(s: Subject) -> str:
    """Generated log-probabilities under every operator, in one batch, are the truth's for the same tokens."""
    plans, worst, weak = {"plain": EMPTY, **operators(s)}, 0.0, 0
    for temperature in (0.0, 1.0):
        requests = [s.ask(s.prompts[1], p, new=8, temperature=temperature) for p in plans.values()]
        for name, request, done in zip(plans, requests, s.run(requests), strict=True):
            worst = max(worst, s.right(done.samples[0], request, name))
            plain = s.wanted(s.prompts[1], done.samples[0].tokens, EMPTY)
            weak += not s.clear(distance(done.samples[0].logprobs, plain))
    if weak > 1.8 * len(plans):
        raise TooWeak(f"{weak} of {2 * len(plans)} plans are too weak to prove anything")
    against = "Transformers in float32" if s.truth is not None else "its own scores"
    return f"{len(plans)} plans, off by {worst:.1g} nats from {against}; the plain engine by {s.noise[1]:.1g}"


@check()
def streaming(s: Subject) -> str:
    """A stream's events are the tokens of the finished sample, one each, then the sample; a stop string never leaks."""
    plan = s.place(Add(amount=0.6 * s.size(s.middle)), s.middle)
    requests = [s.ask(p, q) for p, q in zip(s.prompts, (plan, EMPTY, plan), strict=True)]
    events = list(s.engine.stream(requests))
    for i, done in enumerate(s.run(requests)):
        mine, sample = [e for e in events if e.request == i], done.samples[0]
        ensure(
            [e.sample is not None for e in mine] == [False] * (len(mine) - 1) + [True], "not one final event"
        )
        ensure(tuple(e.token for e in mine[:-1]) == sample.tokens, f"request {i}: other tokens were streamed")
        ensure("".join(e.text for e in mine) == sample.text, f"request {i}: other text was streamed")
        assert mine[-1].sample is not None
        s.same_sample(mine[-1].sample, sample, f"streamed request {i}")
    free = s.one(s.ask(s.prompts[0], plan, new=12))
    stop = free.text[len(free.text) // 2 : len(free.text) // 2 + 3]
    want = free.text[: free.text.index(stop)] if stop else ""
    if stop:
        events = list(s.engine.stream(s.ask(s.prompts[0], plan, new=12, stop=(stop,))))
        ensure("".join(e.text for e in events) == want, f"the text before {stop!r} is not what was streamed")
    return f"{len(requests)} streams" + (" and a stop string" if stop else "")
