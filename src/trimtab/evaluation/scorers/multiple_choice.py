"""Multiple choice as a control: knowledge and reasoning that steering should *not* move.

margin = log p(right letter) − logsumexp of log p over the other letters
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab.data.reading import records_of
from trimtab.engines.base import Engine
from trimtab.engines.requests import PlanLike, ScoreRequest
from trimtab.errors import InputError
from trimtab.evaluation.log_ratio import BATCH, Choice, slot
from trimtab.evaluation.scorers.scorer import ChoiceScorer
from trimtab.evaluation.statistics import Estimate, paired_difference, sign_flip
from trimtab.prompts import Prompt


@dataclass(frozen=True)
class Question:
    """A question with its choices and the index of the right one."""

    question: str
    choices: tuple[str, ...]
    right: int

    @property
    def text(self) -> str:
        """What is asked, with a letter before each choice."""
        lines = (f"{letter}. {c}" for letter, c in zip(string.ascii_uppercase, self.choices))
        return "\n".join([self.question, *lines, "Answer with one letter."])


@dataclass(frozen=True, eq=False)
class Margins:
    """Per item: the margin (nats), whether the likeliest letter was right, and the mass on all letters."""

    margin: np.ndarray
    right: np.ndarray
    mass: np.ndarray


@dataclass(frozen=True)
class Moved:
    """Against the plain model: the paired change of the margin with its p, net flips (right → wrong less wrong → right,
    as a share of items), and accuracy before and after."""

    margin: Estimate
    p: float
    before: float
    after: float
    flipped_wrong: float
    flipped_right: float


@dataclass(frozen=True, eq=False)
class MultipleChoice(ChoiceScorer):
    """Measures questions under plans."""

    name = "multiple_choice"

    @staticmethod
    def load(path: Path) -> list[Question]:
        """JSON lines or a list of {"question", "choices": […], "answer": index or letter}."""
        found = [_question(row, where) for where, row in records_of(path)]
        if not found:
            raise InputError(f"{path} holds no questions")
        return found

    def measure(self, engine: Engine, items: Sequence[Question], plans: Sequence[PlanLike]) -> list[Margins]:
        """One `Margins` per plan; all plans and items in shared batches."""
        if not items:
            raise InputError("there are no questions")
        asked = [_slot(engine, q) for q in items]
        rows = [
            (prompt, letters, q.right, plan) for plan in plans for q, (prompt, letters) in zip(items, asked)
        ]
        table = []
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            scores = engine.score([ScoreRequest(p, plan=plan, logprobs="last") for p, _, _, plan in part])
            for (_, letters, right, _), score in zip(part, scores, strict=True):
                assert score.distribution is not None
                table.append(_read(score.distribution, letters, right))
        found = np.array(table).reshape(len(plans), len(items), 3)
        return [Margins(t[:, 0], t[:, 1] > 0, t[:, 2]) for t in found]


def moved(before: Margins, after: Margins) -> Moved:
    """What steering did to questions that it should leave alone."""
    change = after.margin - before.margin
    return Moved(
        paired_difference(after.margin, before.margin),
        sign_flip(change),
        float(before.right.mean()),
        float(after.right.mean()),
        float((before.right & ~after.right).mean()),
        float((~before.right & after.right).mean()),
    )


def _slot(engine: Engine, question: Question) -> tuple[Prompt, list[tuple[int, ...]]]:
    """The prompt, and the first tokens of each letter as they stand after it."""
    messages = [{"role": "user", "content": question.text}]
    ids = []
    for letter in string.ascii_uppercase[: len(question.choices)]:
        other = "B" if letter == "A" else "A"
        ids.append(Choice.of(engine, messages, yes=(letter, f" {letter}"), no=(other, f" {other}")).yes)
    return slot(engine, messages, ""), ids


def _read(
    distribution: np.ndarray, letters: Sequence[Sequence[int]], right: int
) -> tuple[float, float, float]:
    each = np.array([np.logaddexp.reduce(np.asarray(distribution, np.float64)[list(i)]) for i in letters])
    rest = np.logaddexp.reduce(np.delete(each, right))
    return float(each[right] - rest), float(each.argmax() == right), float(np.exp(each).sum())


def _question(row: object, where: str) -> Question:
    if not isinstance(row, Mapping) or not isinstance(row.get("question"), str):
        raise InputError(
            f'{where} needs "question", "choices" (a list of texts) and "answer" (an index or a letter)'
        )
    choices, answer = row.get("choices"), row.get("answer")
    if (
        not isinstance(choices, list)
        or not 2 <= len(choices) <= 26
        or not all(isinstance(c, str) for c in choices)
    ):
        raise InputError(f"{where}: choices are 2 to 26 texts, got {choices!r}")
    if isinstance(answer, str) and len(answer.strip()) == 1:
        answer = string.ascii_uppercase.find(answer.strip().upper())
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise InputError(
            f"{where}: the answer is the index (from 0) or the letter of a choice, got {row.get('answer')!r}"
        )
    return Question(row["question"], tuple(choices), answer)
