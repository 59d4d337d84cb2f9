"""What goes into an engine and what comes out: the same dataclasses for every engine and for the wire."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from trimtab.errors import InputError, UnknownName
from trimtab.plans import SteeringPlan
from trimtab.prompts import Positions, Prompt, check_positions
from trimtab.readouts import Readings, Readout
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

#: {"role": "user", "content": "…"}
Message = Mapping[str, str]
#: Text, messages, token ids or an encoded prompt.
PromptLike = Prompt | str | Sequence[Message] | Sequence[int]
PlanLike = SteeringPlan | ResolvedPlan | None


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy. A seed makes sample j of a request the same in any
    batch.

    `resumes` (sample, tokens) says that the prompt ends in so many tokens of that sample of an earlier request with
    this seed: random numbers go on where it stopped. vLLM cannot wind its own forward, and draws on from others.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    resumes: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        if self.resumes is not None:
            object.__setattr__(self, "resumes", tuple(self.resumes))
        checks = (
            (self.max_tokens >= 1, "max_tokens is at least 1"),
            (self.temperature >= 0, "temperature is 0 (greedy) or more"),
            (0 < self.top_p <= 1, "top_p lies in (0, 1]"),
            (self.top_k >= 0, "top_k is 0 (off) or more"),
            (self.n >= 1, "n is at least 1"),
            (all(self.stop), "a stop string is not empty"),
            (self.resumes is None or self.n == 1, "what goes on is one sample: n is 1"),
            (
                self.resumes is None or (len(self.resumes) == 2 and min(self.resumes) >= 0),
                "resumes is a sample and a number of tokens",
            ),
        )
        for good, rule in checks:
            if not good:
                raise InputError(f"{rule}; got {self}")


@dataclass(frozen=True)
class CaptureSpec:
    """States to return: at `sites`, for the tokens at `positions`, `at` before or after the site's edits.

    In a generation of G tokens after a prompt of T, the states at positions 0 to T + G - 2 exist: the last
    token was emitted but never read by the model.
    """

    sites: tuple[Site, ...]
    positions: Positions = "all"
    at: str = "after"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", tuple(sorted(set(self.sites))))
        object.__setattr__(self, "positions", check_positions(self.positions))
        if not self.sites:
            raise InputError("a capture needs at least one site")
        if self.at not in ("before", "after"):
            raise UnknownName.of("capture time", self.at, ("before", "after"))


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a monitor asks for after a token: `stop` ends the sample with that token; `plan`, from the next state on,
    acts instead of the sample's plan (and so contains it, with the positions that have passed left as they are)."""

    stop: bool = False
    plan: ResolvedPlan | None = None


class Monitor(Protocol):
    """Sees every reading of a request's samples while they run. It is called by the engine's thread, and must be
    quick and never raise: the samples beside it wait for it."""

    @property
    def plans(self) -> Sequence[ResolvedPlan]:
        """Every plan that a verdict may contain beyond the request's own: an engine prepares their sites."""
        ...

    def see(self, index: int, position: int, reading: np.ndarray) -> Verdict | None:
        """The `reading` [L, C] of sample `index` at absolute `position`, whose state has just emitted a token."""
        ...


@dataclass(frozen=True)
class Request:
    """One generation. Engines see it prepared: `prompt` a `Prompt`, `plan` a `ResolvedPlan`. A `monitor` sees what
    `readout` reads."""

    prompt: PromptLike
    plan: PlanLike = None
    sampling: Sampling = Sampling()
    capture: CaptureSpec | None = None
    readout: Readout | None = None
    id: str | None = None
    monitor: Monitor | None = None


@dataclass(frozen=True)
class ScoreRequest:
    """Log-probabilities of `continuation` after `prompt` under a plan (of the prompt's own tokens where it is
    None).

    `logprobs` "last" also returns the full next-token distribution after the last token, "all" after every
    token.
    """

    prompt: PromptLike
    continuation: str | Sequence[int] | None = None
    plan: PlanLike = None
    logprobs: str = "none"

    def __post_init__(self) -> None:
        if self.logprobs not in ("none", "last", "all"):
            raise UnknownName.of("logprobs", self.logprobs, ("none", "last", "all"))


@dataclass(frozen=True, eq=False)
class Score:
    """`logprobs` [n] of `tokens` [n], each given all before it; `distribution` [V] or [T, V] natural
    log-probabilities (T = all tokens of prompt and continuation), float32."""

    tokens: tuple[int, ...]
    logprobs: np.ndarray
    distribution: np.ndarray | None = None

    @property
    def total(self) -> float:
        """Sum of the log-probabilities."""
        return float(self.logprobs.sum())


@dataclass(frozen=True, eq=False)
class Capture:
    """`values[site]` [n, width] float32: the states at absolute `positions` [n], exactly those that were
    asked for. An engine may return a `handles.CaptureHandle`, which reads them when they are looked at.
    """

    values: Mapping[Site, np.ndarray]
    positions: np.ndarray
    at: str = "after"

    def __getitem__(self, site: Site | int) -> np.ndarray:
        return self.values[Site(site) if isinstance(site, int) else site]

    @property
    def shapes(self) -> dict[Site, tuple[int, ...]]:
        """The shape of each site's states, without reading them."""
        return {site: states.shape for site, states in self.values.items()}

    def fetch(self) -> Capture:
        """The states themselves, all of them; the result may also be awaited."""
        return self

    def __await__(self) -> Generator[None, None, Capture]:
        yield  # whoever waits for many lets others run in between
        return self


@dataclass(frozen=True)
class Receipt:
    """What was applied: the plan's fingerprint, the concepts, the layers, and how many processed tokens it
    addressed.
    """

    fingerprint: str
    concepts: tuple[str, ...] = ()
    sites: tuple[Site, ...] = ()
    tokens_steered: int = 0
    sources: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, plan: ResolvedPlan, processed: int) -> Receipt:
        """Receipt of a plan over a request of which `processed` tokens went through the model."""
        concepts = dict.fromkeys(
            str(p.source.get("concept", p.source.get("op", "inline"))) for p in plan.effective
        )
        return cls(
            plan.fingerprint,
            tuple(concepts),
            plan.sites,
            plan.tokens_steered(processed),
            tuple({"site": p.site.key, **p.source} for p in plan.effective),
        )


@dataclass(frozen=True, eq=False)
class Sample:
    """One sampled continuation. `finish` is "stop" (end token or stop string) or "length"."""

    tokens: tuple[int, ...]
    text: str
    logprobs: np.ndarray
    finish: str
    applied: Receipt
    capture: Capture | None = None
    readings: Readings | None = None


@dataclass(frozen=True, eq=False)
class Completion:
    """All samples of one request."""

    prompt: Prompt
    samples: tuple[Sample, ...]
    id: str | None = None

    @property
    def text(self) -> str:
        """Text of the first sample."""
        return self.samples[0].text

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of the first sample."""
        return self.samples[0].tokens

    @property
    def applied(self) -> Receipt:
        """Receipt of the first sample."""
        return self.samples[0].applied


@dataclass(frozen=True, eq=False)
class Event:
    """One step of a stream: request and sample index, the token, the text it adds (held back while a
    character or a stop string is incomplete), its log-probability, the reading [L, C] of the state that
    emitted it; the last event of a sample has `sample` and no token."""

    request: int
    index: int
    token: int | None = None
    text: str = ""
    logprob: float | None = None
    reading: np.ndarray | None = None
    sample: Sample | None = None


@dataclass(frozen=True, eq=False)
class Reply:
    """A chat turn: the assistant `message`, its completion, the rendered `prompt`, the role of each prompt
    token, and the raw output with special tokens where it was asked for."""

    message: Message
    completion: Completion
    prompt: Prompt
    roles: tuple[str | None, ...]
    raw: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The assistant's text."""
        return self.message["content"]
