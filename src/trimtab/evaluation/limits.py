"""What a push costs: statistics that grow with the dose, each with the limit at which a calibration stops.

    kl_p95, kl_mean   KL(steered ‖ plain) per token, in nats, over the first greedy tokens that the steered model writes
    delta_nll         nats per token that fixed neutral text loses under the plan
    repetition        share of repeated token trigrams in greedy text, less that of the plain model
    coherence         drop of the trigram coherence of sampled text against a reference corpus, upper bound over prompts
    invalid           share of yes/no questions whose answers hold less than half of the probability

Every limit takes a list of (plan, prompts) at once, so that all searches of a calibration share batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from trimtab.data.neutral import neutral_questions, neutral_texts
from trimtab.engines.base import Engine
from trimtab.engines.requests import Request, Sampling, ScoreRequest
from trimtab.errors import InputError, UnknownName
from trimtab.evaluation.coherence import SLACK, Reference
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt

#: Log-probabilities held at a time (float32 numbers).
NUMBERS = 1 << 26
Plans = Sequence[SteeringPlan | None]


class Limit(ABC):
    """`values(engine, plans, prompts)` [plans]: 0 for the plain model, growing with damage; `limit` is how much is
    allowed."""

    name: ClassVar[str]
    default: ClassVar[float]
    unit: ClassVar[str]
    limit: float

    @abstractmethod
    def values(self, engine: Engine, plans: Plans, prompts: Sequence[Prompt]) -> np.ndarray:
        """The statistic of each plan over all prompts."""


@dataclass(frozen=True)
class Divergence(Limit):
    """KL over the first `tokens` greedy steered tokens, teacher-forced under both; `quantile` None takes the mean."""

    name: ClassVar[str] = "kl_p95"
    default: ClassVar[float] = 1.0
    unit: ClassVar[str] = "nats"
    limit: float = 1.0
    quantile: float | None = 0.95
    tokens: int = 20

    def values(self, engine: Engine, plans: Plans, prompts: Sequence[Prompt]) -> np.ndarray:
        """One number per plan, over the tokens of all prompts."""
        texts = _greedy(engine, plans, prompts, self.tokens)
        rows = [
            (plan, p, t)
            for plan, own in zip(plans, texts, strict=True)
            for p, t in zip(prompts, own, strict=True)
        ]
        kl, n = divergences(engine, rows), len(prompts)
        pooled = [np.concatenate(kl[k : k + n]) for k in range(0, len(kl), n)]
        return np.array(
            [k.mean() if self.quantile is None else np.quantile(k, self.quantile) for k in pooled]
        )


def divergences(
    engine: Engine, rows: Sequence[tuple[SteeringPlan | None, Prompt, tuple[int, ...]]]
) -> list[np.ndarray]:
    """KL(steered ‖ plain) at every position that emits a token of a text, one array per (plan, prompt, text)."""
    if not rows:
        return []
    longest = max(len(p) + len(t) for _, p, t in rows)
    size = max(1, NUMBERS // (2 * longest * (engine.info.vocab_size or 1)))
    found = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        requests = [ScoreRequest(p, t, plan or SteeringPlan(), "all") for plan, p, t in part]
        scored = engine.score([*requests, *(replace(r, plan=SteeringPlan()) for r in requests)])
        for (_, prompt, text), steered, plain in zip(part, scored, scored[len(part) :], strict=False):
            assert steered.distribution is not None and plain.distribution is not None
            emit = slice(len(prompt) - 1, len(prompt) + len(text) - 1)
            p, q = (d[emit].astype(np.float64) for d in (steered.distribution, plain.distribution))
            found.append((np.exp(p) * (p - q)).sum(1))
    return found


@dataclass(frozen=True)
class MeanDivergence(Divergence):
    """The mean of the same KL."""

    name: ClassVar[str] = "kl_mean"
    default: ClassVar[float] = 0.3
    limit: float = 0.3
    quantile: float | None = None


@dataclass(frozen=True)
class NeutralLoss(Limit):
    """Mean over neutral texts of the nats per token that each loses; it ignores the prompts of the calibration."""

    name: ClassVar[str] = "delta_nll"
    default: ClassVar[float] = 1.0
    unit: ClassVar[str] = "nats per token"
    limit: float = 1.0
    texts: int = 12

    def values(self, engine: Engine, plans: Plans, prompts: Sequence[Prompt]) -> np.ndarray:
        """Steered less plain, one number per plan."""
        pairs = neutral_continuations(engine, self.texts)
        whole: list[SteeringPlan | None] = [SteeringPlan(), *plans]
        scored = iter(engine.score([ScoreRequest(p, t, plan) for plan in whole for p, t in pairs]))
        nll = np.array([[-next(scored).logprobs.mean() for _ in pairs] for _ in whole])
        return nll[1:].mean(1) - nll[0].mean()


def neutral_continuations(engine: Engine, count: int) -> list[tuple[Prompt, tuple[int, ...]]]:
    """Neutral texts as (prompt, continuation): the reply to its question in a chat, else the later two thirds."""
    found = []
    for question, text in zip(neutral_questions(), neutral_texts()):
        if engine.info.template_hash:
            start = engine.encode([{"role": "user", "content": question}])
            rest = engine.encode([{"role": "user", "content": question}], prefill=text)
            pair = (start, rest.tokens[len(start) :])
            if rest.tokens[: len(start)] != start.tokens:
                continue
        else:
            whole = engine.encode(text, bare=True)
            third = max(2, len(whole) // 3)
            pair = (Prompt(whole.tokens[:third]), whole.tokens[third:])
        limit = engine.info.context_length
        if pair[1] and (limit is None or len(pair[0]) + len(pair[1]) <= limit):
            found.append(pair)
        if len(found) == count:
            break
    if not found:
        raise InputError(f"no neutral text fits the context of {engine.info.id}: use another limit")
    return found


@dataclass(frozen=True)
class Repetition(Limit):
    """Repeated token trigrams of greedy text of `tokens` tokens, less what the plain model repeats."""

    name: ClassVar[str] = "repetition"
    default: ClassVar[float] = 0.2
    unit: ClassVar[str] = "share of trigrams"
    limit: float = 0.2
    tokens: int = 48

    def values(self, engine: Engine, plans: Plans, prompts: Sequence[Prompt]) -> np.ndarray:
        """Steered less plain, one number per plan."""
        texts = _greedy(engine, [None, *plans], prompts, self.tokens)
        shares = np.array([np.mean([repeated(t) for t in own]) for own in texts])
        return shares[1:] - shares[0]


def repeated(tokens: Sequence[int], n: int = 3) -> float:
    """1 − distinct ÷ all n-grams of one text; 0 for a text without any."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True)
class CoherenceDrop(Limit):
    """Drop of the trigram coherence (`evaluation.coherence`) of sampled text, pooled over prompts, with a margin.

    The largest dose whose *sample* keeps a limit breaks it on other prompts half of the time, so that what must stay
    within the limit is the upper end of a one-sided interval: drop + `margin` standard errors over prompts. The margin
    is that of 99 %, because a file holds many ranges and the search looks for the largest dose that passes.
    """

    name: ClassVar[str] = "coherence"
    default: ClassVar[float] = SLACK
    unit: ClassVar[str] = "share of trigrams, upper bound"
    limit: float = SLACK
    reference: Reference | None = None
    margin: float = 2.326
    sampling: Sampling = field(
        default_factory=lambda: Sampling(max_tokens=32, temperature=0.7, top_p=0.9, n=4)
    )

    def values(self, engine: Engine, plans: Plans, prompts: Sequence[Prompt]) -> np.ndarray:
        """Plain less steered plus the margin, one number per plan; text without three words is wholly incoherent."""
        if self.reference is None:
            raise InputError("the limit 'coherence' needs a reference corpus; give --reference FILE")
        requests = [
            Request(p, plan, replace(self.sampling, seed=i))
            for plan in (None, *plans)
            for i, p in enumerate(prompts)
        ]
        counts = np.array([self._counts([s.text for s in c.samples]) for c in engine.generate(requests)])
        known, all_ = np.moveaxis(counts.reshape(len(plans) + 1, len(prompts), 2), 2, 0).astype(float)
        share = known.sum(1) / np.maximum(all_.sum(1), 1)
        # Linearised: what each prompt adds to a ratio of sums.
        parts = (known - share[:, None] * all_) / np.maximum(all_.mean(1, keepdims=True), 1)
        n = len(prompts)
        spread = (parts[0] - parts[1:]).std(1, ddof=1) / np.sqrt(n) if n > 1 else np.zeros(len(plans))
        return share[0] - share[1:] + self.margin * spread

    def _counts(self, texts: Sequence[str]) -> tuple[int, int]:
        """Known trigrams and all of them."""
        assert self.reference is not None
        known = np.concatenate([self.reference.known(t) for t in texts])
        return int(known.sum()), len(known)


@dataclass(frozen=True)
class Invalid(Limit):
    """Share of prompts at whose end neither answer word stands: the prompts must be yes/no questions."""

    name: ClassVar[str] = "invalid"
    default: ClassVar[float] = 0.2
    unit: ClassVar[str] = "share of questions"
    limit: float = 0.2
    #: First tokens of both answers; None encodes "Yes" and "No" as continuations.
    answers: tuple[int, ...] | None = None

    def values(self, engine: Engine, plans: Plans, prompts: Sequence[Prompt]) -> np.ndarray:
        """One number per plan."""
        answers = list(self.answers or _answers(engine, prompts[0]))
        rows = [ScoreRequest(p, plan=plan, logprobs="last") for plan in plans for p in prompts]
        size, mass = max(1, NUMBERS // (engine.info.vocab_size or 1)), []
        for start in range(0, len(rows), size):
            scored = (s.distribution for s in engine.score(rows[start : start + size]))
            mass += [float(np.exp(d[answers]).sum()) for d in scored if d is not None]
        return (np.reshape(mass, (len(plans), -1)) < 0.5).mean(1)


def _answers(engine: Engine, prompt: Prompt) -> set[int]:
    """First tokens of both answers, as they follow a prompt."""
    forms = ("Yes", " Yes", "yes", " yes", "YES", "No", " No", "no", " no", "NO")
    return {s.tokens[0] for s in engine.score([ScoreRequest(prompt, f) for f in forms])}


def _greedy(
    engine: Engine, plans: Plans, prompts: Sequence[Prompt], tokens: int
) -> list[list[tuple[int, ...]]]:
    """Greedy tokens of every plan on every prompt, in one batch."""
    sampling = Sampling(max_tokens=tokens)
    requests = [Request(p, plan or SteeringPlan(), sampling) for plan in plans for p in prompts]
    done = engine.generate(requests)
    return [[c.tokens for c in done[k : k + len(prompts)]] for k in range(0, len(done), len(prompts))]


#: Every limit by its name.
LIMITS: dict[str, type[Limit]] = {
    c.name: c for c in (Divergence, MeanDivergence, NeutralLoss, Repetition, CoherenceDrop, Invalid)
}


def limit_of(text: str, **knobs: object) -> Limit:
    """A limit from "kl_p95" or "kl_p95=0.5"; `knobs` are fields of the limit that the caller provides."""
    name, _, value = text.partition("=")
    if name not in LIMITS:
        raise UnknownName.of("limit", name, LIMITS)
    cls = LIMITS[name]
    try:
        bound = float(value) if value else cls.default
    except ValueError:
        raise InputError(f"--limit {text!r} is not NAME or NAME=NUMBER") from None
    if not bound > 0:
        raise InputError(f"a limit is above 0, got {text!r}")
    known = {k: v for k, v in knobs.items() if k in cls.__dataclass_fields__ and v is not None}  # type: ignore[attr-defined]
    return cls(limit=bound, **known)  # type: ignore[call-arg]
