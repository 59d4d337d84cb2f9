"""The reference model's language: a grammar of small sentences, a word-and-byte tokenizer, a ChatML template.

    " I" " feel" " really" " happy" " today" "."      subject, verb, adverb, adjective, time, end

Words outside the vocabulary are spelled in UTF-8 bytes, so every text round-trips.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.engines.requests import Message
from trimtab.prompts import Prompt, Span

BOS, START, END = 0, 1, 2
SPECIAL = ("<|bos|>", "<|im_start|>", "<|im_end|>")
ROLES = ("system", "user", "assistant")
BYTES = len(SPECIAL)  # the token of byte b is BYTES + b
TEMPLATE = "<|im_start|>{role}\n{content}<|im_end|>\n"  # then, to answer: <|im_start|>assistant\n

#: The order in which the grammar goes round; "other" (bytes, roles, specials) is followed by a subject.
CLASSES = ("subject", "verb", "adverb", "adjective", "time", "end", "other")


@dataclass(frozen=True)
class Word:
    """A word, its class and its coordinates along the planted directions."""

    text: str
    kind: str
    joy: float = 0.0
    anger: float = 0.0
    formality: float = 0.0


LEXICON: tuple[Word, ...] = (
    *(Word(w, "subject") for w in ("I", "you", "we", "they")),
    *(Word(w, "verb") for w in ("feel", "seem", "look", "stay")),
    *(Word(w, "adverb") for w in ("really", "very", "quite")),
    *(Word(w, "adverb", formality=1.0) for w in ("indeed", "most", "exceedingly")),
    *(Word(w, "adverb", formality=-1.0) for w in ("so", "super", "totally")),
    *(Word(w, "adjective", joy=1.0) for w in ("happy", "glad", "cheerful", "merry", "joyful")),
    *(Word(w, "adjective", joy=-1.0) for w in ("sad", "gloomy", "tearful", "lonely", "sorry")),
    *(Word(w, "adjective", anger=1.0) for w in ("angry", "furious", "cross", "mad")),
    *(Word(w, "adjective") for w in ("ready", "early", "busy", "quiet", "tall")),
    *(Word(w, "time") for w in ("today", "now", "tonight", "again")),
    Word(".", "end"),
    Word("!", "end", anger=0.2),
)


@dataclass(frozen=True)
class Entry:
    """One token of the vocabulary. `inside` is False for the variant of a word that has no space in front."""

    data: bytes
    word: Word
    inside: bool = True


def _vocabulary() -> tuple[Entry, ...]:
    found = [Entry(s.encode(), Word(s, "other")) for s in SPECIAL]
    found += [Entry(bytes([b]), Word(f"<{b}>", "other")) for b in range(256)]
    found += [Entry(r.encode(), Word(r, "other"), inside=False) for r in ROLES]
    for word in LEXICON:
        if word.kind == "end":
            found.append(Entry(word.text.encode(), word))
        else:
            found.append(Entry(b" " + word.text.encode(), word))
            found.append(Entry(word.text.encode(), word, inside=False))
    return tuple(found)


VOCABULARY = _vocabulary()
_TOKEN = {e.data: i for i, e in enumerate(VOCABULARY) if i >= BYTES + 256}


def tokenize(text: str) -> tuple[int, ...]:
    """Tokens of text, without specials; markup written in the text is spelled in bytes, never obeyed."""
    found: list[int] = []
    for piece in re.findall(r" ?[A-Za-z]+|.", text, flags=re.DOTALL):
        data = piece.encode("utf-8", errors="replace")
        found.extend([_TOKEN[data]] if data in _TOKEN else [BYTES + b for b in data])
    return tuple(found)


def to_bytes(tokens: Sequence[int], special: bool = False) -> bytes:
    """UTF-8 of tokens; specials are left out unless asked for."""
    return b"".join(VOCABULARY[t].data for t in tokens if special or t >= BYTES)


def encode_text(text: str) -> Prompt:
    """Bare text after the beginning-of-text token."""
    return Prompt((BOS, *tokenize(text)), special=frozenset({0}), text=SPECIAL[BOS] + text)


def encode_messages(messages: Sequence[Message], generation_prompt: bool, prefill: str | None) -> Prompt:
    """ChatML with one span per message; a prefill is the begun content of the last, assistant, message."""
    tokens: list[int] = [BOS]
    spans: list[Span] = []
    rendered = SPECIAL[BOS]

    def turn(role: str, content: str) -> None:
        nonlocal rendered
        tokens.extend((START, *tokenize(role + "\n")))
        body = tokenize(content)
        spans.append(Span(role, len(tokens), len(tokens) + len(body)))
        tokens.extend(body)
        rendered += f"{SPECIAL[START]}{role}\n{content}"

    for message in messages:
        turn(message["role"], message["content"])
        tokens.extend((END, *tokenize("\n")))
        rendered += SPECIAL[END] + "\n"
    if generation_prompt or prefill:
        turn("assistant", prefill or "")
        if not prefill:
            spans.pop()
    inside = {i for s in spans for i in range(s.start, s.end)}
    markup = frozenset(range(len(tokens))) - inside
    return Prompt(tuple(tokens), tuple(spans), markup, rendered)
