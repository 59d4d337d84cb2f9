"""What the routes answer, for the OpenAPI document. Answers are written elsewhere and are not checked against these
while a server runs; the tests check them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, WithJsonSchema
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from trimtab.server import schemas

Table = list[list[float | None]]


class _Form(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]


class ErrorText(_Form):
    """`kind` is the class of the error in trimtab, on the engine's routes."""

    message: str
    type: str
    param: str | None
    code: int
    kind: NotRequired[str]


class Error(_Form):
    """OpenAI's error form."""

    error: ErrorText


class Health(_Form):
    """Whether requests are taken, how they are batched, and why not better."""

    status: Literal["ok", "closed"]
    batching: Literal["continuous", "fixed groups"]
    why: NotRequired[str]


class Readout(_Form):
    """`values` [tokens][layers][concepts] (base64 with `shape` when packed), from generated token `start` on, whose
    state stands at `position`. What the numbers are comes with the first of them."""

    start: int
    position: int
    values: list[Table | None] | str
    indices: NotRequired[list[list[list[int]]] | str]
    shape: NotRequired[list[int]]
    layers: NotRequired[list[int]]
    concepts: NotRequired[list[str]]
    z: NotRequired[bool]
    at: NotRequired[Literal["before", "after"]]
    align: NotRequired[Literal["emitting", "own"]]
    encoding: NotRequired[Literal["json", "float16"]]


class Capture(_Form):
    """A handle, good for one `GET url`."""

    handle: str
    url: str
    layers: list[int]
    rows: int
    bytes: int
    expires_in: float
    stream: str
    at: Literal["before", "after"]
    align: Literal["own"]
    fingerprint: str


class Fired(_Form):
    """A rule that fired at a state; `index` is its sample's, where all are listed."""

    rule: str
    position: int
    value: float | None
    then: list[Any]
    index: NotRequired[int]


class Applied(_Form):
    """What was applied; `dose` is each vector's total over its layers."""

    fingerprint: str
    vectors: list[str]
    layers: list[int]
    dose: dict[str, float | None]
    tokens_steered: int


class Usage(_Form):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _Choice(_Form):
    index: int
    finish_reason: str | None
    readout: NotRequired[Readout]
    prompt_readout: NotRequired[Readout]
    capture: NotRequired[Capture]
    rules: NotRequired[list[Fired]]


class Message(_Form):
    """What the model said."""

    role: Literal["assistant"]
    content: str


class TokenLogprob(_Form):
    """One token."""

    token: str
    logprob: float | None
    bytes: list[int]
    top_logprobs: list[Any]


class ChatLogprobs(_Form):
    """Tokens with their log-probabilities."""

    content: list[TokenLogprob]


class TextLogprobs(_Form):
    """Tokens with their log-probabilities."""

    tokens: list[str]
    token_logprobs: list[float | None]


class ChatChoice(_Choice):
    """One sample."""

    message: Message
    logprobs: ChatLogprobs | None


class TextChoice(_Choice):
    """One sample."""

    text: str
    logprobs: TextLogprobs | None


class Delta(_Form):
    """A piece of what the model says."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]


class ChatChunkChoice(_Choice):
    """A piece of one sample."""

    delta: Delta
    logprobs: ChatLogprobs | None


class _Answer(_Form):
    id: str
    created: int
    model: str
    steering_applied: NotRequired[Applied | list[Applied]]
    rules: NotRequired[list[Fired]]


class ChatCompletion(_Answer):
    """A whole answer."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage


class TextCompletion(_Answer):
    """A whole answer."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage


class ChatCompletionChunk(_Answer):
    """One event of a stream; receipt and rules are in the last one."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    usage: NotRequired[Usage]


class TextCompletionChunk(_Answer):
    """One event of a stream; receipt and rules are in the last one."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: NotRequired[Usage]


class Model(_Form):
    """The model that is served."""

    id: str
    object: Literal["model"]
    owned_by: str


class Models(_Form):
    """The models that are served: one."""

    object: Literal["list"]
    data: list[Model]


class VectorFile(_Form):
    """A vector file that is loaded."""

    name: str
    concepts: list[str]
    layers: list[int]
    hidden_size: int | None
    dtype: str
    content_hash: str
    model: str | None
    method: str | None
    recommended_layer: int | None


class VectorFiles(_Form):
    """What is loaded, what is read by default, and what may be loaded."""

    object: Literal["list"]
    data: list[VectorFile]
    default: str | None
    available: list[str]


class Unloaded(_Form):
    """A vector file that is forgotten."""

    name: str
    unloaded: Literal[True]


class Manifest(_Form):
    """What can be read, and how."""

    concepts: list[str]
    layers: list[int]
    hidden_size: int | None
    dtype: str
    content_hash: str
    vectors: str
    default_layers: list[int]
    z: bool
    align: list[str]
    encodings: list[str]


class DefaultPlan(_Form):
    """The plan of requests that name none."""

    steering: Annotated[dict[str, Any] | None, WithJsonSchema(schemas.nullable(schemas.PLAN))]


class Preview(_Form):
    """A plan as it would act: each placement with its site, its coefficients and where they come from."""

    schema: int
    fingerprint: str
    placements: list[dict[str, Any]]
    layers: list[int]
    first_position: int | None
    prompt_tokens: int
    tokens_steered: int


class ModelForm(_Form):
    """The model's description, with the width of every site."""

    id: str
    revision: str | None
    architecture: str
    n_layers: int
    hidden_size: int
    widths: dict[str, int]
    context_length: int | None
    vocab_size: int | None
    n_heads: int | None
    head_dim: int | None
    dtype: str
    template_hash: str | None


class EngineForm(_Form):
    """What a remote engine must know."""

    schema: int
    engine: str
    model: ModelForm
    modules: dict[str, str]
    inline: bool
    group: int
    body_bytes: int
    answer_bytes: int


class Encoded(_Form):
    """Tokens of a prompt; of a continuation only those."""

    tokens: list[int]
    spans: NotRequired[list[list[str | int]] | None]
    special: NotRequired[list[int]]
    text: NotRequired[str | None]


class Decoded(_Form):
    """Text of tokens."""

    text: str
