"""The surface: refusals before anything runs, receipts, `steered`, chat, async."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engines.clauses_edits import NEW
from engines.clauses_generation import GREEDY, WARM, one, same_sample
from engines.registry import clause, place
from engines.subjects import MESSAGES, Subject
from trimtab.directions import Direction
from trimtab.engines.requests import CaptureSpec, Request, Sampling, ScoreRequest
from trimtab.errors import InputError, Mismatch, TrimtabError, UnknownName, Unsupported
from trimtab.interventions import Ablate, Add, Gate, Pin
from trimtab.plans import EMPTY, Placement, SteeringPlan
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlan
from trimtab.sites import STREAMS, Site


def bad_requests(s: Subject) -> dict[str, tuple[type[Exception], Callable[[], Any]]]:
    """What must be refused, and as what; each is built when called."""
    site, prompt = Site(0), s.prompts[0]
    wide = Direction("wide", site, np.eye(s.engine.info.width(site) + 1)[0])
    outside = s.last + 1
    good = s.engine.resolve(place(s, Add(amount=1.0), site), prompt)
    placement = good.placements[0]
    beyond = ResolvedPlan((type(placement)(**{**vars(placement), "site": Site(outside)}),), good.vectors)
    late = Gate(s.direction(Site(s.last)), above=0.0, layer=s.last)
    narrow = Readout(("wide",), {site: wide.unit[None]}, {site: np.zeros(1)}, {site: np.ones(1)})
    bare = Prompt(prompt.tokens)

    def plan(**kwargs: Any) -> Request:
        return Request(prompt, SteeringPlan(Placement(**kwargs)))

    found: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
        "unknown vector": (UnknownName, lambda: plan(op=Add(amount=1.0), vector="nobody")),
        "unknown vector in a gate": (
            UnknownName,
            lambda: plan(op=Add(amount=1.0), vector=s.direction(site), gate=Gate("nobody", above=0.0)),
        ),
        "vector of another width": (Mismatch, lambda: plan(op=Add(amount=1.0), vector=wide)),
        "layer that does not exist": (
            InputError,
            lambda: plan(op=Add(amount=1.0), vector=s.direction(site), layers=[outside]),
        ),
        "resolved plan of a deeper model": (InputError, lambda: Request(prompt, beyond)),
        "gate later than the edit": (
            InputError,
            lambda: plan(op=Add(amount=1.0), vector=s.direction(site), gate=late),
        ),
        "plan that is no plan": (InputError, lambda: Request(prompt, {"placements": []})),  # type: ignore[arg-type]
        "roles without messages": (
            InputError,
            lambda: Request(
                bare, place(s, Add(amount=1.0), site, positions={"role": "user"}), Sampling(max_tokens=1)
            ),
        ),
        "capture of a layer that does not exist": (
            InputError,
            lambda: Request(prompt, None, GREEDY, CaptureSpec((Site(outside),))),
        ),
        "readout of another width": (Mismatch, lambda: Request(prompt, None, GREEDY, readout=narrow)),
        "empty prompt": (InputError, lambda: Request("")),
        "prompt of nothing": (InputError, lambda: Request([])),
    }
    limit = s.engine.info.context_length
    if limit is not None:
        long = Prompt(tuple(prompt.tokens[-1:]) * (limit + 1))
        found["prompt that is too long"] = (InputError, lambda: Request(long, None, Sampling(max_tokens=1)))
        fits = Prompt(tuple(prompt.tokens[-1:]) * limit)
        found["no room for new tokens"] = (InputError, lambda: Request(fits, None, Sampling(max_tokens=1)))
    for stream in (t for t in STREAMS if site.__class__(0, t) not in s.engine.info.widths):
        found[f"stream {stream}"] = (
            Unsupported,
            lambda stream=stream: Request(prompt, None, GREEDY, CaptureSpec((Site(0, stream),))),
        )
    return found


@clause
def bad_requests_are_refused_before_running(s: Subject) -> None:
    """Each with the right error and a message, alone or among good requests; not one forward pass is run."""
    before = s.forwards() if s.forwards else 0
    good = Request(s.prompts[0], None, GREEDY)
    for name, (error, build) in bad_requests(s).items():
        for batch in (lambda b=build: [b()], lambda b=build: [good, b(), good]):
            with pytest.raises(error) as caught:
                s.engine.generate(batch())
            assert isinstance(caught.value, TrimtabError) and len(str(caught.value)) > 15, name
            with pytest.raises(error):
                list(s.engine.stream(batch()))
    for build in (
        lambda: s.engine.capture(s.prompts[0], [Site(0)], plan=SteeringPlan.add("nobody", amount=1.0)),
        lambda: s.engine.score(ScoreRequest(s.prompts[0], None, SteeringPlan.add("nobody", amount=1.0))),
        lambda: s.engine.capture(s.prompts[0], []),
        lambda: s.engine.capture([], [Site(0)]),
        lambda: s.engine.score(ScoreRequest(s.prompts[0], [])),
    ):
        with pytest.raises(InputError):
            build()
    if s.forwards:
        assert s.forwards() == before, "something ran before the request was refused"


@clause
def receipts_say_what_was_applied(s: Subject) -> None:
    """Fingerprint, concepts, sites and the number of processed tokens that were addressed."""
    first, last, prompt = Site(0), Site(s.last), s.prompts[0]
    plan = place(s, Add(dose=0.1), first) | place(s, Pin(0.0), last, 1, positions={"after": 2})
    resolved = s.engine.resolve(plan, prompt)
    applied = one(s, Request(prompt, plan, GREEDY)).applied
    assert applied.fingerprint == resolved.fingerprint != "plain"
    assert applied.sites == (first, last)
    assert applied.concepts == ("d0", "d1")
    assert applied.tokens_steered == len(prompt) + NEW - 1
    some = place(s, Add(dose=0.1), first, positions="generated")
    assert one(s, Request(prompt, some, GREEDY)).applied.tokens_steered == NEW - 1
    assert one(s, Request(prompt, None, GREEDY)).applied.tokens_steered == 0


@clause
def steered_is_the_default_plan(s: Subject) -> None:
    """Inside `steered` requests without a plan use it, a plan of one's own wins, and afterwards nothing is left."""
    site, prompt = Site(s.layers[1]), s.prompts[0]
    plan = place(s, Add(amount=0.7 * s.size(site)), site)
    plain, steered = (one(s, Request(prompt, p, GREEDY)) for p in (None, plan))
    assert plain.applied.fingerprint != steered.applied.fingerprint
    with s.engine.steered(plan):
        same_sample(s, one(s, Request(prompt, None, GREEDY)), steered, "inside")
        same_sample(s, one(s, Request(prompt, EMPTY, GREEDY)), plain, "a plain plan inside")
        got = asyncio.run(s.engine.agenerate(Request(prompt, None, GREEDY)))[0].samples[0]
        same_sample(s, got, steered, "async inside")
        captured = s.engine.capture(prompt, [site])[0][site]
        scored = s.engine.score(ScoreRequest(prompt, steered.tokens))[0]
    s.same_states(captured, s.engine.capture(prompt, [site], plan=plan)[0][site], site, "inside")
    s.same_logprobs(scored.logprobs, steered.logprobs, "scored inside")
    same_sample(s, one(s, Request(prompt, None, GREEDY)), plain, "afterwards")


@clause
def library_names_are_their_vectors(s: Subject) -> None:
    """A name in the engine's library steers exactly as the vector itself; a removed name is unknown again."""
    site, prompt = Site(s.layers[1]), s.prompts[0]
    vector, kwargs = s.direction(site), {"amount": 0.5 * s.size(site), "layers": [site.layer]}
    s.engine.library["contract"] = vector
    try:
        named = one(s, Request(prompt, SteeringPlan.add("contract", **kwargs), GREEDY))
    finally:
        del s.engine.library["contract"]
    inline = one(s, Request(prompt, SteeringPlan.add(vector, **kwargs), GREEDY))
    same_sample(s, named, inline, "by name")
    with pytest.raises(UnknownName):
        s.engine.generate(Request(prompt, SteeringPlan.add("contract", **kwargs), GREEDY))


@clause
def chat_renders_the_template(s: Subject) -> None:
    """System, prefill, roles and raw output; `chat` is `generate` on the rendered prompt."""
    if not s.engine.info.template_hash:
        with pytest.raises(TrimtabError):
            s.engine.chat("How do you feel?")
        return
    site = Site(s.layers[1])
    plan = place(s, Add(amount=0.4 * s.size(site)), site, positions={"role": "user"})
    reply = s.engine.chat(
        "How do you feel?", system="Be quiet", prefill="I feel", plan=plan, sampling=GREEDY, raw=True
    )
    assert reply.message["role"] == "assistant"
    assert reply.text == "I feel" + reply.completion.text
    assert reply.raw == s.engine.decode(reply.completion.tokens, special=True)
    assert reply.completion.text == s.engine.decode(reply.completion.tokens)
    text = reply.prompt.text or ""
    places = [text.find(content) for content in ("Be quiet", "How do you feel?", "I feel")]
    assert places[0] >= 0 and places == sorted(places), f"not rendered in order: {text!r}"
    assert len(reply.roles) == len(reply.prompt)
    assert reply.completion.applied.tokens_steered == reply.roles.count("user") > 0
    for role, content in (("system", "Be quiet"), ("user", "How do you feel?")):
        tokens = [t for t, r in zip(reply.prompt.tokens, reply.roles, strict=True) if r == role]
        assert s.engine.decode(tokens).strip() == content
    by_hand = one(s, Request(reply.prompt, plan, GREEDY))
    same_sample(s, by_hand, reply.completion.samples[0], "chat")
    assert s.engine.chat("How do you feel?", sampling=GREEDY).raw is None
    with pytest.raises(InputError):
        s.engine.chat(list(MESSAGES), system="twice", sampling=GREEDY)
    with pytest.raises(InputError):
        s.engine.chat([{"role": "user"}], sampling=GREEDY)


@clause
def bare_text_to_a_chat_model_warns_once(s: Subject) -> None:
    """An instruct model that gets bare text says so, once; messages never warn."""
    s.engine._warned_raw = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        s.engine.encode(list(MESSAGES)) if s.engine.info.template_hash else None
        assert not [w for w in caught if "chat template" in str(w.message)]
        for text in ("Hello you", "Hello again"):
            s.engine.encode(text)
    expected = 1 if s.engine.info.template_hash else 0
    assert len([w for w in caught if "chat template" in str(w.message)]) == expected


@clause
def async_is_sync(s: Subject) -> None:
    """`agenerate` and `achat` give what `generate` and `chat` give, also side by side."""
    site = Site(s.layers[1])
    requests = [
        Request(s.prompts[0], place(s, Add(amount=0.5 * s.size(site)), site), GREEDY),
        Request(s.prompts[1], place(s, Ablate(), site), WARM),
    ]
    want = [one(s, r) for r in requests]

    async def together() -> list[Any]:
        return await asyncio.gather(*(s.engine.agenerate(r) for r in requests))

    for got, expected in zip(asyncio.run(together()), want, strict=True):
        same_sample(s, got[0].samples[0], expected, "async")
    if s.engine.info.template_hash:
        reply = asyncio.run(s.engine.achat("How do you feel?", sampling=GREEDY))
        assert reply.text == s.engine.chat("How do you feel?", sampling=GREEDY).text
