"""The log-ratio of two answers at an answer slot, with a check that the answers hold the probability mass.

    l_yes = logsumexp of log p over the first tokens of every surface form of yes; l_no likewise
    log_ratio = l_yes − l_no          mass = exp(l_yes) + exp(l_no)          entropy = −Σ p log p

A row is valid when mass ≥ 0.5; the mass is stored and invalid rows are counted, never dropped in silence.
Here the slot is forced: the prompt ends where the answer begins. `answers` measures where the model itself wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.engines.base import Engine
from trimtab.engines.requests import Message, PlanLike, PromptLike, Score, ScoreRequest
from trimtab.errors import InputError
from trimtab.prompts import Prompt

YES_FORMS = ("Yes", " Yes", "\nYes", "yes", " yes", "YES", " YES")
NO_FORMS = ("No", " No", "\nNo", "no", " no", "NO", " NO")
#: Below this much probability on both answers together a log-ratio says little about the choice.
MIN_MASS = 0.5
#: Requests per call: each brings a distribution over the whole vocabulary, which is reduced at once.
BATCH = 64
OPENED, CLOSED = "<think>", "</think>"


@dataclass(frozen=True)
class Choice:
    """Disjoint first-token ids of two answers, as they are tokenised after the prompt."""

    yes: tuple[int, ...]
    no: tuple[int, ...]

    def __post_init__(self) -> None:
        both = set(self.yes) & set(self.no)
        if not self.yes or not self.no or both:
            raise InputError(
                f"the two answers need disjoint, non-empty first tokens; yes {self.yes}, no {self.no}"
            )

    @classmethod
    def of(
        cls,
        engine: Engine,
        messages: Sequence[Message],
        yes: Sequence[str] = YES_FORMS,
        no: Sequence[str] = NO_FORMS,
        prefix: str = "",
        thinking: bool | None = None,
    ) -> Choice:
        """Tokenise each surface form *in context*, after the rendered prompt and `prefix`, and keep its first own
        token.

        Forms that are one token count; a form that falls into pieces ("y" + "es") is used only where no form of
        that answer is whole, because a piece begins other words too.

        Never a substring match over the vocabulary, which catches "Yesterday", "eyes", "None" and "Now".
        First tokens that both answers share (a bare space) are left out of both.
        """
        options: dict[str, Any] = {} if thinking is None else {"thinking": thinking}
        head = slot_prefix(engine, messages, prefix, thinking)
        plain = engine.encode(list(messages), prefill=head or None, **options).tokens
        first = [_first_tokens(engine, messages, plain, forms, head, options) for forms in (yes, no)]
        shared = first[0] & first[1]
        return cls(tuple(sorted(first[0] - shared)), tuple(sorted(first[1] - shared)))

    @property
    def swapped(self) -> Choice:
        """The same answers with their roles exchanged."""
        return Choice(self.no, self.yes)


def _first_tokens(
    engine: Engine,
    messages: Sequence[Message],
    plain: tuple[int, ...],
    forms: Sequence[str],
    head: str,
    options: dict[str, Any],
) -> set[int]:
    """The tokens that stand where the answer begins; a form that merges into the prompt has none of its own."""
    whole, pieces = set(), set()
    for form in forms:
        tokens = engine.encode(list(messages), prefill=head + form, **options).tokens
        own = tokens[len(plain) :]
        if own and tokens[: len(plain)] == plain:
            (whole if len(own) == 1 else pieces).add(own[0])
    return whole or pieces


def slot_prefix(
    engine: Engine, messages: Sequence[Message], prefix: str = "", thinking: bool | None = None
) -> str:
    """What is written before the answer: `prefix`, after closing reasoning that the template has opened.

    A template that ends in "<think>" would else have its answer measured inside the reasoning.
    """
    options: dict[str, Any] = {} if thinking is None else {"thinking": thinking}
    text = engine.encode(list(messages), **options).text or ""
    return f"\n{CLOSED}\n\n{prefix}" if text.rstrip().endswith(OPENED) else prefix


def slot(
    engine: Engine, messages: Sequence[Message], prefix: str = "My choice:", thinking: bool | None = None
) -> Prompt:
    """The prompt that ends at the answer slot: messages, then `prefix` begun in the assistant's turn.

    Reasoning that the template opens is closed, unused: forced answers are answers without thinking, and
    `answers.generated` measures those with it.
    """
    head = slot_prefix(engine, messages, prefix, thinking)
    return engine.encode(list(messages), prefill=head or None, thinking=thinking)


@dataclass(frozen=True, eq=False)
class LogRatios:
    """One entry per item: log-ratio in nats, the mass on both answers, and the entropy of the next token (nats)."""

    log_ratio: np.ndarray
    mass: np.ndarray
    entropy: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """Items whose answers hold at least half of the probability; NaN is not valid."""
        return self.mass >= MIN_MASS

    @property
    def valid_share(self) -> float:
        """Share of valid items."""
        return float(self.valid.mean()) if len(self.mass) else float("nan")

    @classmethod
    def joined(cls, parts: Sequence[LogRatios]) -> LogRatios:
        """Several tables, end to end."""
        return cls(
            *(np.concatenate([getattr(p, f) for p in parts]) for f in ("log_ratio", "mass", "entropy"))
        )


def log_ratio(distribution: np.ndarray, choice: Choice) -> LogRatios:
    """From natural log-probabilities [n, V] (or unnormalised logits, whose mass and entropy then mean nothing)."""
    table = np.atleast_2d(np.asarray(distribution, dtype=np.float64))
    yes = np.logaddexp.reduce(table[:, list(choice.yes)], axis=1)
    no = np.logaddexp.reduce(table[:, list(choice.no)], axis=1)
    with np.errstate(invalid="ignore"):  # a token of probability 0 adds nothing
        terms = np.where(np.isneginf(table), 0.0, -np.exp(table) * table)
    return LogRatios(yes - no, np.exp(yes) + np.exp(no), terms.sum(1))


@dataclass(frozen=True, eq=False)
class Forced:
    """Log-ratios at the slot, and the mean NLL per token (nats) of each prompt under the same plan."""

    ratios: LogRatios
    prompt_nll: np.ndarray


def forced(
    engine: Engine,
    prompts: Sequence[PromptLike],
    choices: Sequence[Choice],
    plans: Sequence[PlanLike],
    batch: int = BATCH,
) -> Forced:
    """Every row its own prompt, choice and plan: rows of all plans share batches, one pass each."""
    if not len(prompts) == len(choices) == len(plans):
        raise InputError(
            f"{len(prompts)} prompts, {len(choices)} choices and {len(plans)} plans do not line up"
        )
    parts, nll = [], []
    for start in range(0, len(prompts), batch):
        rows = slice(start, start + batch)
        requests = [
            ScoreRequest(p, plan=plan, logprobs="last") for p, plan in zip(prompts[rows], plans[rows])
        ]
        for score, choice in zip(engine.score(requests), choices[rows], strict=True):
            parts.append(log_ratio(_distribution(score), choice))
            nll.append(-float(np.mean(score.logprobs)) if len(score.logprobs) else float("nan"))
    if not parts:
        raise InputError("no prompts given")
    return Forced(LogRatios.joined(parts), np.array(nll))


def _distribution(score: Score) -> np.ndarray:
    assert score.distribution is not None  # logprobs="last" asks for it
    return score.distribution


def measure(engine: Engine, prompts: Sequence[Prompt], choice: Choice, plan: PlanLike = None) -> LogRatios:
    """Log-ratios after each prompt's last token under a plan."""
    return forced(engine, prompts, [choice] * len(prompts), [plan] * len(prompts)).ratios
