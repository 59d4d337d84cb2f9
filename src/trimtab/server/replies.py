"""The form of OpenAI's answers: chat and completions, whole and in chunks."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from trimtab.engines.requests import Event


@dataclass
class Form:
    """One answer under way. `chat` chooses between the two forms; `words` are (text, log-probability) by sample."""

    model: str
    chat: bool
    logprobs: bool
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = self.id or f"{'chatcmpl' if self.chat else 'cmpl'}-{secrets.token_hex(8)}"

    def _frame(self, chunk: bool, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def announce(self, index: int) -> dict[str, Any]:
        """The first chunk of a chat, which names the speaker."""
        delta = {"role": "assistant", "content": ""}
        return self._frame(True, [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])

    def chunk(self, index: int, text: str, events: list[Event], finish: str | None) -> dict[str, Any]:
        """A piece of an answer and the tokens that are in it."""
        said = {"delta": {"content": text} if text or not finish else {}} if self.chat else {"text": text}
        choice = {"index": index, **said, "logprobs": self._logprobs(events), "finish_reason": finish}
        return self._frame(True, [choice])

    def usage(self, prompt: int, generated: int) -> dict[str, Any]:
        """The last chunk of a stream that counts tokens."""
        return {**self._frame(True, []), "usage": counted(prompt, generated)}

    def whole(self, samples: list[tuple[str, list[Event], str]], prompt: int) -> dict[str, Any]:
        """All samples: (text, events, why it ended)."""
        choices = [
            {
                "index": i,
                **({"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}),
                "logprobs": self._logprobs(events),
                "finish_reason": finish,
            }
            for i, (text, events, finish) in enumerate(samples)
        ]
        generated = sum(len(events) for _, events, _ in samples)
        return {**self._frame(False, choices), "usage": counted(prompt, generated)}

    def _logprobs(self, events: list[Event]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        if self.chat:
            content = [
                {"token": e.text, "logprob": e.logprob, "bytes": list(e.text.encode()), "top_logprobs": []}
                for e in events
            ]
            return {"content": content}
        return {"tokens": [e.text for e in events], "token_logprobs": [e.logprob for e in events]}


def counted(prompt: int, generated: int) -> dict[str, int]:
    """Tokens of a request."""
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}
