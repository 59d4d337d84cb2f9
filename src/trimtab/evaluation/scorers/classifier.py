"""P(concept | text), by a classifier fitted on labelled texts or on a corpus of contrasts.

labelled texts   word TF-IDF and calibrated multinomial regression over all labels (`evaluation.classifier`)
a corpus         embedded texts and logistic regression (C = 1, balanced), split by *question*

A split by rows would put answers to one question on both sides, and the classifier would be measured on what it knows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.data.reading import records_of
from trimtab.errors import FormatError, InputError, UnknownName
from trimtab.evaluation.classifier import TextClassifier
from trimtab.evaluation.scorers.corpus import labelled_texts
from trimtab.evaluation.scorers.embedders import Embedder, TfidfEmbedder, choose
from trimtab.evaluation.scorers.scorer import Answered, Mark, Row, Scorer, TextScorer, no_settings
from trimtab.evaluation.statistics import auc

FOLDS = 5


class Classifier(Scorer):
    """Of a run's rows: the posterior of the concept's own label (`labelled=FILE`, JSON lines of text and label), or
    P(positive) of a classifier per concept of a corpus (`corpus=FILE`, perhaps with `embedder`).

    With neither: the labelled texts of the embedded model's world, which mean nothing for another model.
    """

    name = "classifier"
    needs = "text"

    def __init__(self, columns: Mapping[str, Callable[[Sequence[str]], np.ndarray]]) -> None:
        self.columns = columns

    @classmethod
    def open(cls, concepts: Sequence[str], settings: Mapping[str, str], seed: int = 0) -> Classifier:
        """Fits what it needs: half a second for 2,400 texts and TF-IDF."""
        no_settings(settings, cls.name, ("labelled", "corpus", "embedder"))
        if "corpus" in settings:
            if "labelled" in settings:
                raise InputError("a classifier is fitted on labelled=FILE or on corpus=FILE, not on both")
            path, embedder = Path(settings["corpus"]), settings.get("embedder")
            fitted = {
                c: GroupedClassifier.fit(*labelled_texts(path, None, c), choose(embedder), seed)
                for c in concepts
            }
            return cls({c: f.posterior for c, f in fitted.items()})
        if "embedder" in settings:
            raise InputError("an embedder belongs to corpus=FILE; labelled texts are read by word TF-IDF")
        from trimtab import embedded

        whole = TextClassifier.fit(
            *read_labelled(settings.get("labelled") or embedded.data("classifier.jsonl")), seed=seed
        )
        at = {c: whole.column(c) for c in concepts}
        return cls({c: lambda texts, k=k: whole.posterior(texts)[:, k] for c, k in at.items()})

    def values(self, rows: Sequence[Row], concept: str) -> np.ndarray:
        """Posterior of the concept."""
        if concept not in self.columns:
            raise UnknownName.of("concept of this classifier", concept, self.columns)
        return self.columns[concept]([r["text"] for r in rows])


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


@dataclass(frozen=True)
class HeldOutQuality:
    """Accuracy, F1 and AUC on a fifth of the groups that were not fitted; `n` texts of `groups` groups."""

    accuracy: float
    f1: float
    auc: float
    n: int
    groups: int


@dataclass(frozen=True, eq=False)
class GroupedClassifier(TextScorer):
    """`quality` is on held-out groups; marks are P(positive), None for an empty answer."""

    name = "classifier"
    embedder: Embedder
    quality: HeldOutQuality
    _model: Any

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        positive: Sequence[bool],
        groups: Sequence[str],
        embedder: Embedder | None = None,
        seed: int = 0,
    ) -> GroupedClassifier:
        """Fit on four fifths of the groups (stratified by label), measure on the rest."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold
        from threadpoolctl import threadpool_limits

        rows = list(texts)
        labels, names = np.asarray(positive, bool), np.asarray(groups, str)
        _check(texts, labels, names)
        embedder = embedder or TfidfEmbedder()
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        train, test = _both_sides(list(folds.split(np.zeros(len(labels)), labels, names)), labels)
        embedder.fit([rows[i] for i in train])
        model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000)
        with threadpool_limits(1):
            model.fit(embedder.embed([rows[i] for i in train]), labels[train])
            p = model.predict_proba(embedder.embed([rows[i] for i in test]))[:, 1]
        return cls(embedder, _quality(p, labels[test], len(set(names[test]))), model)

    @property
    def identity(self) -> str:
        """The embedder and what was fitted on it."""
        return f"classifier on {self.embedder.identity}"

    def score(self, rows: Sequence[Answered]) -> list[Mark]:
        """P(positive) of each answer."""
        todo = [i for i, r in enumerate(rows) if r.answer.strip()]
        marks = [Mark(None, "empty answer")] * len(rows)
        if todo:
            for i, value in zip(todo, self._positive([rows[i].answer for i in todo]), strict=True):
                marks[i] = Mark(float(value))
        return marks

    def posterior(self, texts: Sequence[str]) -> np.ndarray:
        """P(positive) [texts]; NaN for an empty one."""
        found = np.full(len(texts), np.nan)
        todo = [i for i, t in enumerate(texts) if t.strip()]
        if todo:
            found[todo] = self._positive([texts[i] for i in todo])
        return found

    def _positive(self, texts: Sequence[str]) -> np.ndarray:
        return self._model.predict_proba(self.embedder.embed(texts))[:, 1]


def _check(texts: Sequence[str], labels: np.ndarray, groups: np.ndarray) -> None:
    if not len(texts) == len(labels) == len(groups):
        raise InputError(f"{len(texts)} texts, {len(labels)} labels and {len(groups)} groups do not line up")
    for side in (True, False):
        found = len(set(groups[labels == side]))
        if found < FOLDS:
            raise InputError(
                f"a classifier needs {'positive' if side else 'negative'} texts of at least {FOLDS} groups "
                f"(questions), got {found}"
            )


def _both_sides(
    folds: list[tuple[np.ndarray, np.ndarray]], labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first fold whose two parts hold both labels."""
    for train, test in folds:
        if all(len(set(labels[part])) == 2 for part in (train, test)):
            return train, test
    raise InputError("no split by group leaves both labels on both sides; give more groups")


def _quality(p: np.ndarray, truth: np.ndarray, groups: int) -> HeldOutQuality:
    said = p >= 0.5
    both = int((said & truth).sum())
    f1 = 2 * both / max(1, int(said.sum() + truth.sum()))
    return HeldOutQuality(float((said == truth).mean()), f1, auc(p[truth], p[~truth]), len(p), groups)
