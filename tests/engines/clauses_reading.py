"""Captures, readings and scores: exactly what was asked for, and equal to the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from engines.clauses_edits import NEW
from engines.registry import clause, every_operator, place
from engines.subjects import Subject
from trimtab.directions import ConceptVectors
from trimtab.engines.collect import Comparison
from trimtab.engines.requests import CaptureSpec, Request, Sampling, ScoreRequest
from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE
from trimtab.interventions import Add, Pin
from trimtab.plans import EMPTY
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.sites import STREAMS, Site


def mixed_plan(s: Subject):
    """Edits at the first and the last block, the second on some tokens only."""
    first, last = Site(0), Site(s.last)
    return place(s, Add(amount=0.5 * s.size(first)), first) | place(
        s, Pin(0.3 * s.size(last)), last, positions={"after": 3}
    )


@clause
def captures_are_the_oracles(s: Subject) -> None:
    """Every stream of the first, middle and last block, before and after the edits, plain and steered."""
    sites = tuple(Site(n, t) for n in s.layers for t in STREAMS if Site(n, t) in s.engine.info.widths)
    assert {Site(0), Site(s.last)} <= set(sites)
    for plan in (None, mixed_plan(s)):
        for at in ("before", "after"):
            captures = s.engine.capture(list(s.prompts), sites, at=at, plan=plan)
            for prompt, capture in zip(s.prompts, captures, strict=True):
                want = s.trace(prompt, plan)
                for site in sites:
                    s.same_states(capture[site], want.state(site, at), site, f"{at}, plan {plan is not None}")


@clause
def captures_are_exactly_what_was_asked(s: Subject) -> None:
    """The sites and rows that were asked for, all of them and no others, whatever subset that is."""
    prompt, length = s.prompts[0], len(s.prompts[0])
    whole = s.engine.capture(prompt, [Site(0), Site(s.last)])[0]
    kinds = {
        "last_prompt": [length - 1],
        "prompt": list(range(length)),
    }
    asked = [
        *kinds.items(),
        ({"after": 1}, list(range(2, length))),
        ({"ranges": [[0, 2], [length - 2, None]]}, [0, 1, length - 2, length - 1]),
    ]
    for sites in ((Site(0),), (Site(s.last),), (Site(0), Site(s.last))):
        for positions, rows in asked:
            capture = s.engine.capture(prompt, sites, positions=positions)[0]  # type: ignore[arg-type]
            assert set(capture.values) == set(sites)
            assert list(capture.positions) == rows
            for site in sites:
                assert capture[site].dtype == np.float32
                s.same_states(capture[site], whole[site][rows], site, str(positions))
    with pytest.raises(InputError):
        s.engine.capture(prompt, [Site(0)], positions="generated")
    with pytest.raises(InputError):
        s.engine.capture(prompt, [Site(s.last + 1)])


@clause
def captures_while_generating_cover_what_was_processed(s: Subject) -> None:
    """Positions 0 to T + G - 2, equal to one full capture of prompt and generated tokens under the same plan."""
    sites = (Site(0), Site(s.last))
    plan = mixed_plan(s)
    requests = [
        Request(p, plan, Sampling(max_tokens=NEW, ignore_eos=True), CaptureSpec(sites)) for p in s.prompts
    ]
    for prompt, completion in zip(s.prompts, s.engine.generate(requests), strict=True):
        sample = completion.samples[0]
        assert sample.capture is not None and set(sample.capture.values) == set(sites)
        assert list(sample.capture.positions) == list(range(len(prompt) + len(sample.tokens) - 1))
        full = Prompt(prompt.tokens + sample.tokens[:-1])
        want = s.oracle.run(full.tokens, s.engine.resolve(plan, prompt))
        for site in sites:
            s.same_states(sample.capture[site], want.state(site, "after"), site, "while generating")
    for positions, rows in (("generated", range(len(s.prompts[0]), len(s.prompts[0]) + NEW - 1)),
                            ("last_prompt", [len(s.prompts[0]) - 1])):  # fmt: skip
        spec = CaptureSpec((Site(0),), positions)
        request = Request(s.prompts[0], plan, Sampling(max_tokens=NEW, ignore_eos=True), spec)
        capture = s.engine.generate(request)[0].samples[0].capture
        assert capture is not None and list(capture.positions) == list(rows)
        assert capture[0].shape == (len(list(rows)), s.engine.info.width(Site(0)))
    # The only token was emitted and never read.
    spec = CaptureSpec((Site(0),), "generated")
    (done,) = s.engine.generate(Request(s.prompts[0], plan, Sampling(max_tokens=1, ignore_eos=True), spec))
    none = done.samples[0].capture
    assert none is not None and none[0].shape == (0, s.engine.info.width(Site(0)))


@clause
def readings_are_captures_times_rows(s: Subject) -> None:
    """Of the states that emitted each token, before or after the edits, raw and in stored stds; events say the same."""
    sites = (Site(0), Site(s.last))
    vectors = ConceptVectors.from_directions([_named(s, site, which) for which in (0, 3) for site in sites])
    sampling = Sampling(max_tokens=NEW, ignore_eos=True)
    plan = place(s, Pin(2.0 * s.size(Site(0))), Site(0), positions={"after": len(s.prompts[0])}) | mixed_plan(
        s
    )
    for z in (False, True):
        for at in ("before", "after"):
            readout = Readout.from_vectors(vectors, z=z, at=at)
            requests = [Request(p, plan, sampling, CaptureSpec(sites, at=at), readout) for p in s.prompts]
            events = list(s.engine.stream(requests))
            for i, prompt in enumerate(s.prompts):
                mine = [e for e in events if e.request == i]
                sample = mine[-1].sample
                assert sample is not None and sample.readings is not None and sample.capture is not None
                emitting = list(range(len(prompt) - 1, len(prompt) - 1 + len(sample.tokens)))
                assert list(sample.readings.positions) == emitting
                for at_layer, site in enumerate(sites):
                    rows = sample.capture[site][emitting]
                    want = readout.apply(site, rows)
                    unit = 1.0 if not z else float(readout.scale[site].min())
                    error = np.abs(sample.readings.values[:, at_layer] - want).max() * unit
                    assert error <= 10 * s.tolerance.state * max(1.0, s.size(site)), (
                        f"{at} {site} z={z}: {error}"
                    )
                streamed = np.stack([e.reading for e in mine if e.token is not None])  # type: ignore[misc]
                assert np.array_equal(streamed, sample.readings.values)


def _named(s: Subject, site: Site, which: int):
    from dataclasses import replace

    return replace(s.direction(site, which), name=f"concept {which}")


@clause
def distributions_are_the_oracles(s: Subject) -> None:
    """Over the full vocabulary after every token, plain and under every operator; they sum to 1."""
    prompt = s.prompts[0]
    extra = s.prompts[1].tokens[-3:]
    tokens = prompt.tokens + extra
    plans = {"plain": EMPTY, **every_operator(s, Site(s.layers[1]))}
    requests = [ScoreRequest(prompt, extra, plan, logprobs="all") for plan in plans.values()]
    for name, request, got in zip(plans, requests, s.engine.score(requests), strict=True):
        want = s.oracle.run(tokens, s.engine.resolve(request.plan, prompt)).logprobs
        assert got.distribution is not None
        s.same_logprobs(got.distribution, want, name)
        assert np.abs(np.exp(got.distribution.astype(np.float64)).sum(1) - 1).max() < 1e-4
        assert got.tokens == extra
        chosen = got.distribution[np.arange(len(prompt) - 1, len(tokens) - 1), list(extra)]
        assert np.abs(got.logprobs - chosen).max() <= s.tolerance.logprob
        last = s.engine.score(ScoreRequest(prompt, extra, request.plan, logprobs="last"))[0]
        assert last.distribution is not None
        s.same_logprobs(last.distribution, got.distribution[-1], f"{name}, last")
    changed = [np.abs(p.logprobs - s.plain(0).logprobs).max() for p in (s.trace(prompt, plans["add"]),)]
    assert min(changed) > 100 * s.tolerance.logprob, "the plans are too weak to tell engines apart"


@clause
def scores_of_prompts_and_texts(s: Subject) -> None:
    """Without a continuation the prompt's own tokens from the second on; text is tokenised as what follows."""
    prompt = s.prompts[2]
    got = s.engine.score(ScoreRequest(prompt))[0]
    assert got.tokens == prompt.tokens[1:] and got.distribution is None
    want = s.oracle.run(prompt.tokens, EMPTY).logprobs
    s.same_logprobs(got.logprobs, want[np.arange(len(prompt) - 1), list(prompt.tokens[1:])], "prompt")
    text = s.engine.score(ScoreRequest(prompt, " feel so"))[0]
    assert s.engine.decode(text.tokens, special=True) == " feel so"
    by_token = s.engine.score(ScoreRequest(prompt, text.tokens))[0]
    s.same_logprobs(text.logprobs, by_token.logprobs, "text and tokens")


@clause
def evidence_is_the_mean_of_captures(s: Subject) -> None:
    """`collect` reads the tokens of the pooling, unsteered, and keeps the groups apart; equal prompts may run once."""
    prompts = [s.prompts[0], s.prompts[1], s.prompts[2], s.prompts[1]]
    comparisons = [Comparison((0, 2), (1, 3), paired=True), Comparison((1,), (0, 2))]
    sites = [Site(0), Site(s.last)]
    for pooling, rows in (("last", lambda n: [n - 1]), ("last_2", lambda n: [n - 2, n - 1])):
        with s.engine.steered(place(s, Add(amount=50.0), Site(0))):
            found = s.engine.collect(prompts, comparisons, sites, {"mean", "rows"}, pooling)
        pooled = {
            site: [s.plain(i).before[site][rows(len(p))].mean(0) for i, p in enumerate(s.prompts)]
            for site in sites
        }
        for site in sites:
            paired, loose = found[0][site], found[1][site]
            assert paired.rows is not None and paired.pairs == 2
            order = np.argsort([np.abs(paired.rows[POSITIVE][0] - pooled[site][i]).max() for i in (0, 2)])
            rows_want = np.stack([pooled[site][i] for i in (0, 2)])[order]
            s.same_states(paired.rows[POSITIVE], rows_want, site, pooling)
            s.same_states(paired.mean[NEGATIVE], pooled[site][1], site, pooling)
            s.same_states(loose.mean[NEGATIVE], (pooled[site][0] + pooled[site][2]) / 2, site, pooling)
