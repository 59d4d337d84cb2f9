"""Spans on rendered templates, continuations, incremental text and stop strings, on tokenizers made on the spot."""

from __future__ import annotations

import pytest

pytest.importorskip("tokenizers", reason="these tests build their tokenizers with the tokenizers library")
pytest.importorskip("transformers", reason="these tests wrap their tokenizers with transformers")

from engines.checkpoints import tokenizer
from trimtab.engines.requests import Sampling
from trimtab.engines.sampling import DRAWS, Uniforms
from trimtab.engines.tokens import Detokenizer, PromptEncoder, StopText, token_spans
from trimtab.errors import InputError, Unsupported
from trimtab.prompts import Span

MESSAGES = [
    {"role": "system", "content": "user"},  # a content that also occurs in the markup
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hi there"},
    {"role": "user", "content": "u"},
]


def encoder(template: str | None = "keep") -> PromptEncoder:
    words = tokenizer()
    if template != "keep":
        words.chat_template = template
    return PromptEncoder(words, "test")


def texts_of(e: PromptEncoder, prompt) -> list[tuple[str, str]]:
    return [(s.role, e.decode(prompt.tokens[s.start : s.end], special=True)) for s in prompt.spans]


def test_spans_carry_exactly_the_contents():
    e = encoder()
    prompt = e.messages(MESSAGES)
    assert texts_of(e, prompt) == [(m["role"], m["content"]) for m in MESSAGES]
    inside = {i for s in prompt.spans for i in range(s.start, s.end)}
    assert prompt.special == set(range(len(prompt))) - inside
    assert e.decode(prompt.tokens, special=True) == prompt.text
    assert prompt.text.endswith("<|im_start|>assistant\n")


def test_prefill_follows_the_generation_prompt():
    e = encoder()
    prompt = e.messages(MESSAGES[:2], prefill="Well,")
    assert prompt.text.endswith("<|im_start|>assistant\nWell,")
    assert texts_of(e, prompt)[-1] == ("assistant", "Well,")
    with pytest.raises(InputError, match="generation prompt"):
        e.messages(MESSAGES[:2], generation_prompt=False, prefill="Well,")


def test_a_template_that_strips_contents_still_has_spans():
    e = encoder("{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }};{% endfor %}")
    prompt = e.messages([{"role": "user", "content": "  spaced out "}])
    assert texts_of(e, prompt) == [("user", "spaced out")]


def test_a_template_that_changes_contents_refuses_roles():
    e = encoder("{% for m in messages %}{{ m['role'] }}:{{ m['content'] | upper }};{% endfor %}")
    prompt = e.messages([{"role": "user", "content": "shout"}])
    assert prompt.text == "user:SHOUT;" and prompt.spans is None
    with pytest.raises(InputError, match="role"):
        prompt.role_ranges("user")


def test_thinking_needs_a_switch_in_the_template():
    with pytest.raises(Unsupported, match="thinking"):
        encoder().messages(MESSAGES, thinking=False)
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if enable_thinking %}<t>{% endif %}"
    assert encoder(template).messages(MESSAGES[1:2], thinking=True).text == "Hi there<t>"
    assert encoder(template).messages(MESSAGES[1:2], thinking=False).text == "Hi there"


def test_messages_that_the_template_refuses_are_one_sentence():
    e = encoder("{% for m in messages %}{{ raise_exception('only users') }}{% endfor %}")
    with pytest.raises(InputError, match="only users"):
        e.messages(MESSAGES)
    with pytest.raises(InputError, match="no chat template"):
        encoder(None).messages(MESSAGES)


def test_text_begins_with_the_special_token_and_has_no_spans():
    prompt = encoder().text("Hi")
    assert prompt.spans is None and prompt.special == {0} and len(prompt) == 3


def test_template_hash_tells_templates_apart():
    hashes = {encoder().template_hash, encoder("a").template_hash, encoder("b").template_hash}
    assert len(hashes) == 3 and encoder(None).template_hash is None


def sentencepiece() -> PromptEncoder:
    """A tokenizer that writes a space before the first word, as SentencePiece models do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<s>", "▁", "▁yes", "yes", "no", "▁no", "\n", ":", "x"]
    core = Tokenizer(models.Unigram([(p, -1.0 - i / 10) for i, p in enumerate(pieces)], unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    return PromptEncoder(PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>"), "sp")


def test_a_continuation_gets_no_space_of_its_own():
    e = sentencepiece()
    assert e.tokenizer("yes", add_special_tokens=False)["input_ids"] == [2]  # "▁yes": what must not happen
    assert e.continuation("yes") == (3,)
    assert e.continuation(" yes") == (2,)


def test_token_spans_cover_every_character_of_a_content():
    offsets = [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert token_spans([("user", 4, 7)], offsets) == (Span("user", 1, 3),)
    assert token_spans([("user", 3, 6), ("assistant", 6, 6)], offsets) == (Span("user", 1, 2),)
    # A token that reaches from one content into the next belongs to the first.
    assert token_spans([("a", 0, 4), ("b", 4, 9)], offsets) == (Span("a", 0, 2), Span("b", 2, 3))


def test_pieces_put_together_are_the_text():
    e = encoder()
    text = "a caf\u00e9 is \u4f60\u597d, no?"
    words = tokenizer()
    bytes_level = e.continuation("a b  c\nd")
    spout = Detokenizer(e)
    pieces = [spout.push(t) for t in bytes_level]
    assert "".join(pieces) + spout.finish() == "a b  c\nd"
    assert words is not None and text


class Bytes:
    """Each token is one byte of UTF-8: characters span tokens."""

    def decode(self, tokens, special=False):
        return bytes(tokens).decode("utf-8", errors="replace")


def test_no_piece_ends_inside_a_character():
    text = "caf\u00e9 \u4f60\u597d"
    spout = Detokenizer(Bytes())
    pieces = [spout.push(b) for b in text.encode()]
    assert "".join(pieces) == text and "\ufffd" not in "".join(pieces)
    assert pieces[3:5] == ["", "\u00e9"]
    cut = Detokenizer(Bytes())
    assert [cut.push(b) for b in "\u4f60".encode()[:2]] == ["", ""] and cut.finish() == "\ufffd"


def test_stop_text_holds_back_what_may_become_a_stop_string():
    stop = StopText(["END", "\n\n"])
    assert [stop.push(p) for p in ("one E", "N", "x", "\n", "two ", "E", "ND and more")] == [
        "one ", "", "ENx", "", "\ntwo ", "", "",
    ]  # fmt: skip
    assert stop.stopped and stop.finish() == ""
    held = StopText(["END"])
    assert held.push("the EN") == "the " and held.finish() == "EN" and not held.stopped


def test_uniforms_belong_to_the_seed_and_the_sample():
    first, again, other, later = (Uniforms(3, 0), Uniforms(3, 0), Uniforms(3, 1), Uniforms(4, 0))
    rows = [[u.at(t).tolist() for t in range(130)] for u in (first, again, other, later)]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2] and rows[0] != rows[3]
    flat = [x for step in rows[0] for x in step]
    resumed = Uniforms.of(Sampling(temperature=1.0, seed=3, resumes=(1, 70)), 0)
    assert [resumed.at(t).tolist() for t in range(60)] == rows[2][70:]
    assert len(rows[0][0]) == DRAWS and all(0 <= x < 1 for x in flat) and len(set(flat)) > 500
