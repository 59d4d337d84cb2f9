"""Several edits at once: order, stacks, gates, and every stream."""

from __future__ import annotations

import numpy as np

from trimtab.conformance.bounds import gap
from trimtab.conformance.edits import downstream, edited
from trimtab.conformance.registry import check, ensure
from trimtab.conformance.subject import Subject
from trimtab.interventions import Ablate, Add, Cap, Gate, Pin
from trimtab.plans import EMPTY
from trimtab.sites import STREAMS, Site


@check()
def stacks(s: Subject) -> str:
    """Placements at one site act in plan order, each on the result of the one before; stacks of six at every layer."""
    worst = 0.0
    for site in s.sites:
        u, a = s.direction(site).unit.astype(np.float64), 0.5 * s.size(site)
        add, ablate = s.place(Add(amount=a), site), s.place(Ablate(), site)
        before, after = edited(s, add | ablate, site)
        removed = before - np.outer(before.astype(np.float64) @ u, u)
        worst = max(worst, s.same_states(after, removed, site, "add, then ablate"))
        before, after = edited(s, ablate | add, site)
        worst = max(worst, s.same_states(after, removed + a * u, site, "ablate, then add"))
        high = add | ablate
        for which in (1, 2, 3):
            high = high | s.place(Pin(0.1 * which * a), site, which)
        high = high | s.place(Cap(low=-0.2 * a, high=0.2 * a), site, 1)
        before, after = edited(s, high, site)
        worst = max(worst, s.same_states(after, _stacked(s, site, before, a), site, "six edits"))
    return f"off by {worst:.1g} of the typical norm"


def _stacked(s: Subject, site: Site, h: np.ndarray, a: float) -> np.ndarray:
    """The six edits one after the other, in closed form."""
    h = h.astype(np.float64) + a * s.direction(site).unit
    for which, value in ((0, 0.0), (1, 0.1 * a), (2, 0.2 * a), (3, 0.3 * a)):
        u = s.direction(site, which).unit.astype(np.float64)
        h = h + np.outer(value - h @ u, u)
    u = s.direction(site, 1).unit.astype(np.float64)
    p = h @ u
    return h + np.outer(np.clip(p, -0.2 * a, 0.2 * a) - p, u)


@check()
def gates(s: Subject) -> str:
    """A gate opens by the same token's coordinate at its own or an earlier site, taken before any edit there."""
    count = 0
    for edit_site, gate_site in ((s.first, s.first), (s.last, s.last), (s.last, s.first)):
        p = s.coordinates(gate_site, 1)
        threshold = gap(p)
        for side, opened in (("above", p > threshold), ("below", p < threshold)):
            gate = Gate(s.direction(gate_site, 1), **{side: threshold}, layer=gate_site.layer)  # type: ignore[arg-type]
            plan = s.place(Add(amount=0.6 * s.size(edit_site)), edit_site, gate=gate)
            before, after = edited(s, plan, edit_site)
            moved = (before != after).any(1)
            ensure(
                np.array_equal(moved, opened),
                f"a gate {side} {threshold:.3g} at {gate_site} opened for tokens {np.flatnonzero(moved).tolist()}, "
                f"not {np.flatnonzero(opened).tolist()}",
            )
            count += int(opened.sum())
    return f"6 gates, open for {count} of {6 * len(s.prompts[0])} tokens, exactly those"


@check()
def gate_times(s: Subject) -> str:
    """A gate reads before its site's edits unless told `after`, also where an earlier edit lifts the token."""
    early, late = s.first, s.last
    p = s.coordinates(early, 1)
    threshold = gap(p)
    lift = s.place(Pin(threshold + s.size(early)), early, 1)
    plans = {
        "before": p > threshold,
        "after": np.ones(len(p), bool),
    }
    if early != late:
        for at, expected in plans.items():
            gate = Gate(s.direction(early, 1), above=threshold, layer=early.layer, at=at)
            plan = lift | s.place(Add(amount=0.6 * s.size(late)), late, gate=gate)
            before, after = edited(s, plan, late)
            ensure(
                np.array_equal((before != after).any(1), expected), f"a gate that reads {at} opened wrongly"
            )
    gate = Gate(s.direction(early, 1), above=threshold)
    plan = lift | s.place(Add(amount=0.6 * s.size(early)), early, gate=gate)
    difference = s.states(plan, early) - s.states(lift, early)
    ensure(
        np.array_equal((difference != 0).any(1), p > threshold),
        "a gate at the edit's own site read after an edit",
    )
    return "before, after, and at the edit's own site"


@check("streams")
def streams(s: Subject) -> str:
    """At every stream Add moves the state by the vector and reaches the output."""
    found = [t for t in STREAMS if Site(s.first.layer, t) in s.engine.info.widths]
    worst = 0.0
    for site in (Site(n, t) for n in {s.first.layer, s.last.layer} for t in found):
        if site not in s.engine.info.widths:
            continue
        a = 2.0 * s.size(site)
        plan = s.place(Add(amount=a), site, 1)
        before, after = (s.states(plan, site, at) for at in ("before", "after"))
        worst = max(worst, s.same_states(after, before + a * s.direction(site, 1).unit, site, "add"))
        block = Site(site.layer)
        ensure(not np.array_equal(s.states(plan, block), s.plain(block)), f"an Add at {site} goes nowhere")
    return f"{len(found)} streams, off by {worst:.1g} of the typical norm"


@check("streams")
def residual(s: Subject) -> str:
    """Captures add up: resid_pre + attn_out + mlp_out is resid_post, and that is the next block's resid_pre."""
    worst, prompt = 0.0, s.prompts[0]
    plan = s.place(Add(amount=0.3 * s.size(s.first)), s.first)
    for layer in s.layers:
        parts = [Site(layer, t) for t in ("resid_pre", "attn_out", "mlp_out")]
        if any(p not in s.engine.info.widths for p in parts):
            return "this model's blocks do not add up from these streams"
        for chosen in (EMPTY, plan):
            pre, attn, mlp = (s.states(chosen, p) for p in parts)
            post = s.states(chosen, Site(layer), "before")
            worst = max(
                worst, s.same_states(post, pre.astype(np.float64) + attn + mlp, Site(layer), "the sum")
            )
            following = Site(layer + 1, "resid_pre")
            if following in s.engine.info.widths:
                then = s.engine.capture(prompt, [following], plan=chosen)[0][following]
                worst = max(worst, s.same_states(then, s.states(chosen, Site(layer)), following, "handed on"))
    return f"off by {worst:.1g} of the typical norm"


@check()
def mixture(s: Subject) -> str:
    """One plan with every operator at every layer of the check: the output is the truth's, or depends on every part."""
    parts = [
        s.place(Add(dose=0.3), s.first),
        s.place(Ablate(), s.first, 1),
        s.place(Cap(high=0.0), s.middle, 2),
        s.place(Add(amount=0.2), s.middle, relative=True, renormalise=True),
        s.place(Pin(0.2 * s.size(s.last)), s.last, 3, positions={"after": 2}),
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole | part
    if s.truth is not None:
        return f"off by {downstream(s, whole):.1g} nats"
    scored = s.wanted(s.prompts[0], s.prompts[1].tokens, s.resolved(whole, s.prompts[0]))
    for i in range(len(parts)):
        rest = [p for j, p in enumerate(parts) if j != i]
        fewer = rest[0]
        for part in rest[1:]:
            fewer = fewer | part
        other = s.wanted(s.prompts[0], s.prompts[1].tokens, s.resolved(fewer, s.prompts[0]))
        ensure(not np.array_equal(scored, other), f"placement {i} of the plan makes no difference")
    return f"{len(parts)} placements, each makes a difference"
