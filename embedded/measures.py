"""What is measured on generated text: the classifier's posterior, coherence, and bootstrap intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from embedded.datasets import trigram_hashes


def read_lines(path: Path) -> list[dict]:
    """The rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


class EmotionClassifier:
    """Calibrated posterior over five emotions and neutral, trained on generator text."""

    def __init__(self, rows: list[dict]) -> None:
        vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"[a-z]+(?:'[a-z]+)?"
        )
        logistic = CalibratedClassifierCV(LogisticRegression(C=30, max_iter=400), cv=4, method="sigmoid")
        self.pipeline = make_pipeline(vectorizer, logistic)
        self.pipeline.fit([row["text"] for row in rows], [row["label"] for row in rows])
        self.labels = list(self.pipeline.classes_)

    def posterior(self, texts: list[str], label: str) -> np.ndarray:
        """P(label) of every text."""
        return self.pipeline.predict_proba(texts)[:, self.labels.index(label)]

    def predicted(self, texts: list[str]) -> list[str]:
        """The most likely label of every text."""
        return [str(label) for label in self.pipeline.predict(texts)]


class Coherence:
    """1 - the share of word trigrams that the fixed reference corpus does not contain."""

    def __init__(self, path: Path) -> None:
        self.known = set(np.load(path)["hashes"].tolist())

    def __call__(self, texts: list[str]) -> float:
        hits = [value in self.known for value in trigram_hashes(texts)]
        return sum(hits) / max(1, len(hits))


def interval(values: np.ndarray, groups: list[int], draws: int = 400) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, resampling prompts."""
    generator = np.random.default_rng(0)
    ids = np.unique(groups)
    means = np.array([values[np.array(groups) == i].mean() for i in ids])
    samples = means[generator.integers(0, len(ids), (draws, len(ids)))].mean(1)
    return float(np.quantile(samples, 0.025)), float(np.quantile(samples, 0.975))
