"""Texts read token by token on the reference model: the numbers are those of captured states, in the right places."""

import numpy as np
import pytest

from trimtab.directions import ConceptVectors, Direction
from trimtab.engines import load_engine
from trimtab.engines.requests import Request, Sampling
from trimtab.errors import InputError, UnknownName
from trimtab.readouts import Readout
from trimtab.recipes.transcripts import pieces_of, read_texts
from trimtab.sites import Site

TEXTS = ("I feel so happy today. We stay.", "They look mad!")
CHAT = [
    {"role": "system", "content": "Be quiet"},
    {"role": "user", "content": "How do you feel?"},
    {"role": "assistant", "content": "I feel really glad today."},
]
SITES = (Site(1), Site(3), Site(2, "mlp_out"))


@pytest.fixture(scope="module")
def engine():
    return load_engine("tiny", "reference")


@pytest.fixture(scope="module")
def vectors(engine):
    rng = np.random.default_rng(0)
    rows = [
        Direction.from_raw(name, s, rng.standard_normal(engine.info.width(s)), mean=0.5, std=2.0)
        for name in ("joy", "anger")
        for s in SITES
    ]
    return ConceptVectors.from_directions(rows)


@pytest.fixture(scope="module")
def readout(vectors):
    return Readout.from_vectors(vectors)


def coordinates(engine, vectors, prompt, site):
    return engine.capture(prompt, [site])[0][site].astype(np.float64) @ vectors.tables[site].vectors.T


@pytest.mark.parametrize("align", ["own", "emit"])
def test_a_reading_is_a_captured_state_times_the_row(engine, vectors, readout, align):
    for text, found in zip(TEXTS, read_texts(engine, readout, TEXTS, align=align)):
        prompt = engine.encode(text, bare=True)
        assert found.tokens == prompt.tokens and found.align == align
        for site in SITES:
            for k, concept in enumerate(("joy", "anger")):
                want = coordinates(engine, vectors, prompt, site)[:, k]
                if align == "emit":  # the state at p stands for the token at p + 1
                    want = np.concatenate([[np.nan], want[:-1]])
                assert np.allclose(found.of(concept, site), want, atol=1e-5, equal_nan=True)


def test_the_two_alignments_are_one_token_apart_and_differ(engine, readout):
    (own,), (emit,) = (read_texts(engine, readout, TEXTS[:1], align=a) for a in ("own", "emit"))
    assert np.array_equal(own.values[:-1], emit.values[1:]) and np.isnan(emit.values[0]).all()
    assert not np.allclose(own.values[1:], emit.values[1:], atol=1e-2)


def test_only_tokens_that_say_something_count(engine, readout):
    (own,), (emit,) = (read_texts(engine, readout, TEXTS[1:], align=a) for a in ("own", "emit"))
    assert own.counted.tolist() == [False] + [True] * (len(own) - 1)  # the first token is special and a sink
    assert emit.counted.tolist() == [False, False] + [True] * (len(emit) - 2)  # nor what the sink emitted


def test_emit_is_what_a_generation_reads(engine, readout):
    request = Request(
        engine.encode("I feel", bare=True), sampling=Sampling(max_tokens=9, ignore_eos=True), readout=readout
    )
    (done,) = engine.generate(request)
    sample = done.samples[0]
    whole = engine.encode([*done.prompt.tokens, *sample.tokens])
    (found,) = read_texts(engine, readout, [whole])
    assert np.allclose(found.values[len(done.prompt) :], sample.readings.values, atol=1e-5)


def test_z_is_the_stored_mean_and_std_away(engine, vectors, readout):
    (raw,) = read_texts(engine, readout, TEXTS[:1])
    (z,) = read_texts(engine, Readout.from_vectors(vectors, z=True), TEXTS[:1])
    assert z.z and np.allclose(z.values[1:], (raw.values[1:] - 0.5) / 2.0, atol=1e-5)


def test_a_chat_knows_who_speaks(engine, readout):
    (found,) = read_texts(engine, readout, [CHAT], names=["c"])
    said = {r: "".join(p for p, x in zip(found.pieces, found.roles) if x == r) for r in set(found.roles)}
    assert {r: said[r] for r in ("system", "user", "assistant")} == {m["role"]: m["content"] for m in CHAT}
    assert not any(c for c, r in zip(found.counted, found.roles) if r is None)  # markup does not count
    assert found.counted[found.roles.index("assistant")]  # emitted by markup, and counts


def test_batches_and_order_do_not_matter(engine, readout, monkeypatch):
    texts = [*TEXTS, "I feel. " * 9]
    together = read_texts(engine, readout, texts)
    monkeypatch.setattr("trimtab.recipes.neutral.ROUND_NUMBERS", 1)
    for text, found in zip(texts, together):
        (alone,) = read_texts(engine, readout, [text])
        assert np.allclose(found.values, alone.values, atol=1e-5, equal_nan=True)


def test_progress_counts_tokens(engine, readout):
    seen = []
    found = read_texts(engine, readout, TEXTS, progress=lambda *now: seen.append(now))
    total = sum(map(len, found))
    assert seen[-1] == (total, total)


# --- texts beyond the context


def test_a_text_beyond_the_context_is_refused_by_name(readout):
    small = load_engine("tiny", "reference", context_length=16)
    with pytest.raises(InputError, match=r"'?diary has 32 tokens.*context of tiny is 16.*--window 16"):
        read_texts(small, readout, ["I feel happy today. " * 6 + "I"], names=["diary"])


@pytest.mark.parametrize("tokens", [9, 17, 24, 40])
def test_windows_cover_every_token_with_half_a_window_before_it(engine, vectors, readout, tokens):
    """Every value is that of some window: the beginning, then states with at least half a window before them."""
    prompt = engine.encode(engine.encode("I feel happy today. " * 9, bare=True).tokens[:tokens])
    window = 16
    (found,) = read_texts(engine, readout, [prompt], align="own", window=window)
    assert np.isfinite(found.values).all()
    whole = coordinates(engine, vectors, prompt, Site(3))[:, 0]
    seen = found.of("joy", Site(3))
    assert np.allclose(seen[:window], whole[:window], atol=1e-5)
    for p in range(window, tokens):
        stretches = [prompt.tokens[a : p + 1] for a in range(max(0, p + 1 - window), p - window // 2 + 1)]
        ends = [coordinates(engine, vectors, engine.encode(t), Site(3))[-1, 0] for t in stretches]
        assert min(abs(seen[p] - e) for e in ends) < 1e-5, p


def test_windows_keep_the_special_tokens_in_front(engine, readout, monkeypatch):
    seen = []
    real = engine.capture
    monkeypatch.setattr(
        engine, "capture", lambda prompts, *a, **k: seen.extend(prompts) or real(prompts, *a, **k)
    )
    read_texts(engine, readout, ["I feel happy today. " * 9], window=16)
    assert len(seen) > 3 and all(p.tokens[0] == 0 and len(p) <= 16 for p in seen)


@pytest.mark.parametrize("window", [4, 1000])
def test_a_window_that_cannot_be(engine, readout, window):
    with pytest.raises(InputError, match="a window has 8 tokens or more and at most the context"):
        read_texts(engine, readout, TEXTS, window=window)


# --- pieces, and what is refused


@pytest.mark.parametrize("text", [*TEXTS, "Grüße 🙂 und “mehr”", "a\n\nb  c"])
def test_pieces_join_to_the_text_and_characters_stay_whole(engine, text):
    prompt = engine.encode(text, bare=True)
    pieces = pieces_of(engine, prompt.tokens)
    assert len(pieces) == len(prompt) and "".join(pieces) == engine.decode(prompt.tokens, special=True)
    assert not any("\ufffd" in p for p in pieces)


def test_an_incomplete_character_at_the_end_is_shown_as_one(engine):
    tokens = engine.encode("🙂", bare=True).tokens[:-1]
    assert "".join(pieces_of(engine, tokens)) == engine.decode(tokens, special=True)


def test_what_is_refused(engine, readout, vectors, monkeypatch):
    with pytest.raises(UnknownName, match="unknown alignment 'next'"):
        read_texts(engine, readout, TEXTS, align="next")
    (found,) = read_texts(engine, readout, TEXTS[:1])
    with pytest.raises(UnknownName, match="unknown concept 'grief'"):
        found.of("grief")
    with pytest.raises(InputError, match="cover layer_1, layer_2.mlp_out, layer_3"):
        found.of("joy")
    other = Readout.from_vectors(ConceptVectors.from_directions([Direction("a", Site(0), np.eye(8)[0])]))
    with pytest.raises(InputError, match="has width 8"):
        read_texts(engine, other, TEXTS)
    import dataclasses

    monkeypatch.setattr(engine, "info", dataclasses.replace(engine.info, template_hash=None))
    with pytest.raises(InputError, match="c is a chat, and tiny has no chat template"):
        read_texts(engine, readout, [CHAT], names=["c"])


@pytest.mark.engine
@pytest.mark.parametrize(
    "text", ["Once upon a time, there was a dog.", "Grüße 🙂 und “mehr”!", " two  spaces\n\nand more"]
)
def test_pieces_of_a_sentencepiece_tokenizer(shared_models, text):
    """Blanks in front of words, characters spelled in bytes: the pieces are still the text."""
    engine = load_engine(shared_models / "stories260K" / "hf", "transformers")
    prompt = engine.encode(text, bare=True)
    pieces = pieces_of(engine, prompt.tokens)
    assert "".join(pieces) == engine.decode(prompt.tokens, special=True)
    assert "".join(pieces[1:]).strip() == text.strip() and not any("\ufffd" in p for p in pieces)


@pytest.mark.engine
def test_pieces_of_the_embedded_model():
    engine = load_engine("embedded", "transformers")
    prompt = engine.encode(CHAT, generation_prompt=False)
    assert "".join(pieces_of(engine, prompt.tokens)) == engine.decode(prompt.tokens, special=True)
