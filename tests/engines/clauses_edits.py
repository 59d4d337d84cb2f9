"""What an edit does to the state at its site: closed forms, token by token."""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.registry import clause, coordinates, every_operator, gap, place
from engines.subjects import MESSAGES, Subject
from trimtab.directions import ConceptVectors
from trimtab.engines.requests import CaptureSpec, Request, Sampling
from trimtab.interventions import Ablate, Add, Cap, Deltas, Gate, Pin
from trimtab.plans import EMPTY, SteeringPlan
from trimtab.prompts import Prompt, in_ranges, resolve_positions
from trimtab.sites import STREAMS, Site

NEW = 5  # tokens generated where a clause looks into decoding


def states(s: Subject, plan: Any, site: Site, at: str = "after", prompt: Any = None) -> np.ndarray:
    """States [T, width] of a prompt (the first) at a site."""
    return s.engine.capture(s.prompts[0] if prompt is None else prompt, [site], at=at, plan=plan)[0][site]


def residuals(s: Subject) -> list[Site]:
    return [Site(layer) for layer in s.layers]


def before_and_after(
    s: Subject, prompts: list[Any], plan: Any, site: Site
) -> list[tuple[Prompt, np.ndarray, np.ndarray]]:
    """(prompt, before, after) [T + NEW - 1, width] of greedy generations in one batch."""
    sampling = Sampling(max_tokens=NEW, ignore_eos=True)
    found = []
    for at in ("before", "after"):
        spec = CaptureSpec((site,), at=at)
        found.append(s.engine.generate([Request(p, plan, sampling, capture=spec) for p in prompts]))
    return [
        (b.prompt, b.samples[0].capture[site], a.samples[0].capture[site])  # type: ignore[index]
        for b, a in zip(*found, strict=True)
    ]


@clause
def empty_plan_is_plain(s: Subject) -> None:
    """Plans that do nothing leave every bit as it is, and the plain model is the oracle's."""
    site = Site(s.layers[1])
    nothing = [
        EMPTY,
        SteeringPlan(),
        place(s, Add(amount=0.0), site),
        place(s, Ablate(keep=1.0), site),
        place(s, Cap(low=-1e6, high=1e6), site),
        place(s, Add(amount=5.0), site).scaled(0.0),
        place(s, Pin(0.0), site).scaled(0.0),
        place(s, Pin(9.0), site, positions={"after": 500}),
    ]
    sampling = Sampling(max_tokens=NEW, ignore_eos=True)
    spec = CaptureSpec(tuple(residuals(s)))
    plain = s.engine.generate(Request(s.prompts[0], None, sampling, spec))[0].samples[0]
    assert plain.applied.fingerprint == "plain"
    assert plain.tokens == s.oracle.greedy(s.prompts[0], EMPTY, NEW)
    for plan in nothing:
        other = s.engine.generate(Request(s.prompts[0], plan, sampling, spec))[0].samples[0]
        assert other.tokens == plain.tokens
        assert np.array_equal(other.logprobs, plain.logprobs)
        for site in residuals(s):
            assert np.array_equal(other.capture[site], plain.capture[site]), f"{site} lost its bits"  # type: ignore[index]


@clause
def add_moves_one_layer_by_the_vector(s: Subject) -> None:
    """`Add` at a block changes what leaves it by exactly the vector, nothing below, and something above."""
    everywhere = [Site(n) for n in range(s.engine.info.n_layers)]
    plain = s.engine.capture(s.prompts[0], everywhere)[0]
    for site in residuals(s):
        d, a = s.direction(site), 0.7 * s.size(site)
        steered = s.engine.capture(s.prompts[0], everywhere, plan=place(s, Add(amount=a), site))[0]
        for other in everywhere:
            if other.layer < site.layer:
                assert np.array_equal(steered[other], plain[other]), f"{other} moved by an edit at {site}"
            elif other == site:
                s.same_states(steered[other], plain[other] + a * d.unit, other, "add")
            else:
                assert not np.allclose(steered[other], plain[other], atol=1e-3 * a), f"{other} did not move"
        assert np.array_equal(states(s, place(s, Add(amount=a), site), site, "before"), plain[site])


@clause
def strengths_are_totals_over_layers(s: Subject) -> None:
    """A dose is shared by the plan's layers: each gets dose / n of its own typical norm along its own row; scale shares
    the raw norm likewise. `per_layer` gives each layer the whole."""
    file = ConceptVectors.from_directions([s.direction(site) for site in residuals(s)])
    for per_layer, share in ((False, len(s.layers)), (True, 1)):
        dose = SteeringPlan.add(file, dose=0.3, layers="all", per_layer=per_layer)
        scale = SteeringPlan.add(file, scale=0.2, layers="all", per_layer=per_layer)
        for site in residuals(s):
            d = s.direction(site)
            for plan, whole in ((dose, 0.3 * s.size(site)), (scale, 0.2 * d.norm)):
                before, after = (states(s, plan, site, at) for at in ("before", "after"))
                s.same_states(after, before + whole / share * d.unit, site, f"shared by {share}")


@clause
def ablate_keeps_a_share(s: Subject) -> None:
    """`Ablate(keep)` leaves keep times the coordinate and the rest of the state alone."""
    for site in residuals(s):
        u = s.direction(site).unit
        plain = states(s, None, site)
        p = plain @ u
        for keep in (0.0, 0.5, -1.0, 2.0):
            got = states(s, place(s, Ablate(keep), site), site)
            s.same_states(got @ u, keep * p, site, f"keep {keep}")
            s.same_states(got - np.outer(got @ u, u), plain - np.outer(p, u), site, "the rest")


@clause
def cap_holds_its_bounds(s: Subject) -> None:
    """`Cap` moves what is outside onto the bound and leaves what is inside bit-identical."""
    for site in residuals(s):
        u, p = s.direction(site).unit, coordinates(s, site)
        plain, middle = states(s, None, site), gap(p)
        for low, high in ((None, middle), (middle, None), (middle, middle + np.ptp(p) / 4)):
            got = states(s, place(s, Cap(low, high), site), site)
            least, most = (-np.inf if low is None else low), (np.inf if high is None else high)
            s.same_states(got @ u, np.clip(p, least, most), site, "cap")
            inside = (p > least) & (p < most)
            assert np.array_equal(got[inside], plain[inside]), f"{site}: a token inside the bounds moved"
            assert (~inside).any() and not np.array_equal(got, plain)


@clause
def pin_sets_the_coordinate(s: Subject) -> None:
    """`Pin` sets the coordinate, in absolute units or in stored stds."""
    for site in residuals(s):
        d = s.direction(site)
        for op, value in (
            (Pin(0.4 * s.size(site)), 0.4 * s.size(site)),
            (Pin(-2.0, z=True), d.mean - 2 * d.std),  # type: ignore[operator]
        ):
            got = states(s, place(s, op, site), site)
            s.same_states(got @ d.unit, np.full(len(got), value), site, "pin")


@clause
def only_addressed_positions_move(s: Subject) -> None:
    """Every kind of positions, in the prompt and in what is generated; the others keep their bits."""
    site = Site(s.layers[1])
    prompt: Any = s.engine.encode(MESSAGES) if s.engine.info.template_hash else s.prompts[0]  # type: ignore[arg-type]
    length = len(prompt)
    kinds: list[Any] = [
        "all", "prompt", "generated", "last_prompt", {"after": 3}, {"after": length},
        {"ranges": [[1, 3], [length - 1, length + 2]]}, {"ranges": [[length + 1, None]]},
    ]  # fmt: skip
    if prompt.spans:
        kinds += [{"role": "user"}, {"role": "assistant"}]
    for op in (Add(amount=0.5 * s.size(site)), Pin(0.9 * s.size(site))):
        for kind in kinds:
            ranges = resolve_positions(kind, prompt)
            (found,) = before_and_after(s, [prompt], place(s, op, site, positions=kind), site)
            _, before, after = found
            moved = [bool(x) for x in (before != after).any(1)]
            assert moved == [in_ranges(i, ranges) for i in range(length + NEW - 1)], f"{op.op} at {kind}"


@clause
def relative_scales_with_the_state(s: Subject) -> None:
    """A relative `Add` displaces by a multiple of each token's own norm."""
    for site in residuals(s):
        plain = states(s, None, site)
        got = states(s, place(s, Add(amount=-0.4), site, relative=True), site)
        norm = np.linalg.norm(plain, axis=1, keepdims=True)
        s.same_states(got, plain - 0.4 * norm * s.direction(site).unit, site, "relative")


@clause
def renormalise_keeps_the_norm(s: Subject) -> None:
    """`renormalise` turns the state and keeps its length; tokens without a change keep their bits."""
    for site in residuals(s):
        u, a, plain = s.direction(site).unit, 0.8 * s.size(site), states(s, None, site)
        length = np.linalg.norm(plain, axis=1, keepdims=True)
        got = states(s, place(s, Add(amount=a), site, renormalise=True), site)
        moved = plain + a * u
        s.same_states(got, moved * length / np.linalg.norm(moved, axis=1, keepdims=True), site, "turn")
        s.same_states(np.linalg.norm(got, axis=1), length[:, 0], site, "norm")
        middle = gap(coordinates(s, site))
        capped = states(s, place(s, Cap(high=middle), site, renormalise=True), site)
        inside = coordinates(s, site) < middle
        assert np.array_equal(capped[inside], plain[inside]) and inside.any()
        s.same_states(np.linalg.norm(capped, axis=1), length[:, 0], site, "norm of the capped")


@clause
def gates_choose_tokens(s: Subject) -> None:
    """A gate reads the same token at its own or an earlier site, before any edit there or (earlier site) after all."""
    early, late = Site(0), Site(s.last)
    for edit_site, gate_site in ((early, early), (late, late), (late, early)):
        a, threshold = 0.6 * s.size(edit_site), gap(coordinates(s, gate_site, 1))
        for side in ("above", "below"):
            gate = Gate(s.direction(gate_site, 1), **{side: threshold}, layer=gate_site.layer)
            plan = place(s, Add(amount=a), edit_site, gate=gate)
            before, after = (states(s, plan, edit_site, at) for at in ("before", "after"))
            p = coordinates(s, gate_site, 1)
            opened = p > threshold if side == "above" else p < threshold
            assert opened.any() and (~opened).any()
            assert [bool(x) for x in (before != after).any(1)] == [bool(x) for x in opened], (
                f"{side} at {gate_site}"
            )
    # An edit at the gate's site lifts every token over the threshold: only a gate that reads after it opens for all.
    threshold = gap(coordinates(s, early, 1))
    lift = place(s, Pin(threshold + s.size(early)), early, 1)
    for at, expected in (
        ("after", np.ones(len(s.prompts[0]), bool)),
        ("before", coordinates(s, early, 1) > threshold),
    ):
        gate = Gate(s.direction(early, 1), above=threshold, layer=0, at=at)
        plan = lift | place(s, Add(amount=0.6 * s.size(late)), late, gate=gate)
        before, after = (states(s, plan, late, when) for when in ("before", "after"))
        assert np.array_equal((before != after).any(1), expected), f"gate that reads {at}"
    # At the edit's own site a gate reads before ANY edit there, also those that come first in the plan.
    gate = Gate(s.direction(early, 1), above=threshold)
    plan = lift | place(s, Add(amount=0.6 * s.size(early)), early, gate=gate)
    difference = states(s, plan, early) - states(s, lift, early)
    assert np.array_equal((difference != 0).any(1), coordinates(s, early, 1) > threshold)


@clause
def scaled_is_a_share_of_the_change(s: Subject) -> None:
    """`scaled` multiplies the shift of an `Add`, and the finished change of everything else."""
    site = Site(s.layers[1])
    plain = states(s, None, site)
    for op in (Add(amount=s.size(site)), Ablate(), Cap(high=gap(coordinates(s, site))), Pin(s.size(site))):
        whole, part = place(s, op, site), place(s, op, site).scaled(0.25)
        s.same_states(states(s, part, site), plain + 0.25 * (states(s, whole, site) - plain), site, op.op)


@clause
def deltas_follow_absolute_positions(s: Subject) -> None:
    """Row t of a table acts at position start + t: in the prompt, across its end, while decoding, in any batch."""
    for site in residuals(s):
        shortest = min(len(p) for p in s.prompts)
        rng = np.random.default_rng(3)
        table = 0.2 * s.size(site) * rng.standard_normal((shortest + 2, s.engine.info.width(site)))
        start = 2
        for prompt, before, after in before_and_after(
            s, list(s.prompts), place(s, Deltas(table, start=start), site), site
        ):
            change = np.zeros_like(before)
            rows = min(len(before) - start, len(table))
            change[start : start + rows] = table[:rows]
            s.same_states(after, before + change, site, f"deltas after a prompt of {len(prompt)}")


@clause
def edits_act_in_plan_order(s: Subject) -> None:
    """Placements at one site act one after the other, each on the result of the last."""
    for site in residuals(s):
        u, a = s.direction(site).unit, 0.5 * s.size(site)
        add, ablate = place(s, Add(amount=a), site), place(s, Ablate(), site)
        got = states(s, add | ablate, site) @ u
        s.same_states(got, np.zeros_like(got), site, "add, then ablate")
        got = states(s, ablate | add, site) @ u
        s.same_states(got, np.full_like(got, a), site, "ablate, then add")


@clause
def every_stream_can_be_steered(s: Subject) -> None:
    """At every stream, `Add` moves the state by the vector, and everything downstream is the oracle's."""
    streams = [t for t in STREAMS if Site(0, t) in s.engine.info.widths]
    assert "resid_post" in streams
    end = Site(s.last)
    for site in (Site(n, t) for n in (0, s.last) for t in streams if Site(n, t) in s.engine.info.widths):
        plan = place(s, Add(amount=0.8 * s.size(site)), site) | place(s, Ablate(keep=-1.0), site, 1)
        want = s.trace(s.prompts[0], plan)
        for at in ("before", "after"):
            got = s.engine.capture(s.prompts[0], [site, end], at=at, plan=plan)[0]
            s.same_states(got[site], want.state(site, at), site, at)
            s.same_states(got[end], want.state(end, at), end, f"below an edit at {site}")


@clause
def every_operator_is_the_oracles(s: Subject) -> None:
    """Each operator and flag, at the first and the last block: the state it leaves is the oracle's."""
    end = Site(s.last)
    for layer in (0, s.last):
        for name, plan in every_operator(s, Site(layer)).items():
            want = s.trace(s.prompts[0], plan)
            got = s.engine.capture(s.prompts[0], [Site(layer), end], plan=plan)[0]
            for site in {Site(layer), end}:
                s.same_states(got[site], want.state(site, "after"), site, name)
