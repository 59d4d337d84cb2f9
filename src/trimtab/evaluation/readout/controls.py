"""Scores of a text that know nothing of the concept. What they reach on an unseen corpus, a direction must beat.

Each is fitted, or at least given its sign, on the training corpus, as the direction is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

_GOOD = set(
    "good great happy glad joy joyful love loved lovely nice kind wonderful pleased delight delighted cheerful merry "
    "beautiful best better fun friend friendly thank thanks hope hopeful calm safe proud warm bright sweet win won "
    "success gentle smile laugh excellent perfect enjoy enjoyed".split()
)
_BAD = set(
    "bad sad angry mad hate hated awful terrible fear afraid scared lonely cry cried tears tearful gloomy sorry worse "
    "worst pain hurt lost lose fail failed failure dead death kill evil cruel cold dark sick ill ugly wrong worry "
    "worried broken furious cross enemy danger".split()
)
CONTROLS = ("length", "sentiment", "topic")


def sentiment(text: str) -> float:
    """Share of words of a good list less the share of a bad one."""
    words = re.findall(r"[a-z']+", text.lower())
    return (sum(w in _GOOD for w in words) - sum(w in _BAD for w in words)) / max(1, len(words))


def control_scores(
    train: tuple[Sequence[str], Sequence[str]], unseen: Sequence[str]
) -> Mapping[str, np.ndarray]:
    """Scores [texts] of each control on unseen texts; `train` holds the positive and the negative texts."""
    out = {"topic": _topic(train, unseen)}
    for name, measure in (("length", lambda t: float(len(t.split()))), ("sentiment", sentiment)):
        here = [np.mean([measure(t) for t in side]) for side in train]
        sign = np.sign(here[0] - here[1])
        out[name] = sign * np.array([measure(t) for t in unseen])
    return {name: out[name] for name in CONTROLS}


def _topic(train: tuple[Sequence[str], Sequence[str]], unseen: Sequence[str]) -> np.ndarray:
    """A bag of words, fitted on the training corpus: what its vocabulary alone gives away."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    texts = [*train[0], *train[1]]
    labels = [True] * len(train[0]) + [False] * len(train[1])
    words = TfidfVectorizer(token_pattern=r"(?u)\b\w[\w']*\b", sublinear_tf=True)
    with threadpool_limits(1):
        fitted = LogisticRegression(class_weight="balanced", max_iter=500).fit(
            words.fit_transform(texts), labels
        )
        return np.asarray(fitted.decision_function(words.transform(unseen)), np.float64)
