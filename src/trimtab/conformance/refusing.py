"""What must be refused, in words, before anything runs; and what a receipt says of what ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trimtab.conformance.registry import Failed, check, ensure
from trimtab.conformance.subject import NEW, Subject, watch
from trimtab.directions import Direction
from trimtab.engines.requests import Request, Sampling, ScoreRequest
from trimtab.errors import InputError, Mismatch, TrimtabError, UnknownName, Unsupported
from trimtab.interventions import Add, Gate, Pin
from trimtab.plans import EMPTY, Placement, SteeringPlan
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlan
from trimtab.sites import STREAMS, Site


def refused(s: Subject, cases: dict[str, tuple[type[Exception], Callable[[], Any]]]) -> str:
    """Each case is refused with its error and a message, alone and among good requests, before the first token."""
    good = s.ask(s.prompts[0], EMPTY, new=1)
    for name, (error, build) in cases.items():
        for batch in (lambda b=build: [b()], lambda b=build: [good, b(), good]):
            for run in (
                lambda b=batch: s.engine.generate(b()),
                lambda b=batch: next(iter(s.engine.stream(b()))),
            ):
                try:
                    run()
                except error as found:
                    ensure(
                        isinstance(found, TrimtabError),
                        f"{name}: {type(found).__name__} is none of trimtab",
                    )
                    ensure(len(str(found)) > 15, f"{name}: the message says nothing: {found}")
                except Exception as found:
                    raise Failed(f"{name}: {type(found).__name__} ({found}), not {error.__name__}") from found
                else:
                    raise Failed(f"{name}: was not refused")
    s.right(s.one(good), good, "a good request after refused ones")
    return f"{len(cases)} cases: {', '.join(cases)}"


@check()
def malformed_refused(s: Subject) -> str:
    """Plans, prompts and numbers that make no sense are refused before anything runs."""
    p, d, site = s.prompts[0], s.direction(s.first), s.first

    def plan(**kwargs: Any) -> Request:
        return Request(p, SteeringPlan((Placement(**{"vector": d, "layers": [site.layer], **kwargs}),)))

    def from_json(**changes: Any) -> Request:
        placement = {"op": "add", "amount": 1.0, "vector": "v", **changes}
        return Request(p, SteeringPlan.from_json({"placements": [placement]}))

    late = Gate(s.direction(s.last), above=0.0, layer=s.last.layer)
    cases: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
        "a plan that is no plan": (InputError, lambda: Request(p, {"placements": []})),  # type: ignore[arg-type]
        "an amount that is no number": (InputError, lambda: plan(op=Add(amount=float("nan")))),
        "an infinite amount": (InputError, lambda: plan(op=Add(amount=float("inf")))),
        "two units": (InputError, lambda: plan(op=Add(amount=1.0, dose=1.0))),
        "positions that run backwards": (
            InputError,
            lambda: plan(op=Pin(0.0), positions={"ranges": [[5, 2]]}),
        ),
        "an unknown key": (InputError, lambda: from_json(postions="all")),
        "an unknown operator": (InputError, lambda: from_json(op="steer")),
        "an empty prompt": (InputError, lambda: Request("")),
        "no tokens": (InputError, lambda: Request([])),
        "a capture of nothing": (InputError, lambda: s.ask(p, capture=watch())),
    }
    if s.first != s.last:
        cases["a gate later than its edit"] = (InputError, lambda: plan(op=Add(amount=1.0), gate=late))
    bare = Prompt(p.tokens)
    roles = {"role": "user"}
    cases["roles without messages"] = (
        InputError,
        lambda: Request(bare, s.place(Add(amount=1.0), site, positions=roles), Sampling(max_tokens=1)),
    )
    return refused(s, cases)


@check()
def unknown_refused(s: Subject) -> str:
    """A vector, layer or stream that does not exist is an error, and never served plain."""
    p, outside = s.prompts[0], s.engine.info.n_layers
    resolved = s.resolved(s.place(Add(amount=1.0), s.first), p)
    placement = resolved.placements[0]
    beyond = ResolvedPlan((type(placement)(**{**vars(placement), "site": Site(outside)}),), resolved.vectors)
    unknown = SteeringPlan.add("nobody", amount=1.0, layers=[0])
    gated = s.place(Add(amount=1.0), s.first, gate=Gate("nobody", above=0.0))
    deep = SteeringPlan.add(s.direction(s.first), amount=1.0, layers=[outside])
    cases: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
        "an unknown vector": (UnknownName, lambda: Request(p, unknown)),
        "an unknown vector in a gate": (UnknownName, lambda: Request(p, gated)),
        "a layer that does not exist": (InputError, lambda: Request(p, deep)),
        "a plan of a deeper model": (InputError, lambda: Request(p, beyond)),
        "a capture of such a layer": (InputError, lambda: s.ask(p, capture=watch(Site(outside)))),
    }
    for stream in (t for t in STREAMS if Site(0, t) not in s.engine.info.widths):
        cases[f"stream {stream}"] = (Unsupported, lambda t=stream: s.ask(p, capture=watch(Site(0, t))))
    for run in (lambda: s.engine.score(ScoreRequest(p, None, unknown)),
                lambda: s.engine.capture(p, [s.first], plan=unknown)):  # fmt: skip
        try:
            run()
        except UnknownName:
            continue
        raise Failed("a score or a capture under an unknown vector was not refused")
    return refused(s, cases)


@check()
def mismatch_refused(s: Subject) -> str:
    """Vectors and readouts of another width, and tokens that do not exist, are refused."""
    p, site, width = s.prompts[0], s.first, s.engine.info.width(s.first)
    wide = Direction("wide", site, np.eye(width + 1)[0])
    readout = Readout(("wide",), {site: wide.unit[None]}, {site: np.zeros(1)}, {site: np.ones(1)})
    size = s.engine.info.vocab_size or 10**9
    plan = SteeringPlan.add(wide, amount=1.0, layers=[site.layer])
    return refused(
        s,
        {
            "a vector of another width": (Mismatch, lambda: Request(p, plan)),
            "a readout of another width": (Mismatch, lambda: s.ask(p, readout=readout)),
            "a token outside the vocabulary": (InputError, lambda: s.ask(Prompt((size, size + 1)))),
            "a negative token": (InputError, lambda: s.ask(Prompt((-1,)))),
        },
    )


@check()
def length_refused(s: Subject) -> str:
    """A prompt that leaves no room is refused; nothing is cut off silently."""
    limit = s.engine.info.context_length
    if limit is None:
        return "the model states no context length, so nothing is too long"
    token = s.prompts[0].tokens[-1:]
    return refused(
        s,
        {
            "a prompt longer than the context": (
                InputError,
                lambda: s.ask(Prompt(token * (limit + 1)), new=1),
            ),
            "no room for new tokens": (InputError, lambda: s.ask(Prompt(token * limit), new=1)),
            "not enough room": (InputError, lambda: s.ask(Prompt(token * (limit - 3)), new=4)),
        },
    )


@check()
def receipts(s: Subject) -> str:
    """Every output says what was applied: fingerprint, concepts, sites and how many tokens were addressed."""
    p = s.prompts[0]
    length, plan = (
        len(p),
        s.place(Add(dose=0.1), s.first) | s.place(Pin(0.0), s.last, 1, positions={"after": 2}),
    )
    cases = {
        "two placements": (plan, length + NEW - 1, 2),
        "generated only": (s.place(Add(dose=0.1), s.first, positions="generated"), NEW - 1, 1),
        "last prompt token": (s.place(Add(dose=0.1), s.first, positions="last_prompt"), 1, 1),
        "plain": (EMPTY, 0, 0),
    }
    requests = [s.ask(p, chosen) for chosen, _, _ in cases.values()]
    for (name, (_, steered, concepts)), request, done in zip(
        cases.items(), requests, s.run(requests), strict=True
    ):
        applied, resolved = done.samples[0].applied, s.resolved(request.plan, request.prompt)
        ensure(applied.fingerprint == resolved.fingerprint, f"{name}: another fingerprint than its plan's")
        ensure(applied.sites == resolved.sites, f"{name}: sites {applied.sites}, not {resolved.sites}")
        ensure(len(applied.concepts) == concepts, f"{name}: concepts {applied.concepts}")
        ensure(
            applied.tokens_steered == steered,
            f"{name}: {applied.tokens_steered} tokens steered, not {steered}",
        )
    return f"{len(cases)} receipts"
