"""A/B choice (CAA, arXiv 2312.06681): log p(matching answer) − log p(the other), read where the letter stands.

The file is that of extraction's layout `answers`: a question that ends in its choices, and which answer matches the
behaviour. Answers "(A)" and "(B)" are read after "(": the bracket is the same for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimtab.data.answers import questions_of
from trimtab.engines.base import Engine
from trimtab.evaluation.log_ratio import Choice, slot
from trimtab.evaluation.scorers.choices import Asked, ChoiceScorer
from trimtab.records import unit_key


@dataclass(frozen=True)
class ABItem:
    """A question, and the texts of its two answers."""

    question: str
    matching: str
    other: str


@dataclass(frozen=True)
class ABChoice(ChoiceScorer):
    """Positive towards the matching behaviour."""

    name = "ab_choice"
    target = "matching"

    @classmethod
    def load(cls, path: Path) -> tuple[list[ABItem], tuple[str, ...]]:
        """Items of a file, and what the reader decided."""
        asked, notes = questions_of(path)
        return [ABItem(q, m, o) for q, (m, o) in asked.items()], notes

    def asked(self, engine: Engine, item: ABItem) -> Asked:
        """The question as a user's turn; its answers are options under their own letters."""
        messages = [{"role": "user", "content": item.question}]
        answers = [item.matching, item.other]
        prefix = "(" if all(a.startswith("(") for a in answers) else ""
        yes, no = ([_form(a), f" {_form(a)}"] for a in answers)
        choice = Choice.of(engine, messages, yes=yes, no=no, prefix=prefix)
        options = {_form(item.matching): choice.yes, _form(item.other): choice.no}
        name = unit_key([item.question, item.matching, item.other])[:12]
        return Asked(name, item.question, slot(engine, messages, prefix), options, _form(item.matching))


def _form(answer: str) -> str:
    return answer.strip().removeprefix("(").removesuffix(")").strip()
