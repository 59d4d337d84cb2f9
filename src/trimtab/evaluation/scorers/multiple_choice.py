"""Multiple choice as a control: knowledge and reasoning that steering should *not* move."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trimtab.data.reading import records_of
from trimtab.engines.base import Engine
from trimtab.errors import InputError
from trimtab.evaluation.log_ratio import Choice, slot
from trimtab.evaluation.scorers.choices import Asked, ChoiceScorer
from trimtab.records import unit_key


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


@dataclass(frozen=True)
class MultipleChoice(ChoiceScorer):
    """Positive towards the right letter."""

    name = "multiple_choice"
    target = "right"

    @classmethod
    def load(cls, path: Path) -> tuple[list[Question], tuple[str, ...]]:
        """JSON lines or a list of {"question", "choices": […], "answer": index or letter}; a question that stands
        twice counts once."""
        found: dict[str, Question] = {}
        repeated = 0
        for where, row in records_of(path):
            question = _question(row, where)
            first = found.setdefault(question.text, question)
            if first != question:
                raise InputError(f"{where}: an earlier row gives the same question another answer")
            repeated += first is not question
        if not found:
            raise InputError(f"{path} holds no questions")
        return list(found.values()), (f"{repeated} repeated questions left out",) if repeated else ()

    def asked(self, engine: Engine, item: Question) -> Asked:
        """The question as a user's turn; its options are letters."""
        messages = [{"role": "user", "content": item.text}]
        letters = string.ascii_uppercase[: len(item.choices)]
        options = {}
        for letter in letters:
            other = "B" if letter == "A" else "A"
            choice = Choice.of(engine, messages, yes=(letter, f" {letter}"), no=(other, f" {other}"))
            options[letter] = choice.yes
        name = unit_key([item.text, item.right])[:12]
        return Asked(name, item.text, slot(engine, messages, ""), options, letters[item.right])


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
