"""The log-ratio of two answers at an answer slot, with a check that the answers hold the probability mass.

    l_yes = logsumexp of log p over the first tokens of every surface form of yes; l_no likewise
    log_ratio = l_yes − l_no          mass = exp(l_yes) + exp(l_no)

A row is valid when mass ≥ 0.5; the mass is stored and invalid rows are counted, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.engines.base import Engine
from trimtab.engines.requests import Message, PlanLike, ScoreRequest
from trimtab.errors import InputError
from trimtab.prompts import Prompt

YES_FORMS = ("Yes", " Yes", "yes", " yes", "YES")
NO_FORMS = ("No", " No", "no", " no", "NO")
#: Below this much probability on both answers together a log-ratio says little about the choice.
MIN_MASS = 0.5


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
    ) -> Choice:
        """Tokenise each surface form *in context*, after the rendered prompt, and keep its first own token.

        Forms that are one token count; a form that falls into pieces ("y" + "es") is used only where no form of
        that answer is whole, because a piece begins other words too.

        Never a substring match over the vocabulary, which catches "Yesterday", "eyes", "None" and "Now".
        First tokens that both answers share (a bare space) are left out of both.
        """
        plain = engine.encode(list(messages)).tokens
        first = [_first_tokens(engine, messages, plain, forms) for forms in (yes, no)]
        shared = first[0] & first[1]
        return cls(tuple(sorted(first[0] - shared)), tuple(sorted(first[1] - shared)))


def _first_tokens(
    engine: Engine, messages: Sequence[Message], plain: tuple[int, ...], forms: Sequence[str]
) -> set[int]:
    """The tokens that stand where the answer begins; a form that merges into the prompt has none of its own."""
    whole, pieces = set(), set()
    for form in forms:
        tokens = engine.encode(list(messages), prefill=form).tokens
        own = tokens[len(plain) :]
        if own and tokens[: len(plain)] == plain:
            (whole if len(own) == 1 else pieces).add(own[0])
    return whole or pieces


@dataclass(frozen=True, eq=False)
class LogRatios:
    """One entry per item: log-ratio in nats, and the mass on both answers."""

    log_ratio: np.ndarray
    mass: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """Items whose answers hold at least half of the probability."""
        return self.mass >= MIN_MASS


def log_ratio(distribution: np.ndarray, choice: Choice) -> LogRatios:
    """From natural log-probabilities [n, V] (or unnormalised logits, whose mass then means nothing)."""
    table = np.atleast_2d(np.asarray(distribution, dtype=np.float64))
    yes = np.logaddexp.reduce(table[:, list(choice.yes)], axis=1)
    no = np.logaddexp.reduce(table[:, list(choice.no)], axis=1)
    return LogRatios(yes - no, np.exp(yes) + np.exp(no))


def measure(engine: Engine, prompts: Sequence[Prompt], choice: Choice, plan: PlanLike = None) -> LogRatios:
    """Log-ratios after each prompt's last token under a plan."""
    scores = engine.score([ScoreRequest(p, plan=plan, logprobs="last") for p in prompts])
    return log_ratio(np.stack([s.distribution for s in scores]), choice)  # type: ignore[misc]
