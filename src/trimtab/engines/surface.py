"""What an engine implements, and the checks that need nothing but its description: how prompts become tokens, and
whether they fit.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from trimtab.engines.joining import Opening
from trimtab.engines.requests import Event, Message, PromptLike, Request, Score
from trimtab.engines.turns import Turns
from trimtab.errors import InputError, Unsupported
from trimtab.plans import EMPTY
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import ModelInfo, Site


@dataclass(frozen=True, eq=False)
class CaptureItem:
    """One prepared capture: which absolute `positions` [n] of the prompt to return, under which plan."""

    prompt: Prompt
    positions: np.ndarray
    plan: ResolvedPlan = EMPTY


class Surface(ABC):
    """The underscored methods are a subclass's duty; what is public here is the same for all engines."""

    name: ClassVar[str]
    #: Whether a request may carry a monitor.
    monitors: ClassVar[bool] = False
    info: ModelInfo

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self._lock = Turns()
        self._warned_raw = False

    # --- what a subclass implements -------------------------------------------------------------------------

    @abstractmethod
    def _encode_text(self, text: str) -> Prompt:
        """Tokens of bare text, with the special tokens the model expects in front."""

    @abstractmethod
    def _encode_messages(
        self, messages: Sequence[Message], generation_prompt: bool, prefill: str | None, thinking: bool | None
    ) -> Prompt:
        """Tokens of the rendered chat template with one span per message."""

    @abstractmethod
    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """Text of tokens; special tokens are left out unless asked for."""

    @abstractmethod
    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Run prepared requests together; yield events as tokens appear, and one final event per sample."""

    def _finished(self, requests: Sequence[Request]) -> Iterator[Event]:
        """As `_iterate` where only the final event of each sample is wanted; an engine may then skip the others."""
        return self._iterate(requests)

    def _opening(self) -> Opening:
        """How an open batch runs; `Unsupported`, with the reason, where requests cannot join one another."""
        raise Unsupported(f"the {self.name} engine runs requests in fixed groups")

    @abstractmethod
    def _capture(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
    ) -> list[dict[Site, np.ndarray]]:
        """States [n, width] float32 of each item's positions at each site."""

    @abstractmethod
    def _score(self, items: Sequence[tuple[Prompt, int, ResolvedPlan, str]]) -> list[Score]:
        """Score (prompt with continuation, index of the first scored token, plan, logprobs) items."""

    def module_names(self) -> dict[Site, str]:
        """Name of the module whose output each site is; empty for an engine without named modules."""
        return {}

    def close(self) -> None:  # noqa: B027 (a choice, not a duty)
        """Free what the engine holds; it cannot be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- prompts --------------------------------------------------------------------------------------------

    def encode(
        self,
        prompt: PromptLike,
        *,
        generation_prompt: bool = True,
        prefill: str | None = None,
        thinking: bool | None = None,
        bare: bool = False,
    ) -> Prompt:
        """Encode text, messages or token ids. Text gets no chat template: an instruct model warns once,
        unless `bare` says that this is meant.
        """
        if isinstance(prompt, Prompt):
            return prompt
        if isinstance(prompt, str):
            if not prompt:
                raise InputError("the prompt is empty")
            if self.info.template_hash and not bare and not self._warned_raw:
                self._warned_raw = True
                warnings.warn(
                    f"{self.info.id} has a chat template and got bare text; pass messages to use it",
                    stacklevel=3,
                )
            return self._encode_text(prompt)
        items = list(prompt)
        if items and all(isinstance(m, Mapping) for m in items):
            return self._encode_messages(check_messages(items), generation_prompt, prefill, thinking)  # type: ignore[arg-type]
        if items and all(isinstance(t, (int, np.integer)) for t in items):
            return Prompt(tuple(int(t) for t in items))  # type: ignore[arg-type]
        raise InputError("a prompt is text, a list of messages, a list of token ids or an encoded Prompt")

    def _check_plan(self, plan: ResolvedPlan) -> None:  # noqa: B027 (a choice, not a duty)
        """Refuse (`Unsupported`) what this engine cannot do; one that can do everything leaves it alone."""

    @property
    def _token_ids(self) -> int | None:
        """How many token ids there are: 0 to this number - 1."""
        return self.info.vocab_size

    def _check_prompt(self, prompt: Prompt, new: int = 0) -> None:
        """Refuse what does not fit the context, and ids outside the vocabulary: deep inside they are an index error,
        a dead process on a GPU, or, in MLX, a silent read past the end of the embedding."""
        self._check_length(len(prompt), new)
        size, tokens = self._token_ids, prompt.tokens
        if size is not None and tokens and not 0 <= min(tokens) <= max(tokens) < size:
            bad = next(t for t in tokens if not 0 <= t < size)
            raise InputError(f"token {bad} does not exist: the vocabulary has {size}, 0 to {size - 1}")

    def _check_length(self, prompt: int, new: int = 0) -> None:
        limit = self.info.context_length
        if limit is not None and prompt + new > limit:
            raise InputError(
                f"the prompt has {prompt} tokens and asks for {new} more, but the context of "
                f"{self.info.id} is {limit}; "
                "shorten the prompt or lower max_tokens (nothing is truncated silently)"
            )

    def _continuation(self, prompt: Prompt, continuation: str | Sequence[int] | None) -> tuple[int, ...]:
        """Tokens of a continuation; text is tokenised by itself, as it would follow the prompt."""
        if continuation is None:
            return ()
        tokens = (
            self._encode_continuation(continuation) if isinstance(continuation, str) else tuple(continuation)
        )
        if not tokens:
            raise InputError("the continuation is empty")
        return tuple(int(t) for t in tokens)

    @abstractmethod
    def _encode_continuation(self, text: str) -> Sequence[int]:
        """Tokens of text that follows a prompt: no special tokens in front."""


def check_messages(messages: Sequence[Any]) -> list[Message]:
    """Refuse messages without role and content."""
    for i, message in enumerate(messages):
        if not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise InputError(f'message {i} needs "role" and "content" (text), got {dict(message)!r}')
    return list(messages)
