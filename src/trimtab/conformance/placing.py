"""Where an edit acts: positions in the prompt and in what is generated, whole or in pieces."""

from __future__ import annotations

from typing import Any

from trimtab.conformance.registry import check, ensure
from trimtab.conformance.subject import NEW, Subject, watch
from trimtab.interventions import Add, Pin
from trimtab.plans import EMPTY
from trimtab.prompts import Prompt, in_ranges, resolve_positions

MESSAGES = (
    {"role": "system", "content": "Be quiet"},
    {"role": "user", "content": "How do you feel?"},
    {"role": "assistant", "content": "I feel glad"},
    {"role": "user", "content": "And now"},
)


def moved(s: Subject, prompt: Prompt, plans: list[Any]) -> list[list[bool]]:
    """Which processed tokens of a generation each plan moves at the middle layer; all plans in one batch."""
    found = [
        [
            d.samples[0].capture
            for d in s.run([s.ask(prompt, p, capture=watch(s.middle, at=at)) for p in plans])
        ]
        for at in ("before", "after")
    ]
    return [
        [bool(x) for x in (b[s.middle] != a[s.middle]).any(1)]
        for b, a in zip(*found, strict=True)
        if b is not None and a is not None
    ]


@check()
def positions(s: Subject) -> str:
    """Only addressed tokens move: names, ranges, after, and the roles of a chat; prompt and generated tokens."""
    chat = bool(s.engine.info.template_hash)
    prompt = s.engine.encode(list(MESSAGES)) if chat else s.prompts[0]
    length = len(prompt)
    kinds: list[Any] = [
        "all", "prompt", "generated", "last_prompt", {"after": 3}, {"after": length},
        {"ranges": [[1, 3], [length - 1, length + 2]]}, {"ranges": [[length + 1, None]]},
    ]  # fmt: skip
    if prompt.spans:
        kinds += [{"role": role} for role in sorted({x.role for x in prompt.spans})]
    for op in (Add(amount=s.push(s.middle, 0.5)), Pin(0.9 * s.size(s.middle))):
        plans = [s.place(op, s.middle, positions=kind) for kind in kinds]
        for kind, got in zip(kinds, moved(s, prompt, plans), strict=True):
            want = [in_ranges(i, resolve_positions(kind, prompt)) for i in range(length + NEW - 1)]
            wrong = [i for i, (a, b) in enumerate(zip(got, want, strict=True)) if a != b]
            ensure(not wrong, f"{op.op} at {kind}: tokens {wrong} are wrong (the prompt has {length})")
    return f"{2 * len(kinds)} addresses{'' if chat else ', no roles: the model has no chat template'}"


@check()
def prompt_step(s: Subject) -> str:
    """The step that reads the prompt is steered: the first token is already drawn from the steered distribution."""
    prompt = s.fresh(24)
    plan = s.place(Add(amount=s.push(s.middle, 1.5)), s.middle)
    request = s.ask(prompt, plan, new=1)
    sample = s.one(request)
    effect = s.effect(sample, request)
    s.right(sample, request, "the first token")
    later = s.ask(prompt, s.place(Add(amount=s.push(s.middle, 1.5)), s.middle, positions="generated"), new=1)
    s.right(s.one(later), later, "the first token under a plan for generated tokens")
    return f"{effect:.2g} nats away from plain, as it should be"


@check()
def decode_steps(s: Subject) -> str:
    """Step by step with a cache gives what one full pass over the same tokens gives, and every step is steered."""
    prompt, worst = s.fresh(24), 0.0
    a = s.push(s.middle, 0.8)
    plans = {
        "all tokens": s.place(Add(amount=a), s.middle),
        "generated tokens": s.place(Add(amount=a), s.middle, positions="generated"),
        "the prompt": s.place(Add(amount=a), s.middle, positions="prompt"),
        "every second token": s.place(
            Add(amount=a), s.middle, positions={"ranges": [[i, i + 1] for i in range(0, 40, 2)]}
        ),
    }
    plans = {n: p for n, p in plans.items() if s.able(s.ask(prompt, p))}
    for name, plan in plans.items():
        for temperature in (0.0, 1.0):
            request = s.ask(prompt, plan, new=12, temperature=temperature)
            sample = s.one(request)
            s.effect(sample, request, what=name)
            worst = max(worst, s.right(sample, request, name))
    return f"12 steps, {len(plans)} plans, off by {worst:.1g} nats"


@check("chunks")
def chunking(s: Subject) -> str:
    """A prompt that is read in chunks gives what it gives whole, with edits that begin and end inside chunks."""
    size, worst = s.stand.chunk, 0.0
    engine = s.stand.in_chunks(s.engine)
    a, spec = s.push(s.middle, 0.6), s.watch(s.middle, s.last)
    plans = {
        "plain": EMPTY,
        "all": s.place(Add(amount=a), s.middle),
        "inside one chunk": s.place(
            Add(amount=2 * a), s.middle, positions={"ranges": [[size + 2, size + 5]]}
        ),
        "over an edge": s.place(Add(amount=a), s.middle, positions={"ranges": [[size - 2, 2 * size + 1]]}),
        "the last token": s.place(Add(amount=2 * a), s.middle, positions="last_prompt"),
    }
    plans = {n: p for n, p in plans.items() if s.able(s.ask(s.fresh(2 * size), p))}
    lengths = (3 * size - 5, 2 * size + 1)  # the last chunk of the second is one token, as a decoding step is
    for length in lengths:
        prompt = s.fresh(length)
        requests = [s.ask(prompt, p, capture=spec) for p in plans.values()]
        for name, request, done in zip(plans, requests, engine.generate(requests), strict=True):
            sample = done.samples[0]
            if (
                name == "all"
            ):  # a plan for three tokens far back need not reach the output; its captured rows tell
                s.effect(sample, request, what=name)
            worst = max(worst, s.right(sample, request, name))
    return f"{lengths[0]} and {lengths[1]} tokens in chunks of {size}, {len(plans)} plans, off by {worst:.1g} nats"
