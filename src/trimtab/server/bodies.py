"""OpenAI's two request bodies, as far as an engine of ours can do what they ask; the rest is refused by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from trimtab.engines.requests import Message, Sampling
from trimtab.engines.surface import check_messages
from trimtab.errors import InputError, Unsupported
from trimtab.server import schemas
from trimtab.server.wire import FIELDS

#: Fields that say something about the request and change nothing.
SILENT = frozenset({"user", "metadata", "store", "safety_identifier", "prompt_cache_key"})
#: Fields that are taken with the one value that asks for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (None, 1), "echo": (None, False), "frequency_penalty": (None, 0), "logit_bias": (None, {}),
    "parallel_tool_calls": (None, True, False), "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}), "suffix": (None, ""),
    "tool_choice": (None, "none", "auto"), "tools": (None, []), "top_logprobs": (None, 0),
}  # fmt: skip
#: Stop strings of a request; each is looked for after every token.
STOPS = 64


class StreamOptions(BaseModel):
    """`include_usage` adds a last chunk with the counts of tokens."""

    model_config = ConfigDict(extra="ignore", strict=True)
    include_usage: bool = False


def _describe(schema: dict[str, Any]) -> None:
    """Our fields in the description of a body, and those of OpenAI's that are looked at by hand."""
    rest = {name: {"enum": list(values)} for name, values in NEUTRAL.items()} | {name: {} for name in SILENT}
    schema["properties"] = {**rest, **schema["properties"], **schemas.FIELDS}
    schema["additionalProperties"] = False  # `check` refuses them by name


class Body(BaseModel, ABC):
    """What both have in common. Unknown fields are kept, and then taken or refused."""

    model_config = ConfigDict(extra="allow", strict=True, json_schema_extra=_describe)
    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    seed: int | None = None
    n: int = Field(1, ge=1, le=64)
    stop: str | Annotated[list[str], Field(max_length=STOPS)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    vllm_xargs: dict[str, Any] | None = None

    def sampling(self, room: int) -> Sampling:
        """How tokens are chosen; `room` is what the context leaves for an answer."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=self.limit(room),
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            seed=self.seed,
            n=self.n,
            stop=tuple(stop),
            ignore_eos=self.ignore_eos,
        )

    @abstractmethod
    def limit(self, room: int) -> int:
        """The most tokens of an answer."""

    @property
    @abstractmethod
    def wants_logprobs(self) -> bool:
        """Whether each token's own log-probability is asked for."""

    def check(self) -> None:
        """Refuse what would otherwise be ignored."""
        for name, value in (self.model_extra or {}).items():
            if name in SILENT or name in FIELDS:
                continue
            if name not in NEUTRAL:
                raise InputError(f"{name} is not a field that this server knows")
            if not any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in NEUTRAL[name]):
                raise Unsupported(
                    f"{name} = {value!r} is not something that this server can do; leave it out"
                )


class ChatBody(Body):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1), WithJsonSchema(schemas.MESSAGES)]
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = False

    def conversation(self) -> list[Message]:
        """The messages; content in parts is joined where all of it is text."""
        return check_messages(
            [{**m, "content": _text(i, m.get("content"))} for i, m in enumerate(self.messages)]
        )

    def limit(self, room: int) -> int:
        """Without a limit, what the context leaves."""
        return self.max_completion_tokens or self.max_tokens or max(1, room)

    @property
    def wants_logprobs(self) -> bool:
        """As the flag says."""
        return bool(self.logprobs)


def _text(index: int, content: Any) -> Any:
    if not isinstance(content, list):
        return content
    parts = [p.get("text") if isinstance(p, Mapping) and p.get("type") == "text" else None for p in content]
    if any(not isinstance(p, str) for p in parts):
        raise Unsupported(f"message {index} has content that is not text, and this server reads only text")
    return "".join(parts)  # type: ignore[arg-type]


class CompletionBody(Body):
    """`POST /v1/completions`, with one prompt."""

    prompt: str | list[int] | list[str]
    logprobs: Literal[0] | None = None

    def limit(self, room: int) -> int:
        """Without a limit, 16, as OpenAI has it."""
        return self.max_tokens or 16

    @property
    def wants_logprobs(self) -> bool:
        """0 asks for the token's own; alternatives are not offered."""
        return self.logprobs is not None

    def one_prompt(self) -> str | list[int]:
        """The prompt, of which there is one."""
        prompt = self.prompt
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
            if len(prompt) > 1:
                raise Unsupported("this server takes one prompt a request; send several requests")
            return str(prompt[0])
        if not prompt:
            raise InputError("the prompt is empty")
        return prompt  # type: ignore[return-value]
