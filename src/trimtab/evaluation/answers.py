"""Answers that the model writes itself: what it said, and the log-ratio at the token where it said it.

The last match of a pattern counts ("Final choice: Yes"), outside of reasoning that was opened. Each sample runs to its
own end, whatever its batchmates do. An answer that is not there is *missing*: it has no log-ratio and is counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.engines.base import Engine
from trimtab.engines.requests import PlanLike, Request, Sample, Sampling, ScoreRequest
from trimtab.errors import InputError
from trimtab.evaluation.log_ratio import BATCH, CLOSED, OPENED, Choice, LogRatios, log_ratio
from trimtab.prompts import Prompt

#: The answer is the pattern's first group.
FINAL = re.compile(r"final choice:?[\s*_\"'(]*(yes|no)\b", re.IGNORECASE)
#: A short free answer: yes or no as its first word. Markup such as <|endoftext|> may follow it, or stand in front.
FIRST = re.compile(r"^(?:\s|<\|[^|>]*\|>|[*_\"'(])*(yes|no)(?![A-Za-z0-9_'])", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """An answer in a text: "yes" or "no", and the character at which it begins."""

    said: str
    start: int


def find_answer(text: str, pattern: re.Pattern[str] = FIRST, thinking: bool = False) -> Found | None:
    """The last match of `pattern` after the reasoning; None where there is none.

    `thinking` says that the prompt had opened the reasoning, so that a text without its end holds no answer.
    "No<|endoftext|>" is an answer; "Now", "None" and "Nobody" are not.
    """
    start = text.rfind(CLOSED)
    if start < 0 and (thinking or OPENED in text):
        return None
    start = 0 if start < 0 else start + len(CLOSED)
    matches = list(pattern.finditer(text[start:]))
    if not matches:
        return None
    last = matches[-1]
    return Found(last.group(1).lower(), start + last.start(1))


@dataclass(frozen=True, eq=False)
class Written:
    """One entry per item: `said` ("yes", "no" or None), the whole text with its special tokens, why it ended, its
    tokens, and the log-ratio, mass and entropy at the answer's own token (NaN where it is missing)."""

    said: tuple[str | None, ...]
    texts: tuple[str, ...]
    finish: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    ratios: LogRatios

    @property
    def missing(self) -> float:
        """Share of items without an answer."""
        return float(np.mean([s is None for s in self.said]))


def written(
    engine: Engine,
    prompts: Sequence[Prompt],
    choices: Sequence[Choice],
    plans: Sequence[PlanLike],
    *,
    pattern: re.Pattern[str] = FIRST,
    sampling: Sampling | None = None,
    ratios: bool = True,
    batch: int = BATCH,
) -> Written:
    """Generate, find each answer, and read the distribution from which its token was drawn, under the same plan.

    The generated tokens are scored as they are, never as text that is tokenised again. `ratios` False leaves the
    log-ratios out (NaN), and the second pass that they cost.
    """
    if not len(prompts) == len(choices) == len(plans):
        raise InputError(
            f"{len(prompts)} prompts, {len(choices)} choices and {len(plans)} plans do not line up"
        )
    options = sampling or Sampling(max_tokens=8)
    if options.n != 1:
        raise InputError("one sample per row: repeat a prompt with another seed instead of n > 1")
    samples: list[Sample] = []
    for start in range(0, len(prompts), batch):
        rows = slice(start, start + batch)
        done = engine.generate([Request(p, plan, options) for p, plan in zip(prompts[rows], plans[rows])])
        samples += [c.samples[0] for c in done]
    texts = [engine.decode(s.tokens, special=True) for s in samples]
    found = [find_answer(t, pattern, thinking=thinks(p)) for t, p in zip(texts, prompts, strict=True)]
    read = found if ratios else [None] * len(found)
    table = _at_answers(engine, prompts, choices, plans, samples, read, batch)
    return Written(
        tuple(None if f is None else f.said for f in found),
        tuple(texts),
        tuple(s.finish for s in samples),
        tuple(s.tokens for s in samples),
        table,
    )


def thinks(prompt: Prompt) -> bool:
    """Whether a prompt ends in reasoning that it has opened."""
    return (prompt.text or "").rstrip().endswith(OPENED)


def _at_answers(
    engine: Engine,
    prompts: Sequence[Prompt],
    choices: Sequence[Choice],
    plans: Sequence[PlanLike],
    samples: Sequence[Sample],
    found: Sequence[Found | None],
    batch: int,
) -> LogRatios:
    """Log-ratios at the tokens that hold the answers."""
    table = np.full((3, len(samples)), np.nan)
    rows = [i for i, f in enumerate(found) if f is not None]
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        at = {i: answer_token(engine, samples[i].tokens, found[i].start) for i in part}  # type: ignore[union-attr]
        requests = []
        for i in part:
            # A plan is resolved on the prompt that was generated from, so that "generated" tokens stay generated.
            plan = engine.resolve(plans[i], prompts[i])
            longer = replace(prompts[i], tokens=prompts[i].tokens + samples[i].tokens[: at[i]])
            requests.append(ScoreRequest(longer, plan=plan, logprobs="last"))
        for i, score in zip(part, engine.score(requests), strict=True):
            choice = _with(choices[i], samples[i].tokens[at[i]], found[i].said)  # type: ignore[union-attr]
            one = log_ratio(score.distribution, choice)  # type: ignore[arg-type]
            table[:, i] = one.log_ratio[0], one.mass[0], one.entropy[0]
    return LogRatios(*table)


def _with(choice: Choice, token: int, said: str) -> Choice:
    """The token that was really drawn is a form of its answer, however the prompt's context tokenised it."""
    if token in choice.yes or token in choice.no or said not in ("yes", "no"):
        return choice
    return replace(choice, **{said: tuple(sorted({*getattr(choice, said), token}))})


def answer_token(engine: Engine, tokens: Sequence[int], start: int) -> int:
    """Index of the token that holds character `start` of the tokens' text (special tokens written out)."""
    text = engine.decode(tokens, special=True)
    for k in range(len(tokens) - 1, -1, -1):
        before = engine.decode(tokens[:k], special=True) if k else ""
        if len(before) <= start and text.startswith(before):
            return k
    raise InputError("these tokens do not hold that character")
