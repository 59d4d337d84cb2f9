"""Replies that the limit cut go on: what they become is what one run with the larger limit gives, to the token."""

import json
import random

import numpy as np
import pytest

from trimtab.cli.runs import Run
from trimtab.data.reading import appended, rows_of_run
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines import load_engine
from trimtab.engines.requests import Request, Sampling
from trimtab.errors import InputError
from trimtab.evaluation.conditions import PLAIN, steered
from trimtab.evaluation.continuation import Begun, go_on
from trimtab.evaluation.items import Item
from trimtab.evaluation.rescore import read_rows
from trimtab.evaluation.samples import Memory, measure
from trimtab.evaluation.scorers.projection import Projection
from trimtab.evaluation.scorers.repetition import Repetition
from trimtab.plans import SteeringPlan
from trimtab.readouts import Readout
from trimtab.sites import Site

SHORT, LONG = 3, 9
GREEDY = Sampling(max_tokens=SHORT)
SAMPLED = Sampling(max_tokens=SHORT, temperature=1.0, top_p=0.95, n=2, stop=("y",))
VOLATILE = {"key", "limits", "ids"}  # what says how a reply came about


@pytest.fixture(scope="module")
def engine():
    return load_engine("tiny", "reference")


@pytest.fixture(scope="module")
def vectors(engine):
    return ConceptVectors.from_directions(
        [Direction.from_raw("joy", Site(n), engine.planted["joy"], typical_norm=4.0) for n in (1, 2)]
    )


def told(engine, vectors, sampling, ledger=None, **more):
    """Rows of five items under the plain model and two plans, one of which acts on generated tokens only."""
    items = [Item.of(f"{s} feel", id=s) for s in ("I", "you", "we", "they")]
    items.append(Item.of([{"role": "user", "content": "now"}], id="now"))
    conditions = [
        PLAIN, steered(vectors, "joy", 0.5, [1]), steered(vectors, "joy", 0.4, [2], positions="generated")
    ]  # fmt: skip
    return measure(
        engine, items, conditions, ["joy"], [Projection(), Repetition()], sampling=sampling, seed=5, part=8,
        readout=Readout.from_vectors(vectors, [Site(2)]), ledger=ledger, **{"plain_loss": True, **more},
    )  # fmt: skip


def same(one, other):
    """Equal but for rounding, and for what says how a reply came about."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for k in a.keys() - VOLATILE - {"readings", "plain_nll", "scores"}:
            assert a[k] == b[k], k
        assert a["readings"]["joy"] == pytest.approx(b["readings"]["joy"], abs=1e-5)
        assert a["plain_nll"] == pytest.approx(b["plain_nll"], abs=1e-5)
        for name in a["scores"]:
            assert a["scores"][name]["joy"] == pytest.approx(b["scores"][name]["joy"], abs=1e-5)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_continued_run_is_an_unbroken_longer_one(engine, vectors, sampling):
    ledger = Memory()
    short = told(engine, vectors, sampling, ledger)
    cut = [r for r in short if r["cut"]]
    assert cut and (len(cut) < len(short) or sampling is GREEDY)  # some have ended by themselves
    went = told(engine, vectors, sampling, ledger, continue_to=LONG)
    whole = told(engine, vectors, Sampling(**{**vars(sampling), "max_tokens": LONG}))
    same(went, whole)
    assert [r["limits"] for r in went] == [[SHORT, LONG] if r["cut"] else [SHORT] for r in short]
    assert any(r["tokens"] > SHORT for r in went)
    for before, after in zip(short, went, strict=True):
        assert after["key"] == before["key"] and after["text"].startswith(before["text"])


def test_a_reply_goes_on_more_than_once(engine, vectors):
    ledger = Memory()
    told(engine, vectors, SAMPLED, ledger, continue_to=5)
    went = told(engine, vectors, SAMPLED, ledger, continue_to=LONG)
    same(went, told(engine, vectors, SAMPLED, continue_to=LONG))
    assert {(SHORT,), (SHORT, 5, LONG)} <= {tuple(r["limits"]) for r in went}


@pytest.mark.parametrize("seed", range(4))
def test_cut_anywhere_a_continued_run_ends_with_the_same_rows(engine, vectors, tmp_path, seed):
    """Whatever a kill leaves of the file, the same command completes it; no unit counts twice, nothing is rewritten."""

    def run(root, **more):
        with Run.open(root, "sweep", "joy", settings={}, identity={}) as ledger:
            told(engine, vectors, SAMPLED, ledger, **more)
        return ledger.folder

    folder = run(tmp_path / "whole")
    before = (folder / "samples.jsonl").read_bytes()
    assert run(tmp_path / "whole", continue_to=LONG) == folder
    content = (folder / "samples.jsonl").read_bytes()
    assert content.startswith(before) and len(content) > len(before)
    finished = {r["key"]: r for r in read_rows(folder)}
    assert len(finished) == 30 < len(appended(folder / "samples.jsonl")[0])

    # The first stage whole and nothing of the second; else torn anywhere in either.
    at = random.Random(seed).randrange(len(before) // 2, len(content)) if seed else len(before)
    copy = tmp_path / "torn" / folder.name
    copy.mkdir(parents=True)
    (copy / "run.json").write_text((folder / "run.json").read_text())
    (copy / "samples.jsonl").write_bytes(content[:at])
    assert run(tmp_path / "torn", continue_to=LONG) == copy
    assert {r["key"]: r for r in read_rows(copy)} == finished
    assert (copy / "samples.jsonl").read_bytes().startswith(content[: content[:at].rfind(b"\n") + 1])
    size = (copy / "samples.jsonl").stat().st_size
    run(tmp_path / "torn", continue_to=LONG)
    assert (copy / "samples.jsonl").stat().st_size == size  # nothing is left to do
    assert len(rows_of_run(copy)) == 30


def test_limits_that_differ_are_said(engine, vectors):
    ledger = Memory()
    told(engine, vectors, GREEDY, ledger, continue_to=LONG)
    some = next(k for k, r in ledger.done.items() if len(r["limits"]) > 1)
    ledger.done[some] = {
        **ledger.done[some],
        "limits": [SHORT],
        "cut": True,
        "ids": ledger.done[some]["ids"][:SHORT],
    }
    with pytest.warns(UserWarning, match=f"1 replies are cut at {SHORT} tokens .* --continue-to {LONG}"):
        told(engine, vectors, GREEDY, ledger)


def test_a_limit_that_cannot_be_is_refused_before_anything_runs(engine, vectors):
    for limit, words in ((SHORT, "larger limit"), (600, "context of 512")):
        before = engine.forwards
        with pytest.raises(InputError, match=words):
            told(engine, vectors, GREEDY, continue_to=limit)
        assert engine.forwards == before
    with pytest.raises(InputError, match="n is 1"):
        Sampling(n=2, resumes=(0, 3))
    with pytest.raises(InputError, match="resumes"):
        Sampling(resumes=(0, -1))


def test_a_stop_string_across_the_cut_ends_the_reply_where_it_would_have(engine):
    """Every two-token stop string of a reply, and every cut: the joined reply is the one that was never cut."""
    prompt = engine.encode("I feel", bare=True)
    free = engine.generate(Request(prompt, None, Sampling(max_tokens=12, ignore_eos=True)))[0]
    text, n = free.text, 0
    for i in range(1, len(text) - 2):
        stop = (text[i : i + 3],)
        options = Sampling(max_tokens=12, stop=stop, ignore_eos=True)
        unbroken = engine.generate(Request(prompt, None, options))[0].samples[0]
        assert unbroken.finish == "stop"
        for cut in range(1, len(unbroken.tokens)):
            first = engine.generate(Request(prompt, None, Sampling(cut, stop=stop, ignore_eos=True)))[
                0
            ].samples[0]
            if first.finish == "length":
                plan = engine.resolve(None, prompt)
                (joined,) = go_on(engine, [Begun(prompt, plan, first.tokens)], options, 12)
                assert (joined.tokens, joined.text, joined.finish) == (unbroken.tokens, unbroken.text, "stop")
                assert len(joined.logprobs) == len(unbroken.tokens) - cut
                n += 1
    assert n > 10


@pytest.mark.engine
@pytest.mark.parametrize("name", ["transformers", "mlx"])
def test_on_the_embedded_model(name):
    """Greedy and sampled replies under a plan, cut at several lengths: each goes on to what it would have been."""
    pytest.importorskip("torch" if name == "transformers" else "mlx.core")
    engine = load_engine("embedded", name)
    unit = np.random.default_rng(0).normal(size=engine.info.hidden_size)
    push = ConceptVectors.from_directions([Direction.from_raw("x", Site(3), unit, typical_norm=1.0)])
    plan = SteeringPlan.add(push, dose=0.5, layers=[3], positions="generated")
    prompts = [
        engine.encode([{"role": "user", "content": q}]) for q in ("How do you feel?", "What is in the box?")
    ]
    for options in (
        Sampling(max_tokens=24),
        Sampling(max_tokens=24, temperature=1.0, top_p=0.9, seed=3, n=2),
    ):
        whole = [c.samples for c in engine.generate([Request(p, plan, options) for p in prompts])]
        begun = [
            (Begun(p, engine.resolve(plan, p), s.tokens[:cut], options.seed, j), s)
            for p, many in zip(prompts, whole, strict=True)
            for j, s in enumerate(many)
            for cut in (1, 4, len(s.tokens) - 1)
            if 0 < cut < len(s.tokens)
        ]
        assert len(begun) >= 4
        joined = go_on(engine, [b for b, _ in begun], options, 24)
        for w, (_, s) in zip(joined, begun, strict=True):
            assert (w.tokens, w.text, w.finish) == (s.tokens, s.text, s.finish)


def test_rows_are_plain_json(engine, vectors):
    ledger = Memory()
    for row in told(engine, vectors, GREEDY, ledger, continue_to=LONG):
        assert json.loads(json.dumps(row)) == row


def test_vllm_goes_on_with_a_seed_that_no_other_part_has():
    """Its generators cannot be wound forward, so that what is drawn behind a cut must not repeat what is before it."""
    from trimtab.engines.vllm.generation import _seed

    whole = Sampling(temperature=1.0, seed=3, n=2)
    assert [_seed(whole, j) for j in range(2)] == [3, 4]
    rest = {_seed(Sampling(temperature=1.0, seed=3, resumes=(j, n)), 0) for j in range(2) for n in (4, 9)}
    assert len(rest) == 4 and not rest & {3, 4}
    assert _seed(Sampling(resumes=(0, 4)), 0) is None
