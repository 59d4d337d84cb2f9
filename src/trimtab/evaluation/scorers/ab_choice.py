"""A/B choice (CAA, arXiv 2312.06681): log p(matching answer) − log p(the other), read where the letter stands.

The file is that of extraction's layout `answers`: a question that ends in its choices, and which answer matches the
behaviour. Answers "(A)" and "(B)" are read after "(": the bracket is the same for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.data.answers import questions_of
from trimtab.engines.base import Engine
from trimtab.engines.requests import PlanLike
from trimtab.errors import InputError
from trimtab.evaluation.log_ratio import Choice, LogRatios, forced, slot
from trimtab.evaluation.scorers.scorer import ChoiceScorer
from trimtab.prompts import Prompt


@dataclass(frozen=True)
class ABItem:
    """A question, and the texts of its two answers."""

    question: str
    matching: str
    other: str


@dataclass(frozen=True, eq=False)
class ABChoice(ChoiceScorer):
    """Measures items under plans: per plan `LogRatios` over items, positive towards the matching behaviour."""

    name = "ab_choice"

    @staticmethod
    def load(path: Path) -> tuple[list[ABItem], tuple[str, ...]]:
        """Items of a file, and what the reader decided."""
        asked, notes = questions_of(path)
        return [ABItem(q, m, o) for q, (m, o) in asked.items()], notes

    def measure(self, engine: Engine, items: Sequence[ABItem], plans: Sequence[PlanLike]) -> list[LogRatios]:
        """All plans and items in shared batches."""
        if not items:
            raise InputError("there are no questions")
        prompts, choices = zip(*(self._slot(engine, i) for i in items))
        found = forced(
            engine, prompts * len(plans), choices * len(plans), [p for p in plans for _ in items]
        ).ratios
        n = len(items)
        parts = (slice(k * n, (k + 1) * n) for k in range(len(plans)))
        return [LogRatios(found.log_ratio[s], found.mass[s], found.entropy[s]) for s in parts]

    @staticmethod
    def _slot(engine: Engine, item: ABItem) -> tuple[Prompt, Choice]:
        messages = [{"role": "user", "content": item.question}]
        answers = [item.matching, item.other]
        prefix = "(" if all(a.startswith("(") for a in answers) else ""
        yes, no = ([_form(a), f" {_form(a)}"] for a in answers)
        choice = Choice.of(engine, messages, yes=yes, no=no, prefix=prefix)
        return slot(engine, messages, prefix), choice


def _form(answer: str) -> str:
    return answer.strip().removeprefix("(").removesuffix(")").strip()
