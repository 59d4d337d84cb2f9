"""mean and std for z-scores: single tokens of neutral replies, at the states that emit them."""

import dataclasses

import numpy as np
import pytest

from trimtab.data.contrast import Contrast
from trimtab.data.neutral import neutral_questions, neutral_texts
from trimtab.engines import load_engine
from trimtab.engines.requests import Request, Sampling
from trimtab.readouts import Readout
from trimtab.recipes import extract
from trimtab.recipes.neutral import IN_A_CHAT, measure, neutral_replies
from trimtab.sites import Site

TEXTS, QUESTIONS = neutral_texts()[:3], neutral_questions()[:3]
JOY = Contrast("joy", ("I feel happy.", "you look glad."), ("I feel sad.", "you look gloomy."), paired=True)


@pytest.fixture(scope="module")
def engine():
    return load_engine("tiny", "reference")


@pytest.fixture(autouse=True)
def few_neutral_texts(monkeypatch):
    monkeypatch.setattr("trimtab.recipes.neutral.neutral_texts", lambda: TEXTS)


def without_template(engine):
    base = load_engine("tiny", "reference")
    base.info = dataclasses.replace(engine.info, template_hash=None)
    return base


def reply_states(engine, site, shift=0):
    """States that emit each token of each reply, by hand: the prompt's end is found by encoding it alone."""
    found = []
    for question, text in zip(QUESTIONS, TEXTS):
        asked = [{"role": "user", "content": question}]
        start, whole = len(engine.encode(asked)), engine.encode(asked, prefill=text)
        states = engine.capture(whole, [site])[0][site]
        found.append(states[start - 1 + shift : len(whole) - 1 + shift])
    return np.concatenate(found).astype(np.float64)


def test_z_of_neutral_replies_has_mean_0_and_std_1(engine):
    site = Site(2)
    vectors = extract(engine, JOY, layers=2)
    z = Readout.from_vectors(vectors, [site], z=True).apply(site, reply_states(engine, site))
    assert abs(z.mean()) < 1e-3 and z.std() == pytest.approx(1, abs=1e-3)


def test_another_alignment_would_show(engine):
    site = Site(2)
    vectors = extract(engine, JOY, layers=2)
    table, along = vectors.tables[site], reply_states(engine, site, shift=1) @ vectors.tables[site].vectors[0]
    assert abs(along.mean() - table.mean[0]) > 1e-4 * abs(along.std())


def test_they_are_the_states_that_a_server_reads_while_it_writes(engine):
    """A generation's own readings: replies read again by the rule have the same values, token by token."""
    site, asked = Site(3), [{"role": "user", "content": "How do you feel?"}]
    vectors = extract(engine, JOY, layers=3)
    readout = Readout.from_vectors(vectors, [site])
    sampling = Sampling(max_tokens=12, ignore_eos=True)
    (done,) = engine.generate(Request(engine.encode(asked), sampling=sampling, readout=readout))
    sample = done.samples[0]
    whole = engine.encode([*done.prompt.tokens, *sample.tokens])
    states = engine.capture(whole, [site])[0][site][len(done.prompt) - 1 : len(whole) - 1]
    assert np.allclose(readout.apply(site, states)[:, 0], sample.readings.of("joy"), atol=1e-5)


def test_the_replies_cover_every_token_of_the_text_and_nothing_else(engine):
    replies, rule = neutral_replies(engine)
    assert rule == IN_A_CHAT and len(replies) == 3
    for reply, text in zip(replies, TEXTS):
        emitted = [reply.prompt.tokens[p + 1] for p in reply.emit]
        assert engine.decode(emitted) == text


def test_a_model_without_a_template_reads_the_texts_bare_without_the_sink(engine):
    base = without_template(engine)
    found = measure(base, {Site(1): np.eye(32)[:2]})
    states = [base.capture(base.encode(t, bare=True), [1])[0][1][1:-1] for t in TEXTS]
    along = np.concatenate(states).astype(np.float64)[:, :2]
    assert np.allclose(found.mean[Site(1)], along.mean(0)) and np.allclose(found.std[Site(1)], along.std(0))
    assert "bare" in found.reply_rule and (found.replies, found.reply_tokens) == (3, len(along))


def test_the_rule_and_its_questions_stand_in_the_origin(engine):
    origin = extract(engine, JOY, layers=1).origin
    tokens = sum(len(engine.encode(t, bare=True)) - 1 for t in TEXTS)
    assert origin.parameters["mean_std_of"] == f"{tokens} {IN_A_CHAT} (3 replies)"
    assert origin.read_alignment == "emit" and len(origin.parameters["questions_hash"]) == 32
    bare = extract(without_template(engine), JOY, layers=1).origin
    assert "questions_hash" not in bare.parameters and "bare" in bare.parameters["mean_std_of"]


def test_a_pooling_over_one_place_names_the_other_read_position(engine):
    assert extract(engine, JOY, layers=1).origin.read_position is None
    with pytest.warns(UserWarning, match="same token"):
        origin = extract(engine, JOY, layers=1, pooling="last").origin
    assert (origin.pooling, origin.read_position) == ("last", "each reply token")
