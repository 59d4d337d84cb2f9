"""What one edit does to the state at its site, in closed form, and to the output, against the truth."""

from __future__ import annotations

import numpy as np

from trimtab.conformance.bounds import distance, gap
from trimtab.conformance.registry import check, ensure
from trimtab.conformance.subject import Subject, watch
from trimtab.directions import ConceptVectors
from trimtab.engines.requests import ScoreRequest
from trimtab.interventions import Ablate, Add, Cap, Deltas, Pin
from trimtab.plans import EMPTY, SteeringPlan
from trimtab.sites import Site


def edited(s: Subject, plan: SteeringPlan, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """States [T, width] before and after the edits at a site; the distribution after the prompt is the truth's."""
    before, after = (s.states(plan, site, at) for at in ("before", "after"))
    if s.truth is not None:
        downstream(s, plan)
    return before, after


def downstream(s: Subject, plan: SteeringPlan) -> float:
    """The distributions [T, V] of the first prompt under a plan are the truth's; the error in nats."""
    assert s.truth is not None
    prompt = s.prompts[0]
    got = s.engine.score(ScoreRequest(prompt, None, plan, "all"))[0].distribution
    assert got is not None
    want = s.truth.run(prompt.tokens, s.resolved(plan, prompt)).logprobs
    return s.same_logprobs(got, want, "the output")


@check()
def changes_output(s: Subject) -> str:
    """An Add at any of the layers changes the next-token distribution, from the prompt's first step on."""
    found = []
    for site in s.sites:
        plan = s.place(Add(amount=0.8 * s.size(site)), site)
        tables = [
            s.engine.score(ScoreRequest(s.prompts[0], None, p, "last"))[0].distribution for p in (EMPTY, plan)
        ]
        plain, steered = (t for t in tables if t is not None)
        found.append(distance(steered, plain))
        sample = s.one(s.ask(s.prompts[0], plan, new=1))
        ensure(
            sample.applied.fingerprint != "plain", f"the receipt of a steered request at {site} says plain"
        )
        ensure(found[-1] > 3 * s.bounds.table, f"an Add at {site} changes the output by {found[-1]:.2g} nats")
        first = s.wanted(s.prompts[0], sample.tokens, s.resolved(plan, s.prompts[0]))
        s.same_logprobs(sample.logprobs, first, f"the first token under an Add at {site}")
    return "by " + ", ".join(f"{x:.2g}" for x in found) + f" nats at layers {', '.join(map(str, s.layers))}"


@check()
def identity(s: Subject) -> str:
    """Plans that do nothing leave every bit of output and states as it is."""
    site, spec = s.middle, watch(*s.sites)
    nothing = {
        "no placements": SteeringPlan(),
        "Add 0": s.place(Add(amount=0.0), site),
        "Ablate keep 1": s.place(Ablate(keep=1.0), site),
        "Cap far outside": s.place(Cap(low=-1e6, high=1e6), site),
        "Add scaled by 0": s.place(Add(amount=5.0), site).scaled(0.0),
        "Pin scaled by 0": s.place(Pin(9.0), site).scaled(0.0),
        "positions never reached": s.place(Pin(9.0), site, positions={"after": 100_000}),
    }
    nothing = {n: p for n, p in nothing.items() if s.able(s.ask(s.prompts[0], p))}
    plain = s.one(s.ask(s.prompts[0], EMPTY, capture=spec))
    ensure(plain.applied.fingerprint == "plain", "the receipt of a plain request does not say plain")
    s.right(plain, s.ask(s.prompts[0]), "the plain engine")
    for name, plan in nothing.items():
        other = s.one(s.ask(s.prompts[0], plan, capture=spec))
        ensure(other.tokens == plain.tokens, f"{name}: other tokens")
        ensure(np.array_equal(other.logprobs, plain.logprobs), f"{name}: the output lost its bits")
        assert other.capture is not None and plain.capture is not None
        for at in s.sites:
            ensure(np.array_equal(other.capture[at], plain.capture[at]), f"{name}: {at} lost its bits")
    return f"{len(nothing)} plans, bit for bit"


@check()
def add(s: Subject) -> str:
    """Add moves resid_post of its layer by exactly the vector, and nothing below it."""
    worst = 0.0
    for site in s.sites:
        a, u = 0.7 * s.size(site), s.direction(site).unit
        plan = s.place(Add(amount=a), site)
        before, after = edited(s, plan, site)
        ensure(np.array_equal(before, s.plain(site)), f"an Add at {site} changes what is before it")
        worst = max(worst, s.same_states(after, before + a * u, site, "add"))
        for below in (x for x in s.sites if x < site):
            ensure(np.array_equal(s.states(plan, below), s.plain(below)), f"an Add at {site} moves {below}")
    return f"off by {worst:.1g} of the typical norm"


@check()
def layers(s: Subject) -> str:
    """An Add at every single layer acts there and reaches the output: no layer is skipped, none is shifted."""
    sites = [Site(n) for n in range(s.engine.info.n_layers)]
    prompt, effects = s.prompts[1], []
    plain = s.engine.score(ScoreRequest(prompt, None, EMPTY, "last"))[0].distribution
    plans = [s.place(Add(amount=0.8 * s.size(x)), x) for x in sites]
    scores = s.engine.score([ScoreRequest(prompt, None, p, "last") for p in plans])
    for site, plan, score in zip(sites, plans, scores, strict=True):
        assert score.distribution is not None and plain is not None
        effects.append(distance(score.distribution, plain))
        ensure(effects[-1] > 3 * s.bounds.table, f"an Add at {site} does not reach the output")
        if s.truth is not None:
            want = s.truth.run(prompt.tokens, s.resolved(plan, prompt)).logprobs[-1]
            s.same_logprobs(score.distribution[None], want[None], f"an Add at {site}")
    return f"{len(sites)} layers, by {min(effects):.2g} to {max(effects):.2g} nats"


@check()
def ablate(s: Subject) -> str:
    """Ablate(keep) leaves keep times the coordinate, and the rest of the state alone."""
    worst = 0.0
    for site in s.sites:
        u = s.direction(site).unit.astype(np.float64)
        for keep in (0.0, 0.5, -1.0):
            before, after = edited(s, s.place(Ablate(keep), site), site)
            want = before - (1 - keep) * np.outer(before.astype(np.float64) @ u, u)
            worst = max(worst, s.same_states(after, want, site, f"keep {keep}"))
    return f"off by {worst:.1g} of the typical norm"


@check()
def cap(s: Subject) -> str:
    """Cap moves what is outside onto the bound, and leaves what is inside bit-identical."""
    worst = 0.0
    for site in s.sites:
        u, p = s.direction(site).unit.astype(np.float64), s.coordinates(site)
        middle = gap(p)
        for low, high in ((None, middle), (middle, None), (middle, middle + float(np.ptp(p)) / 4)):
            before, after = edited(s, s.place(Cap(low, high), site), site)
            new = np.clip(p, -np.inf if low is None else low, np.inf if high is None else high)
            worst = max(worst, s.same_states(after, before + np.outer(new - p, u), site, "cap"))
            inside = new == p
            ensure(np.array_equal(after[inside], before[inside]), f"{site}: a token inside the bounds moved")
            ensure(not np.array_equal(after, before), f"{site}: no token was held")
    return f"off by {worst:.1g} of the typical norm; inside the bounds bit for bit"


@check()
def pin(s: Subject) -> str:
    """Pin sets the coordinate, in absolute units or in stored stds."""
    worst = 0.0
    for site in s.sites:
        d = s.direction(site)
        assert d.mean is not None and d.std is not None
        for op, value in (
            (Pin(0.4 * s.size(site)), 0.4 * s.size(site)),
            (Pin(-2.0, z=True), d.mean - 2 * d.std),
        ):
            before, after = edited(s, s.place(op, site), site)
            u = d.unit.astype(np.float64)
            want = before + np.outer(value - before.astype(np.float64) @ u, u)
            worst = max(worst, s.same_states(after, want, site, "pin"))
    return f"off by {worst:.1g} of the typical norm"


@check()
def relative(s: Subject) -> str:
    """A relative Add displaces every token by a multiple of its own norm."""
    worst = 0.0
    for site in s.sites:
        before, after = edited(s, s.place(Add(amount=-0.4), site, relative=True), site)
        norm = np.linalg.norm(before, axis=1, keepdims=True)
        worst = max(
            worst, s.same_states(after, before - 0.4 * norm * s.direction(site).unit, site, "relative")
        )
    return f"off by {worst:.1g} of the typical norm"


@check()
def renormalise(s: Subject) -> str:
    """`renormalise` turns the state and keeps its length; a token without a change keeps its bits."""
    worst = 0.0
    for site in s.sites:
        a, u = 0.8 * s.size(site), s.direction(site).unit
        before, after = edited(s, s.place(Add(amount=a), site, renormalise=True), site)
        length, moved = np.linalg.norm(before, axis=1, keepdims=True), before + a * u
        want = moved * length / np.linalg.norm(moved, axis=1, keepdims=True)
        worst = max(worst, s.same_states(after, want, site, "turn"))
        middle = gap(s.coordinates(site))
        before, after = edited(s, s.place(Cap(high=middle), site, renormalise=True), site)
        inside = s.coordinates(site) < middle
        ensure(
            np.array_equal(after[inside], before[inside]), f"{site}: a token without a change lost its bits"
        )
        norms = np.linalg.norm(after, axis=1) - length[:, 0]
        ensure(
            np.abs(norms).max() <= s.bounds.state * s.size(site) * 4,
            f"{site}: a capped state lost its length",
        )
    return f"off by {worst:.1g} of the typical norm"


@check()
def scaled(s: Subject) -> str:
    """`scaled` multiplies the shift of an Add, and the finished change of everything else."""
    site, worst = s.middle, 0.0
    ops = (Add(amount=s.size(site)), Ablate(), Cap(high=gap(s.coordinates(site))), Pin(s.size(site)))
    for op in ops:
        before, whole = edited(s, s.place(op, site), site)
        _, part = edited(s, s.place(op, site).scaled(0.25), site)
        worst = max(worst, s.same_states(part, before + 0.25 * (whole - before), site, op.op))
    return f"{len(ops)} operators, off by {worst:.1g} of the typical norm"


@check()
def strengths(s: Subject) -> str:
    """Dose and scale are totals over a plan's layers, in typical and in raw norms; per_layer gives each the whole."""
    file, worst = ConceptVectors.from_directions([s.direction(x) for x in s.sites]), 0.0
    layers = list(s.layers)
    for per_layer, share in ((False, len(layers)), (True, 1)):
        dose = SteeringPlan.add(file, dose=0.3, layers=layers, per_layer=per_layer)
        scale = SteeringPlan.add(file, scale=0.2, layers=layers, per_layer=per_layer)
        for site in s.sites:
            d = s.direction(site)
            for plan, total in ((dose, 0.3 * s.size(site)), (scale, 0.2 * d.norm)):
                before, after = edited(s, plan, site)
                worst = max(worst, s.same_states(after, before + total / share * d.unit, site, "share"))
    return f"off by {worst:.1g} of the typical norm"


@check()
def deltas(s: Subject) -> str:
    """Row t of a table acts at position start + t: in the prompt, across its end and while decoding."""
    worst = 0.0
    for site in (s.first, s.last):
        shortest = min(len(p) for p in s.prompts)
        rng = np.random.default_rng(3)
        table = 0.2 * s.size(site) * rng.standard_normal((shortest + 2, s.engine.info.width(site)))
        table = table.astype(np.float32) / np.float32(np.sqrt(table.shape[1]))
        plan = s.place(Deltas(table, start=2), site)
        found = [
            s.run([s.ask(p, plan, capture=watch(site, at=at)) for p in s.prompts])
            for at in ("before", "after")
        ]
        for before, after in zip(*found, strict=True):
            b, a = before.samples[0].capture, after.samples[0].capture
            assert a is not None and b is not None
            change = np.zeros_like(b[site])
            rows = min(len(change) - 2, len(table))
            change[2 : 2 + rows] = table[:rows]
            worst = max(worst, s.same_states(a[site], b[site] + change, site, "deltas"))
            s.right(after.samples[0], s.ask(after.prompt, plan), "deltas")
    return f"{len(s.prompts)} prompts in one batch, off by {worst:.1g} of the typical norm"
