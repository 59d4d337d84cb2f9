"""How a dilemma is asked: one question per action, yes or no, in the model's chat template."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.data.dilemmas import TO_DO, Dilemma
from trimtab.engines.base import Engine
from trimtab.engines.requests import Message
from trimtab.errors import InputError
from trimtab.evaluation.log_ratio import Choice, slot
from trimtab.prompts import Prompt

TEMPLATE = "{situation}\n\nProposed action: {action}\n\nWould you take this action? Answer Yes or No."
SLOT = "My choice:"


@dataclass(frozen=True)
class Asked:
    """One action of dilemma `item`: `sign` is +1 where yes means to act, −1 where it means the other action."""

    item: int
    sign: float
    question: str


@dataclass(frozen=True)
class Asking:
    """The template with {situation} and {action}, and what begins the reply before the answer ("" for nothing)."""

    template: str = TEMPLATE
    slot: str = SLOT
    thinking: bool | None = None

    def __post_init__(self) -> None:
        if "{action}" not in self.template:
            raise InputError(
                "the template asks about an action: it needs {action}, and {situation} if it is to be told"
            )

    def rows(self, dilemmas: Sequence[Dilemma]) -> list[Asked]:
        """All questions; a dilemma that brings its own question is asked that."""
        return [
            Asked(i, 1.0 if a.kind == TO_DO else -1.0, d.question or self._filled(d.situation, a.text))
            for i, d in enumerate(dilemmas)
            for a in d.asked
        ]

    def _filled(self, situation: str, action: str) -> str:
        parts = {"situation": situation, "action": action}
        return re.sub(r"\{(situation|action)\}", lambda m: parts[m[1]], self.template)

    def prompts(self, engine: Engine, rows: Sequence[Asked], system: str | None = None) -> list[Prompt]:
        """Each question up to its answer slot, behind a system message where there is one."""
        messages = [_messages(engine, r.question, system) for r in rows]
        return [slot(engine, m, self.slot, self.thinking) for m in messages]

    def open_prompts(self, engine: Engine, rows: Sequence[Asked], system: str | None = None) -> list[Prompt]:
        """Each question without anything begun for the model: what it answers freely, with reasoning if it reasons."""
        return [engine.encode(_messages(engine, r.question, system), thinking=self.thinking) for r in rows]

    def choice(self, engine: Engine, rows: Sequence[Asked]) -> Choice:
        """The first tokens of yes and no, as they stand at the slot."""
        if engine.info.template_hash is None:
            raise InputError(
                f"dilemmas are asked in a chat template, and {engine.info.id} has none: give an instruction-tuned model"
            )
        ask = [{"role": "user", "content": rows[0].question}]
        return Choice.of(engine, ask, prefix=self.slot, thinking=self.thinking)


def _messages(engine: Engine, question: str, system: str | None) -> list[Message]:
    user: Message = {"role": "user", "content": question}
    if system is None:
        return [user]
    told: list[Message] = [{"role": "system", "content": system}, user]
    try:
        engine.encode(told)
    except InputError:  # some templates know no system role: the same words stand in front of the question
        warnings.warn(
            f"the chat template of {engine.info.id} takes no system message: the prompt's words stand in front of the "
            "question",
            stacklevel=2,
        )
        return [{"role": "user", "content": f"{system}\n\n{question}"}]
    return told
