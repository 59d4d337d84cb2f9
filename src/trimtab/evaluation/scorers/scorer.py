"""What a scorer is, what goes into it and what comes out, and the table that conditions share."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from trimtab.data.reading import records_of, rows_of_run
from trimtab.errors import InputError, Mismatch, UnknownName
from trimtab.evaluation.statistics import Estimate, by_item, mean_interval, paired_difference, sign_flip

Row = Mapping[str, Any]
_QUESTION, _ANSWER = ("question", "prompt"), ("answer", "text", "response", "completion")


@dataclass(frozen=True)
class Answered:
    """One answer. `item` names the question (the unit of resampling), `condition` what was done to the model;
    `finish` says why the answer ended, where that is known."""

    question: str
    answer: str
    item: str = ""
    condition: str = ""
    finish: str | None = None

    def __post_init__(self) -> None:
        if not self.item:
            object.__setattr__(self, "item", hashlib.sha256(self.question.encode()).hexdigest()[:12])


@dataclass(frozen=True)
class Mark:
    """A value, or None and the reason why there is none; `detail` is what a reader may check it by."""

    value: float | None
    why: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.value is None) == (self.why is None):
            raise InputError("a mark has a value, or a reason for having none, and not both")
        if self.value is not None and not np.isfinite(self.value):
            raise InputError(f"a mark is a finite number, got {self.value}; give None with a reason")


class Registered(ABC):
    """What stands in the registry under one name."""

    name: ClassVar[str]

    @classmethod
    def open(cls, concepts: Sequence[str], settings: Mapping[str, str], seed: int = 0) -> Scorer:
        """The scorer for these concepts; a setting or a concept that it does not know is refused. One that needs more
        than rows (a model, an endpoint) refuses to be opened so, and names the verb that has it."""
        raise InputError(
            f"the scorer {cls.name!r} needs more than the rows of a run: use trimtab eval "
            f"{cls.name.replace('_', '-')}"
        )


class Scorer(Registered):
    """`values(rows, concept)` [rows] float64 of a run's rows, higher is more of the concept; NaN where there is none.

    `needs` says what the rows must hold: "text", "continuations", "readings" or "options".
    """

    needs: ClassVar[str]

    @abstractmethod
    def values(self, rows: Sequence[Row], concept: str) -> np.ndarray:
        """One number per row."""


def no_settings(settings: Mapping[str, str], name: str, known: Sequence[str] = ()) -> None:
    """Refuse settings that a scorer does not know."""
    for key in settings:
        if key not in known:
            raise UnknownName.of(f"setting of the scorer {name!r}", key, known)


class WithoutSettings(Scorer):
    """Opens on rows, and there is nothing that it can be told."""

    @classmethod
    def open(cls, concepts: Sequence[str], settings: Mapping[str, str], seed: int = 0) -> Self:
        """Any setting is refused."""
        no_settings(settings, cls.name)
        return cls()


class TextScorer(Scorer):
    """Marks answers that are already written, whatever the concept."""

    needs = "text"

    @property
    @abstractmethod
    def identity(self) -> str:
        """What the marks depend on; marks of two identities never stand in one table."""

    @abstractmethod
    def score(self, rows: Sequence[Answered]) -> list[Mark]:
        """One mark per row, in order."""

    def values(self, rows: Sequence[Row], concept: str) -> np.ndarray:
        """The marks of a run's rows; NaN where there is none."""
        marks = self.score([answered(r) for r in rows])
        return np.array([np.nan if m.value is None else m.value for m in marks])


@dataclass(frozen=True, eq=False)
class Scored:
    """Rows with their marks and the identity of what marked them."""

    identity: str
    rows: tuple[Answered, ...]
    marks: tuple[Mark, ...]

    @classmethod
    def by(cls, scorer: TextScorer, rows: Sequence[Answered]) -> Scored:
        """Mark all rows with one scorer."""
        if not rows:
            raise InputError("there are no answers to score")
        marks = scorer.score(rows)
        return cls(scorer.identity, tuple(rows), tuple(marks))


@dataclass(frozen=True)
class ConditionRow:
    """One condition: mean mark over items with its interval; how many rows have no mark, by reason; and against the
    baseline the paired difference over items that both answered, with its sign-flip p."""

    condition: str
    mean: Estimate | None
    rows: int
    missing: Mapping[str, int]
    difference: Estimate | None = None
    p: float | None = None


def one_table(parts: Sequence[Scored], baseline: str | None = None) -> list[ConditionRow]:
    """A row per condition, in order of appearance; refuses marks of different scorers in one table."""
    identities = list(dict.fromkeys(p.identity for p in parts))
    if len(identities) > 1:
        raise Mismatch(
            f"marks of different scorers cannot stand in one table: {'; '.join(identities)}. Score all answers again "
            "with one of them"
        )
    pairs = [(r, m) for p in parts for r, m in zip(p.rows, p.marks, strict=True)]
    if not pairs:
        raise InputError("there are no answers to score")
    names = list(dict.fromkeys(r.condition for r, _ in pairs))
    if baseline is not None and baseline not in names:
        raise UnknownName.of("condition", baseline, names)
    means = {n: _item_means([(r, m) for r, m in pairs if r.condition == n]) for n in names}
    return [_row(n, pairs, means, baseline) for n in names]


def _item_means(pairs: Sequence[tuple[Answered, Mark]]) -> dict[str, float]:
    kept = [(r.item, m.value) for r, m in pairs if m.value is not None]
    items = list(dict.fromkeys(i for i, _ in kept))
    return dict(zip(items, by_item([v for _, v in kept], [i for i, _ in kept]))) if kept else {}


def _row(
    name: str,
    pairs: Sequence[tuple[Answered, Mark]],
    means: Mapping[str, dict[str, float]],
    baseline: str | None,
) -> ConditionRow:
    mine = [m for r, m in pairs if r.condition == name]
    missing = Counter(m.why for m in mine if m.why is not None)
    values = means[name]
    estimate = mean_interval(list(values.values())) if values else None
    difference, p = None, None
    if baseline is not None and name != baseline:
        shared = [i for i in values if i in means[baseline]]
        if shared:
            here, there = [values[i] for i in shared], [means[baseline][i] for i in shared]
            difference, p = paired_difference(here, there), sign_flip(np.subtract(here, there))
    return ConditionRow(name, estimate, len(mine), dict(missing), difference, p)


def read_answered(path: Path) -> list[Answered]:
    """Answers of a run folder, of JSON lines or of a JSON list: `question` (or `prompt`), `answer` (or `text`,
    `response`, `completion`), and perhaps `item`, `condition`, `finish`. Rows of a run that hold no text are of
    something else (the likelihood of neutral texts, say), and no answers."""
    found = []
    for where, row in rows_of_run(path) if path.is_dir() else records_of(path):
        if not isinstance(row, Mapping):
            raise InputError(f"{where} is not an object")
        if path.is_dir() and not any(k in row for k in _ANSWER):
            continue
        try:
            found.append(answered(row))
        except InputError as error:
            raise InputError(f"{where} {error}") from None
    if not found:
        raise InputError(f"{path} holds no answers")
    return found


def answered(row: Row) -> Answered:
    """A row of a run, or a record of a file, as an answer."""
    question, answer = (next((row[k] for k in keys if k in row), None) for keys in (_QUESTION, _ANSWER))
    if not isinstance(question, str) or not isinstance(answer, str):
        raise InputError("needs a question (or prompt) and an answer (or text), both text")
    finish = row.get("finish")
    if finish is None and "cut" in row:
        finish = "length" if row["cut"] else "stop"
    return Answered(
        question,
        answer,
        str(row.get("item", "")),
        str(row.get("condition", "")),
        None if finish is None else str(finish),
    )
