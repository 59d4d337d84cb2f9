"""Scores by name: each turns finished rows into one number per row, without a model.

A score says what the rows must hold (`needs`): "text", "continuations" or "readings". Because it reads rows alone,
`trimtab score` can apply it to a run that was made long ago. A new score is one line in `SCORES` and a class with
`open`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trimtab.data.reading import records_of
from trimtab.errors import FormatError, InputError, UnknownName
from trimtab.evaluation.classifier import TextClassifier

Row = Mapping[str, Any]

#: name: "module:class". The module is imported when the score is opened.
SCORES = {
    "classifier": "trimtab.evaluation.scores:ClassifierScore",
    "logprob": "trimtab.evaluation.scores:LogprobScore",
    "projection": "trimtab.evaluation.scores:ProjectionScore",
}


class Score(ABC):
    """`values(rows, concept)` [rows] float64, higher is more of the concept; NaN where a row cannot be scored."""

    name: ClassVar[str]
    needs: ClassVar[str]

    @classmethod
    @abstractmethod
    def open(cls, concepts: Sequence[str], settings: Mapping[str, str], seed: int = 0) -> Score:
        """The score for these concepts; a setting or a concept that it does not know is refused."""

    @abstractmethod
    def values(self, rows: Sequence[Row], concept: str) -> np.ndarray:
        """One number per row."""


def open_score(
    name: str, concepts: Sequence[str], settings: Mapping[str, str] | None = None, seed: int = 0
) -> Score:
    """A score by its registered name."""
    if name not in SCORES:
        raise UnknownName.of("score", name, SCORES)
    module, _, attribute = SCORES[name].partition(":")
    return getattr(import_module(module), attribute).open(concepts, settings or {}, seed)


def _only(settings: Mapping[str, str], known: Sequence[str], name: str) -> None:
    for key in settings:
        if key not in known:
            raise UnknownName.of(f"setting of the score {name!r}", key, known)


class ClassifierScore(Score):
    """p(concept | text) of `TextClassifier`, fitted on labelled texts (`labelled=FILE`, JSONL of text and label).

    Without a file: the labelled texts of the embedded model's world, which mean nothing for another model.
    """

    name = "classifier"
    needs = "text"

    def __init__(self, classifier: TextClassifier) -> None:
        self.classifier = classifier

    @classmethod
    def open(cls, concepts: Sequence[str], settings: Mapping[str, str], seed: int = 0) -> ClassifierScore:
        """Fits the classifier: half a second for 2,400 texts."""
        from trimtab import embedded

        _only(settings, ("labelled",), cls.name)
        texts, labels = read_labelled(settings.get("labelled") or embedded.data("classifier.jsonl"))
        fitted = TextClassifier.fit(texts, labels, seed=seed)
        for concept in concepts:
            fitted.column(concept)
        return cls(fitted)

    def values(self, rows: Sequence[Row], concept: str) -> np.ndarray:
        """Posterior of the concept's class."""
        return self.classifier.posterior([r["text"] for r in rows])[:, self.classifier.column(concept)]


def read_labelled(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Texts and labels of a JSONL file with "text" and "label"."""
    texts: list[str] = []
    labels: list[str] = []
    for where, row in records_of(Path(path)):
        if not isinstance(row, Mapping) or not all(isinstance(row.get(k), str) for k in ("text", "label")):
            raise FormatError(f'{where} needs "text" and "label", both text')
        texts.append(row["text"])
        labels.append(row["label"])
    return texts, labels


class LogprobScore(Score):
    """Mean log-probability per token of the concept's continuations, less that of all other labels', in nats."""

    name = "logprob"
    needs = "continuations"

    @classmethod
    def open(cls, concepts: Sequence[str], settings: Mapping[str, str], seed: int = 0) -> LogprobScore:
        """It has no settings."""
        _only(settings, (), cls.name)
        return cls()

    def values(self, rows: Sequence[Row], concept: str) -> np.ndarray:
        """Difference of the two means; every row needs the concept's label and another one."""
        return np.array([self._value(r["continuations"], concept) for r in rows])

    def _value(self, found: Mapping[str, Sequence[Sequence[float]]], concept: str) -> float:
        if concept not in found or len(found) < 2:
            raise InputError(
                f"the score 'logprob' compares continuations labelled {concept!r} with others; an item has "
                f"{', '.join(found) or 'none'}"
            )
        mean = {label: np.mean([total / n for total, n in texts]) for label, texts in found.items()}
        return float(mean[concept] - np.mean([v for label, v in mean.items() if label != concept]))


class ProjectionScore(Score):
    """Mean reading of the concept over the generated tokens. It shares the vector with the steering, so that it shows
    how far a push carries, not what it does to the text."""

    name = "projection"
    needs = "readings"

    @classmethod
    def open(cls, concepts: Sequence[str], settings: Mapping[str, str], seed: int = 0) -> ProjectionScore:
        """It has no settings."""
        _only(settings, (), cls.name)
        return cls()

    def values(self, rows: Sequence[Row], concept: str) -> np.ndarray:
        """The stored means."""
        for row in rows:
            if concept not in row.get("readings", {}):
                raise InputError(f"a row has no reading of {concept!r}; the run was made without a readout")
        return np.array([r["readings"][concept] for r in rows])
