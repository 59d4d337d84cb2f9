"""A concept's classifier: embedded texts and logistic regression (C = 1, balanced), split by *question*.

A split by rows would put answers to one question on both sides, and the classifier would be measured on what it knows.
Score = P(positive | text).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.scorers.embedders import Embedder, TfidfEmbedder
from trimtab.evaluation.scorers.scorer import Answered, Mark, TextScorer
from trimtab.evaluation.statistics import auc

FOLDS = 5


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
            p = self._model.predict_proba(self.embedder.embed([rows[i].answer for i in todo]))[:, 1]
            for i, value in zip(todo, p, strict=True):
                marks[i] = Mark(float(value))
        return marks


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
