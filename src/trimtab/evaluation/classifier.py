"""A calibrated text classifier: word TF-IDF and logistic regression, p(class | text).

It needs no network and no model, and it never mixes embedders within a table. Its posteriors are
calibrated by cross-validation and its calibration error is measured on texts it was not fitted on: a score
of 0.6 is meant to be right six times in ten *on texts like those it was trained on*. Word salad is not
such a text, which is why every score stands beside a coherence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.errors import InputError, UnknownName
from trimtab.evaluation.statistics import auc

FOLDS = 5
HELD_OUT = 0.2


@dataclass(frozen=True)
class Quality:
    """On held-out texts: accuracy, expected calibration error of the top class, one-against-rest AUC per
    class.
    """

    accuracy: float
    calibration_error: float
    auc: dict[str, float]
    n: int


@dataclass(frozen=True, eq=False)
class TextClassifier:
    """`posterior(texts)` [n, classes], columns in the order of `classes`; `quality` is on held-out texts."""

    classes: tuple[str, ...]
    quality: Quality
    _model: Any

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[str], *, seed: int = 0) -> TextClassifier:
        """Fit on 80 %, measure on 20 % (stratified; equal texts never on both sides), keep the fitted 80 %
        model.
        """
        from threadpoolctl import threadpool_limits

        _check(texts, labels)
        train, test = _split(texts, labels, seed)
        model = _Calibrated(seed)
        # The problems are tiny and sparse: threads of a numerical library only wait for one another, which on a
        # busy machine takes twenty times as long as the work.
        with threadpool_limits(1):
            model.fit([texts[i] for i in train], [labels[i] for i in train])
        classes = tuple(str(c) for c in model.classes_)
        truth = np.array([classes.index(labels[i]) for i in test])
        posterior = model.predict_proba([texts[i] for i in test])
        return cls(classes, _quality(posterior, truth, classes), model)

    def posterior(self, texts: Sequence[str]) -> np.ndarray:
        """p(class | text), float64 [n, classes]."""
        if not len(texts):
            return np.zeros((0, len(self.classes)))
        return np.asarray(self._model.predict_proba(list(texts)), dtype=np.float64)

    def column(self, name: str) -> int:
        """The column of one class."""
        if name not in self.classes:
            raise UnknownName.of("class of this classifier", name, self.classes)
        return self.classes.index(name)


def _check(texts: Sequence[str], labels: Sequence[str]) -> None:
    if len(texts) != len(labels):
        raise InputError(f"{len(texts)} texts and {len(labels)} labels do not line up")
    counts = Counter(labels)
    small = sorted(c for c, n in counts.items() if n < 2 * FOLDS)
    if len(counts) < 2 or small:
        raise InputError(
            f"a classifier needs two classes or more with at least {2 * FOLDS} texts each; got {dict(counts)}"
        )


def _split(texts: Sequence[str], labels: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Stratified by label over distinct (text, label) pairs, so that no copy leaks to the other side."""
    groups: dict[str, dict[str, list[int]]] = {}
    for i, (text, label) in enumerate(zip(texts, labels)):
        groups.setdefault(label, {}).setdefault(text, []).append(i)
    rng = np.random.default_rng(seed)
    train: list[int] = []
    test: list[int] = []
    for label in sorted(groups):
        copies = list(groups[label].values())
        order = rng.permutation(len(copies))
        cut = max(1, round(HELD_OUT * len(copies)))
        test += [i for k in order[:cut] for i in copies[k]]
        train += [i for k in order[cut:] for i in copies[k]]
    return sorted(train), sorted(test)


class _Calibrated:
    """TF-IDF, multinomial logistic regression, and one temperature (arXiv 1706.04599) fitted on out-of-fold logits."""

    def __init__(self, seed: int) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold

        pattern = r"(?u)\b\w[\w']*\b"  # words of one letter and apostrophes count
        self.vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=pattern)
        self.logistic = LogisticRegression(C=3.0, max_iter=300)
        self.folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        self.temperature = 1.0

    def fit(self, texts: Sequence[str], labels: Sequence[str]) -> _Calibrated:
        """The vectoriser sees no labels, so it is fitted once, outside the folds."""
        from scipy.optimize import minimize_scalar
        from sklearn.model_selection import cross_val_predict

        table = self.vectors.fit_transform(texts)
        logits = _columns(
            cross_val_predict(self.logistic, table, labels, cv=self.folds, method="decision_function")
        )
        self.logistic.fit(table, labels)
        truth = np.searchsorted(self.logistic.classes_, labels)

        def loss(log_scale: float) -> float:
            p = _softmax(logits * np.exp(log_scale))
            return float(-np.log(p[np.arange(len(truth)), truth] + 1e-12).mean())

        found: Any = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
        self.temperature = float(np.exp(-found.x))
        return self

    @property
    def classes_(self) -> Any:
        """Class names, sorted."""
        return self.logistic.classes_

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Posteriors [n, classes]."""
        logits = _columns(self.logistic.decision_function(self.vectors.transform(texts)))
        return _softmax(logits / self.temperature)


def _columns(logits: Any) -> np.ndarray:
    """One column per class; two classes come as a single column of differences."""
    logits = np.asarray(logits, dtype=np.float64)
    return np.stack([np.zeros_like(logits), logits], axis=1) if logits.ndim == 1 else logits


def _softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def _quality(posterior: np.ndarray, truth: np.ndarray, classes: tuple[str, ...]) -> Quality:
    top = posterior.argmax(1)
    right = (top == truth).astype(float)
    per_class = {
        name: auc(posterior[truth == k, k], posterior[truth != k, k]) for k, name in enumerate(classes)
    }
    return Quality(float(right.mean()), calibration_error(posterior.max(1), right), per_class, len(truth))


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean |accuracy − confidence| over `bins` equal-width bins, weighted by
    count.
    """
    index = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    gaps = [
        abs(right[index == b].mean() - confidence[index == b].mean()) * (index == b).mean()
        for b in range(bins)
        if np.any(index == b)
    ]
    return float(sum(gaps))
