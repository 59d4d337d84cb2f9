"""The text methods of an engine whose tokenizer is a Hugging Face one."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.engines.requests import Message
from trimtab.engines.surface import Surface
from trimtab.engines.tokens import PromptEncoder
from trimtab.prompts import Prompt


class Tokenized(Surface):
    """Hands every text question to `encoder`, which the engine sets, with `ends`, before anything is asked. Stands
    before `Engine` among the bases."""

    encoder: PromptEncoder
    #: Ids that end a sequence.
    ends: frozenset[int]

    def _encode_text(self, text: str) -> Prompt:
        return self.encoder.text(text)

    def _encode_messages(
        self, messages: Sequence[Message], generation_prompt: bool, prefill: str | None, thinking: bool | None
    ) -> Prompt:
        return self.encoder.messages(messages, generation_prompt, prefill, thinking)

    def _encode_continuation(self, text: str) -> Sequence[int]:
        return self.encoder.continuation(text)

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """Text of tokens; special tokens are left out unless asked for."""
        return self.encoder.decode(tokens, special)
