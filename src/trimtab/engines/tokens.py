"""From text and messages to `Prompt`s, for every engine whose tokenizer is a Hugging Face one. Loads no torch.

Where each message lies is found on the *rendered template*: it is rendered once more with a sentinel in place of every
content, which shows the markup around them; the spans count only if markup and contents put together again are the
rendered text, character by character. The tokenizer's offset mapping then turns characters into tokens.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.engines.requests import Message
from trimtab.errors import InputError, Unsupported
from trimtab.prompts import Prompt, Span

#: Template variables that switch visible reasoning on and off, in the order in which they are looked for.
THINKING_VARIABLES = ("enable_thinking", "thinking")
#: Texts that a continuation is tokenised behind, so that it gets no space of its own (see `continuation`).
ANCHORS = ("\n", ":", "x")


class PromptEncoder:
    """Encodes and decodes with one tokenizer (fast or slow; a slow one has no offsets, and roles are then refused)."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.tokenizer, self.name = tokenizer, name
        self.special_ids = frozenset(int(i) for i in tokenizer.all_special_ids)

    @functools.cached_property
    def template(self) -> str | None:
        """The chat template's source; None for a model without one."""
        template = getattr(self.tokenizer, "chat_template", None)
        if isinstance(template, Mapping):  # several named templates; transformers itself uses "default"
            template = template.get("default") or next(iter(template.values()), None)
        return template or None

    @property
    def template_hash(self) -> str | None:
        """Short hash of the chat template."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:16] if self.template else None

    def text(self, text: str) -> Prompt:
        """Bare text, with the special tokens that the tokenizer puts in front (and none at the end)."""
        ids = list(self.tokenizer(text)["input_ids"])
        # Some tokenizers close every text with an end token; a prompt that is to be continued must stay open.
        while (
            len(ids) > 1
            and ids[-1] == self.tokenizer.eos_token_id
            and not text.endswith(self._token(ids[-1]))
        ):
            ids.pop()
        if not ids:
            raise InputError(f"the tokenizer of {self.name} finds no token in {text[:40]!r}")
        special = frozenset(i for i, t in enumerate(ids) if t in self.special_ids)
        return Prompt(tuple(ids), special=special, text=text)

    def continuation(self, text: str) -> tuple[int, ...]:
        """Tokens of text as it follows a prompt: no special tokens in front, and no space that is not in the text.

        Tokenizers of the SentencePiece family put a space before the first word; behind an anchor they do not.
        """
        for anchor in ANCHORS:
            head = self._plain(anchor)
            both = self._plain(anchor + text)
            if both[: len(head)] == head and len(both) > len(head):
                return tuple(both[len(head) :])
        return tuple(self._plain(text))

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """Text of tokens, without special ones unless asked for."""
        ids = [int(t) for t in tokens]
        return self.tokenizer.decode(ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False)

    def messages(
        self,
        messages: Sequence[Message],
        generation_prompt: bool = True,
        prefill: str | None = None,
        thinking: bool | None = None,
    ) -> Prompt:
        """The rendered chat template; a prefill follows the generation prompt and is tokenised in its context."""
        if prefill is not None and not generation_prompt:
            raise InputError("a prefill begins the assistant's turn: it needs the generation prompt")
        options = {"add_generation_prompt": generation_prompt, **self._thinking(thinking)}
        rendered = self._render(messages, options)
        chars = self._find_contents(messages, rendered, options)
        full = rendered + (prefill or "")
        if prefill and chars is not None:
            chars = [*chars, ("assistant", len(rendered), len(full))]
        ids, offsets = self._tokenize(full)
        special = {i for i, t in enumerate(ids) if t in self.special_ids}
        if chars is None or offsets is None:
            return Prompt(tuple(ids), None, frozenset(special), full)
        spans = token_spans(chars, offsets)
        inside = {i for s in spans for i in range(s.start, s.end)}
        special |= set(range(len(ids))) - inside
        return Prompt(tuple(ids), spans, frozenset(special), full)

    # --- parts ------------------------------------------------------------------------------------------------

    def _token(self, token: int) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(token))

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]] | None]:
        """Tokens of a rendered template, which carries its special tokens itself, and their character offsets."""
        if not getattr(self.tokenizer, "is_fast", False):
            return self._plain(text), None
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(found["input_ids"]), [(int(a), int(b)) for a, b in found["offset_mapping"]]

    def _thinking(self, thinking: bool | None) -> dict[str, bool]:
        if thinking is None:
            return {}
        for variable in THINKING_VARIABLES:
            if variable in (self.template or ""):
                return {variable: thinking}
        raise Unsupported(
            f"the chat template of {self.name} has no switch for thinking; leave `thinking` out"
        )

    def _render(self, messages: Sequence[Message], options: Mapping[str, Any]) -> str:
        if self.template is None:
            raise InputError(f"{self.name} has no chat template; pass text, or a tokenizer with a template")
        try:
            return self.tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, **options)
        except Exception as error:  # jinja's own errors, and whatever a template raises about its input
            roles = ", ".join(str(m["role"]) for m in messages)
            raise InputError(
                f"the chat template of {self.name} refuses these messages (roles: {roles}): {error}"
            ) from error

    def _find_contents(
        self, messages: Sequence[Message], rendered: str, options: Mapping[str, Any]
    ) -> list[tuple[str, int, int]] | None:
        """(role, first, end) in characters for each message; None where the template does not round-trip."""
        marks = [f"\u2402{i}\u2403" for i in range(len(messages))]
        try:
            shown = self._render([{**m, "content": s} for m, s in zip(messages, marks, strict=True)], options)
        except InputError:
            return None
        found, at = [], 0
        for message, mark in zip(messages, marks, strict=True):
            markup, seen, shown = shown.partition(mark)
            if not seen or not rendered.startswith(markup, at):
                return None
            at += len(markup)
            for content in dict.fromkeys((message["content"], message["content"].strip())):
                if rendered.startswith(content, at):
                    break
            else:
                return None
            found.append((message["role"], at, at + len(content)))
            at += len(content)
        return found if rendered[at:] == shown else None


def token_spans(
    chars: Sequence[tuple[str, int, int]], offsets: Sequence[tuple[int, int]]
) -> tuple[Span, ...]:
    """Token spans of (role, first, end) character spans: every token that holds a character of the content.

    A token that reaches from one content into the next belongs to the first; an empty content has no span.
    """
    spans, at = [], 0
    for role, first, end in chars:
        while at < len(offsets) and offsets[at][1] <= first:
            at += 1
        start = at
        while at < len(offsets) and offsets[at][0] < end:
            at += 1
        if at > start and end > first:
            spans.append(Span(role, start, at))
    return tuple(spans)


class Detokenizer:
    """Text of a growing token list, piece by piece; holds back what is not yet a whole character."""

    #: Tokens of context that a piece is decoded behind, so that spaces and byte pairs come out as in the whole.
    CONTEXT = 6

    def __init__(self, encoder: PromptEncoder) -> None:
        self.encoder = encoder
        self.tokens: list[int] = []
        self._from = self._shown = 0

    def push(self, token: int) -> str:
        """Add a token; return the text that became certain, often "" while a character is incomplete."""
        self.tokens.append(int(token))
        whole = self.encoder.decode(self.tokens[self._from :])
        if whole.endswith("\ufffd"):  # the middle of a character that several tokens make up
            return ""
        before = self.encoder.decode(self.tokens[self._from : self._shown])
        self._from = max(0, len(self.tokens) - self.CONTEXT)
        self._shown = len(self.tokens)
        return whole[len(before) :]

    def finish(self) -> str:
        """What is left when no more tokens come: an incomplete character, as U+FFFD."""
        if self._shown == len(self.tokens):
            return ""
        whole, before = (self.encoder.decode(self.tokens[self._from : n]) for n in (None, self._shown))
        self._shown = len(self.tokens)
        return whole[len(before) :]


class StopText:
    """Holds text back while it may be the beginning of a stop string; says where the text ends."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.held, self.stopped = tuple(stops), "", False

    def push(self, text: str) -> str:
        """Text that is certain to stay; after a stop string `stopped` is set and nothing more comes."""
        if self.stopped or not self.stops:
            return "" if self.stopped else text
        self.held += text
        ends = [at for stop in self.stops if (at := self.held.find(stop)) >= 0]
        if ends:
            self.stopped = True
            out, self.held = self.held[: min(ends)], ""
            return out
        keep = max(self._overlap(stop) for stop in self.stops)
        out = self.held[: len(self.held) - keep]
        self.held = self.held[len(self.held) - keep :]
        return out

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        longest = min(len(stop) - 1, len(self.held))
        return next((n for n in range(longest, 0, -1) if self.held.endswith(stop[:n])), 0)

    def finish(self) -> str:
        """What was held back, once no stop string can follow."""
        out, self.held = self.held, ""
        return "" if self.stopped else out
