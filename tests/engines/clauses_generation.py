"""Generation: cached equals full, batchmates do not matter, samples are each steered, streams add up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from engines.clauses_edits import NEW
from engines.registry import clause, every_operator, place
from engines.subjects import Subject
from trimtab.directions import ConceptVectors
from trimtab.engines.requests import CaptureSpec, Request, Sample, Sampling, ScoreRequest
from trimtab.interventions import Ablate, Add, Cap, Deltas, Gate, Pin
from trimtab.readouts import Readout
from trimtab.sites import Site

GREEDY = Sampling(max_tokens=NEW, ignore_eos=True)
WARM = Sampling(max_tokens=NEW, temperature=1.0, seed=7, ignore_eos=True)


def one(s: Subject, request: Request) -> Sample:
    return s.engine.generate(request)[0].samples[0]


def same_sample(s: Subject, got: Sample, want: Sample, what: str) -> None:
    """Tokens equal, numbers within tolerance."""
    assert got.tokens == want.tokens, f"{what}: {got.text!r} is not {want.text!r}"
    assert got.text == want.text and got.finish == want.finish
    assert got.applied == want.applied
    s.same_logprobs(got.logprobs, want.logprobs, what)
    assert (got.capture is None) == (want.capture is None)
    if got.capture is not None and want.capture is not None:
        assert np.array_equal(got.capture.positions, want.capture.positions)
        for site in want.capture.values:
            s.same_states(got.capture[site], want.capture[site], site, what)
    if want.readings is not None:
        assert got.readings is not None
        for i, site in enumerate(want.readings.sites):
            s.same_states(got.readings.values[:, i], want.readings.values[:, i], site, what)


@clause
def cached_is_the_full_forward(s: Subject) -> None:
    """Step by step with a cache gives what one full pass over the same tokens gives, under every operator."""
    prompt = s.prompts[1]
    plans = {"plain": None, **every_operator(s, Site(s.layers[1]))}
    for sampling in (GREEDY, WARM):
        done = s.engine.generate([Request(prompt, plan, sampling) for plan in plans.values()])
        for (name, plan), completion in zip(plans.items(), done, strict=True):
            sample, resolved = completion.samples[0], s.engine.resolve(plan, prompt)
            scored = s.engine.score(ScoreRequest(prompt, sample.tokens, resolved))[0]
            s.same_logprobs(sample.logprobs, scored.logprobs, f"{name}, cached against scored")
            table = s.oracle.run(prompt.tokens + sample.tokens, resolved).logprobs
            places = np.arange(len(prompt) - 1, len(prompt) - 1 + len(sample.tokens))
            s.same_logprobs(
                sample.logprobs, table[places, list(sample.tokens)], f"{name}, cached against oracle"
            )
            if sampling is GREEDY:
                assert sample.tokens == tuple(table[places].argmax(1)), f"{name}: not the oracle's tokens"


def mixed_batch(s: Subject) -> list[Request]:
    """Requests that differ in everything: prompt, vector, layer, operator, positions, sampling, what is read."""
    first, middle, last = Site(0), Site(s.layers[1]), Site(s.last)
    p0, p1, p2 = s.prompts
    a = 0.6 * s.size(middle)
    table = 0.3 * a * np.ones((4, s.engine.info.width(middle)))
    vectors = ConceptVectors.from_directions([s.direction(middle, 5)])
    spec, readout = CaptureSpec((first, last)), Readout.from_vectors(vectors)
    gate = Gate(s.direction(first, 1), above=0.0, layer=0)
    return [
        Request(p0, None, GREEDY, spec, readout),
        Request(p1, place(s, Add(amount=a), middle), GREEDY, spec, readout),
        Request(p2, place(s, Ablate(), first, 2) | place(s, Add(amount=-a), last, 1), WARM, spec),
        Request(p0, place(s, Pin(a), middle, 3, positions="generated"), GREEDY, None, readout),
        Request(p1, place(s, Deltas(table, start=2), middle), replace(GREEDY, max_tokens=3), spec),
        Request(p2, None, WARM),
        Request(p1, place(s, Add(amount=a), middle, gate=gate), replace(WARM, n=2), CaptureSpec((middle,))),
        Request(p0, place(s, Cap(high=0.0), first, positions="last_prompt"), GREEDY, spec, readout),
    ]


@clause
def batchmates_do_not_matter(s: Subject) -> None:
    """A mixed batch gives every request what it gets alone, in any order; plain rows are as plain as alone."""
    requests = mixed_batch(s)
    alone = [s.engine.generate(r)[0] for r in requests]
    order = [3, 6, 0, 7, 2, 5, 1, 4]
    for chosen in (range(len(requests)), order, [0, 1], [1, 0], [4, 0, 5]):
        together = s.engine.generate([requests[i] for i in chosen])
        for i, completion in zip(chosen, together, strict=True):
            for j, (got, want) in enumerate(zip(completion.samples, alone[i].samples, strict=True)):
                same_sample(s, got, want, f"request {i} sample {j} in batch {list(chosen)}")
    plain = one(s, Request(s.prompts[0], None, GREEDY))
    assert plain.tokens == s.oracle.greedy(s.prompts[0], s.engine.resolve(None, s.prompts[0]), NEW)
    assert plain.tokens == alone[0].samples[0].tokens


@clause
def batches_of_captures_and_scores(s: Subject) -> None:
    """`capture` and `score` of several prompts give what each gives alone."""
    plan = place(s, Add(amount=0.5 * s.size(Site(0))), Site(0), positions={"after": 1})
    sites = [Site(0), Site(s.last)]
    repeated = [*s.prompts, s.prompts[0]]
    together = s.engine.capture(repeated, sites, plan=plan)
    for prompt, got in zip(repeated, together, strict=True):
        alone = s.engine.capture(prompt, sites, plan=plan)[0]
        for site in sites:
            s.same_states(got[site], alone[site], site, "capture in a batch")
    requests = [ScoreRequest(p, None, q, "all") for p in repeated for q in (plan, None)]
    for request, got in zip(requests, s.engine.score(requests), strict=True):
        alone_score = s.engine.score(request)[0]
        assert got.distribution is not None and alone_score.distribution is not None
        s.same_logprobs(got.distribution, alone_score.distribution, "score in a batch")


@clause
def chunks_do_not_matter(s: Subject) -> None:
    """A prompt read in chunks gives what it gives whole: generation, captures, readings and scores."""
    if s.chunked is None:
        return  # the engine has no chunks
    requests = mixed_batch(s)
    whole = s.engine.generate(requests)
    for size in (1, 2, 5):
        engine = s.chunked(size)
        for i, (got, want) in enumerate(zip(engine.generate(requests), whole, strict=True)):
            for a, b in zip(got.samples, want.samples, strict=True):
                same_sample(s, a, b, f"request {i} in chunks of {size}")
        plan = place(s, Add(amount=0.5 * s.size(Site(0))), Site(0), positions={"after": 2})
        sites = [Site(0), Site(s.last)]
        captures = zip(engine.capture(list(s.prompts), sites, plan=plan),
                       s.engine.capture(list(s.prompts), sites, plan=plan), strict=True)  # fmt: skip
        for got_capture, want_capture in captures:
            for site in sites:
                s.same_states(got_capture[site], want_capture[site], site, f"chunks of {size}")


@clause
def every_sample_is_steered(s: Subject) -> None:
    """n samples of one request: each is its own text, steered, captured and read under the plan."""
    site, prompt = Site(s.layers[1]), s.prompts[0]
    a, u = 0.8 * s.size(site), s.direction(site).unit
    plan = place(s, Add(amount=a), site)
    readout = Readout.from_vectors(ConceptVectors.from_directions([s.direction(site)]))
    found = {}
    for at in ("before", "after"):
        spec = CaptureSpec((site,), at=at)
        found[at] = s.engine.generate(Request(prompt, plan, replace(WARM, n=3), spec, readout))[0].samples
    assert len(found["after"]) == 3
    assert len({x.tokens for x in found["after"]}) > 1, "samples of one request are all the same"
    for before, after in zip(found["before"], found["after"], strict=True):
        assert before.tokens == after.tokens and before.capture and after.capture and after.readings
        s.same_states(after.capture[site], before.capture[site] + a * u, site, "sample")
        scored = s.engine.score(ScoreRequest(prompt, after.tokens, plan))[0]
        s.same_logprobs(after.logprobs, scored.logprobs, "sample")
        assert after.applied.tokens_steered == len(prompt) + len(after.tokens) - 1


@clause
def seeds_reproduce_in_any_batch(s: Subject) -> None:
    """Sample j of a seeded request is the same alone, among others, and in another place; seeds differ."""
    mine = Request(s.prompts[1], place(s, Add(amount=0.3 * s.size(Site(0))), Site(0)), replace(WARM, n=3))
    others = [Request(s.prompts[0], None, replace(WARM, seed=1)), Request(s.prompts[2], None, GREEDY)]
    want = [x.tokens for x in s.engine.generate(mine)[0].samples]
    for batch, place_in in (([mine, *others], 0), ([*others, mine], 2), ([others[0], mine, mine], 2)):
        got = s.engine.generate(batch)[place_in].samples
        assert [x.tokens for x in got] == want
    fewer = replace(mine, sampling=replace(mine.sampling, n=1))
    assert one(s, fewer).tokens == want[0]
    long = replace(WARM, max_tokens=8)
    runs = {one(s, Request(s.prompts[1], None, replace(long, seed=seed))).tokens for seed in range(6)}
    assert len(runs) > 1, "the seed changes nothing"


@clause
def sampling_filters_hold(s: Subject) -> None:
    """top_k 1 and a tiny top_p are greedy; top_k 2 draws among the two likeliest of the steered distribution."""
    site, prompt = Site(s.layers[1]), s.prompts[0]
    plan = place(s, Add(amount=0.3 * s.size(site)), site)
    greedy = one(s, Request(prompt, plan, GREEDY)).tokens
    for narrow in (replace(WARM, top_k=1), replace(WARM, top_p=1e-6), replace(WARM, temperature=1e-4)):
        assert one(s, Request(prompt, plan, narrow)).tokens == greedy
    drawn = s.engine.generate(Request(prompt, plan, replace(WARM, top_k=2, temperature=s.hottest, n=4)))[
        0
    ].samples
    for sample in drawn:
        table = s.engine.score(ScoreRequest(prompt, sample.tokens, plan, "all"))[0].distribution
        assert table is not None
        for i, token in enumerate(sample.tokens):
            assert token in np.argsort(-table[len(prompt) - 1 + i])[:2]


@clause
def streams_add_up(s: Subject) -> None:
    """Events of a sample: one per token, then one that carries the sample; texts joined are its text."""
    requests = mixed_batch(s)
    events = list(s.engine.stream(requests))
    done = s.engine.generate(requests)
    for i, completion in enumerate(done):
        for j, sample in enumerate(completion.samples):
            mine = [e for e in events if (e.request, e.index) == (i, j)]
            assert [e.sample is not None for e in mine] == [False] * (len(mine) - 1) + [True]
            assert mine[-1].token is None
            assert tuple(e.token for e in mine[:-1]) == sample.tokens
            assert "".join(e.text for e in mine) == sample.text
            s.same_logprobs(np.array([e.logprob for e in mine[:-1]]), sample.logprobs, "events")
            same_sample(s, mine[-1].sample, sample, f"streamed request {i}")  # type: ignore[arg-type]
    assert len({(e.request, e.index) for e in events}) == sum(len(c.samples) for c in done)


@clause
def streams_can_be_left_and_interleaved(s: Subject) -> None:
    """A stream that is abandoned leaves nothing behind, and one that waits is not disturbed by what runs meanwhile."""
    site, prompt = Site(s.layers[1]), s.prompts[0]
    plain, steered = (
        Request(prompt, p, replace(GREEDY, max_tokens=6), CaptureSpec((site,)))
        for p in (None, place(s, Add(amount=0.8 * s.size(site)), site))
    )
    want, want_steered = one(s, plain), one(s, steered)
    left = s.engine.stream(steered)
    next(left), next(left)
    left.close()  # type: ignore[attr-defined]
    same_sample(s, one(s, plain), want, "after an abandoned stream")
    waiting = s.engine.stream(steered)
    events = [next(waiting), next(waiting)]
    same_sample(s, one(s, plain), want, "while a stream waits")
    captured = s.engine.capture(prompt, [site])[0][site]
    s.same_states(captured, s.plain(0).state(site, "after"), site, "while a stream waits")
    events += list(waiting)
    assert events[-1].sample is not None
    same_sample(s, events[-1].sample, want_steered, "a stream that waited")


@clause
def stop_strings_end_the_text(s: Subject) -> None:
    """The text ends before the first stop string, none of it is ever streamed, and finish says why."""
    prompt = s.prompts[0]
    long = replace(GREEDY, max_tokens=12)
    free = one(s, Request(prompt, None, long))
    assert free.finish == "length" and len(free.tokens) == 12
    text = free.text
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    want = text[: text.index(stop)]
    for stops in ((stop,), ("\x07never", stop), (stop, text[-2:] + "\x07")):
        request: Any = Request(prompt, None, replace(long, stop=stops))
        events = list(s.engine.stream(request))
        sample = events[-1].sample
        assert sample is not None and sample.finish == "stop"
        assert sample.text == want and "".join(e.text for e in events) == want
        assert len(sample.tokens) == len(sample.logprobs) < 12
        assert sample.tokens == free.tokens[: len(sample.tokens)]
    # A text that only begins a stop string when it ends is let out whole.
    begun = one(s, Request(prompt, None, replace(long, stop=(text[-1] + "\x07",))))
    assert begun.text == text and begun.finish == "length"
