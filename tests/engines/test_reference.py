"""The reference model does what its hand-set weights were set to do, and its text machinery is exact."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trimtab
from trimtab.directions import Direction
from trimtab.engines.reference import ReferenceEngine, words
from trimtab.engines.reference.sampling import Spout, choose, generator
from trimtab.engines.reference.weights import BASIS, INNER, PLANTED, STREAM_WIDTHS
from trimtab.engines.requests import Request, Sampling
from trimtab.errors import InputError, UnknownName, Unsupported
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt
from trimtab.sites import STREAMS, Site

ENGINE = ReferenceEngine.load()
SITE = Site(2)
ASK = [{"role": "user", "content": "How do you feel now?"}]


def words_of(kind, **coordinates):
    """Words of the lexicon with these coordinates."""
    return {
        w.text
        for w in words.LEXICON
        if w.kind == kind and all(getattr(w, k) == v for k, v in coordinates.items())
    }


def adjectives_after(concept, amount):
    plan = SteeringPlan.add(Direction(concept, SITE, PLANTED[concept]), amount=amount)
    sampling = Sampling(max_tokens=24, temperature=0.7, seed=3, n=4)
    texts = " ".join(s.text for s in ENGINE.generate(Request(ENGINE.encode(ASK), plan, sampling))[0].samples)
    said = texts.replace(".", " ").replace("!", " ").split()
    return [w for w in said if w in words_of("adjective")], said


@pytest.mark.parametrize(("concept", "sign"), [("joy", 1.0), ("joy", -1.0), ("anger", 1.0)])
def test_steering_along_a_planted_direction_changes_what_is_said(concept, sign):
    plain, _ = adjectives_after(concept, 0.0)
    steered, _ = adjectives_after(concept, 1.5 * sign)
    wanted = words_of("adjective", **{concept: sign})

    def share(found):
        return sum(w in wanted for w in found) / len(found)

    assert share(steered) > 0.9 > 0.6 > share(plain)


def test_formality_changes_the_adverbs_and_leaves_the_grammar():
    _, formal = adjectives_after("formality", 1.5)
    _, casual = adjectives_after("formality", -1.5)
    adverbs = words_of("adverb")
    assert {w for w in formal if w in adverbs} <= words_of("adverb", formality=1.0)
    assert {w for w in casual if w in adverbs} <= words_of("adverb", formality=-1.0)
    assert set(formal) <= {w.text for w in words.LEXICON}


@pytest.mark.parametrize(
    ("text", "least", "most"), [("we feel happy", 2.0, 9.0), ("we feel sad", -9.0, -2.0)]
)
def test_a_words_concept_can_be_read_where_it_stands_and_afterwards(text, least, most):
    prompt = ENGINE._encode_text(text + " today.")
    plain = ENGINE._encode_text("we feel tall today.")
    for layer in range(4):
        joy = ENGINE.capture(prompt, [layer])[0][layer] @ PLANTED["joy"]
        none = ENGINE.capture(plain, [layer])[0][layer] @ PLANTED["joy"]
        where = prompt.tokens.index(words.tokenize(text)[-1])
        assert least < joy[where] < most
        assert (joy[-1] - none[-1]) * np.sign(least + most) > 0.05  # attention carries it on


def test_planted_directions_are_off_every_channel_and_orthonormal():
    np.testing.assert_allclose(BASIS @ BASIS.T, np.eye(32), atol=1e-12)
    for row in PLANTED.values():
        np.testing.assert_allclose(np.abs(row), 1 / np.sqrt(32))


def test_every_stream_has_a_site_and_no_two_groups_share_a_width():
    assert set(STREAM_WIDTHS) == set(STREAMS)
    assert len(ENGINE.info.widths) == 4 * len(STREAMS)
    assert (
        len({STREAM_WIDTHS[s] for s in ("resid_post", "q", "k", "gate")}) == 4
        and STREAM_WIDTHS["up"] == INNER
    )


def test_loading():
    assert isinstance(trimtab.load_engine("tiny", "reference"), ReferenceEngine)
    assert ReferenceEngine.load(n_layers=7).info.n_layers == 7
    with pytest.raises(UnknownName, match="transformers"):
        ReferenceEngine.load("gpt2")
    for options in ({"chunk": 0}, {"n_layers": 0}):
        with pytest.raises(InputError):
            ReferenceEngine.load(**options)


def test_what_the_reference_engine_refuses():
    outside = Prompt((0, len(words.VOCABULARY)))
    for run in (
        lambda: ENGINE.generate(Request(outside)),
        lambda: ENGINE.capture(outside, [0]),
        lambda: ENGINE.score(trimtab.engines.requests.ScoreRequest(outside)),
    ):
        with pytest.raises(InputError, match="does not exist"):
            run()
    with pytest.raises(Unsupported, match="thinking"):
        ENGINE.chat("Hello", thinking=True)
    from trimtab.objectives import ContinuationNLL

    with pytest.raises(Unsupported, match="transformers"):
        ENGINE.gradient([outside], SITE, PLANTED["joy"], ContinuationNLL((1,)), [1.0])


def test_generation_is_a_matter_of_milliseconds():
    import time

    request = Request(ENGINE.encode(ASK), None, Sampling(max_tokens=16, ignore_eos=True))
    ENGINE.generate(request)
    times = []
    for _ in range(3):
        start = time.thread_time()
        ENGINE.generate(request)
        times.append(time.thread_time() - start)
    assert min(times) < 0.25, times  # usually 15 ms; the bound only catches a change of order


# --- text -----------------------------------------------------------------------------------------------------


@given(st.text(max_size=40))
def test_any_text_round_trips(text):
    tokens = words.tokenize(text)
    assert words.to_bytes(tokens) == text.encode("utf-8", errors="replace")
    assert not set(tokens) & set(range(words.BYTES))  # no text becomes a special token


@given(st.lists(st.tuples(st.sampled_from(words.ROLES), st.text(max_size=12)), min_size=1, max_size=4))
def test_spans_carry_exactly_the_contents(turns):
    messages = [{"role": r, "content": c} for r, c in turns]
    prompt = words.encode_messages(messages, generation_prompt=True, prefill=None)
    assert prompt.spans is not None and len(prompt.spans) == len(turns)
    for span, (role, content) in zip(prompt.spans, turns, strict=True):
        body = prompt.tokens[span.start : span.end]
        assert span.role == role and words.to_bytes(body) == content.encode("utf-8", errors="replace")
        assert not set(range(span.start, span.end)) & prompt.special
    assert (
        words.to_bytes(prompt.tokens, special=True).decode()
        == prompt.text.encode("utf-8", "replace").decode()
    )


def test_the_template():
    prompt = words.encode_messages(ASK, generation_prompt=True, prefill=" I feel")
    assert prompt.text == (
        "<|bos|><|im_start|>user\nHow do you feel now?<|im_end|>\n<|im_start|>assistant\n I feel"
    )
    assert prompt.spans[-1].role == "assistant" and prompt.spans[-1].end == len(prompt)
    closed = words.encode_messages(ASK, generation_prompt=False, prefill=None)
    assert closed.text.endswith("<|im_end|>\n")


PIECES = st.lists(st.sampled_from(["a", "b", "ab", "é", "€", "😀", " ", "STOP", "ST", "OP"]), max_size=12)


@given(PIECES, st.lists(st.sampled_from(["STOP", "ab", "é", "b€", "aab"]), max_size=2))
def test_a_spout_lets_out_exactly_the_text_before_the_first_stop(pieces, stops):
    """Fed byte by byte: characters never come out in halves, and nothing is taken back."""
    spout, streamed = Spout(bytes, tuple(stops)), []
    text = "".join(pieces)
    for byte in text.encode():
        if not spout.stopped:
            streamed.append(spout.push(byte))
    streamed.append(spout.close())
    ends = [text.index(s) + len(s) for s in stops if s in text]
    if ends:
        first = min(ends)  # the stop string that is complete first ends the text
        begins = min(text.index(s) for s in stops if s in text[:first])
        assert spout.stopped and spout.text == text[:begins]
    else:
        assert not spout.stopped and spout.text == text
    assert "".join(streamed) == spout.text and "�" not in spout.text


def test_half_a_character_is_let_out_as_such_at_the_end():
    spout = Spout(bytes, ())
    assert spout.push("é".encode()[0]) == "" and spout.close() == "�"


def test_choices_follow_the_distribution():
    logprobs = np.log(np.array([0.5, 0.1, 0.3, 0.1]))
    draws = 4000

    def shares(**options):
        sampling = Sampling(temperature=1.0, **options)
        random = generator(Sampling(seed=1), 0)
        return np.bincount([choose(logprobs, sampling, random) for _ in range(draws)], minlength=4) / draws

    np.testing.assert_allclose(shares(), np.exp(logprobs), atol=0.03)
    np.testing.assert_allclose(shares(top_k=2), [5 / 8, 0, 3 / 8, 0], atol=0.03)
    np.testing.assert_allclose(shares(top_p=0.6), [5 / 8, 0, 3 / 8, 0], atol=0.03)  # .5 alone is not .6
    np.testing.assert_allclose(shares(top_p=0.4), [1, 0, 0, 0])
    assert choose(logprobs, Sampling(), generator(Sampling(), 0)) == 0


def test_random_numbers_belong_to_the_sample():
    first, again, second = (generator(Sampling(seed=5), i).random(3) for i in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, second)
    assert not np.array_equal(generator(Sampling(), 0).random(3), generator(Sampling(), 0).random(3))


def test_the_engine_is_a_context_manager():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ReferenceEngine.load() as engine:
            assert engine.generate(Request("we feel", None, Sampling(max_tokens=1)))[0].tokens
