"""Separable texts are separated, shuffled labels are not, and the posteriors are calibrated."""

import numpy as np
import pytest

from trimtab.errors import InputError, UnknownName
from trimtab.evaluation.classifier import TextClassifier, calibration_error
from trimtab.evaluation.coherence import words

SIGNS = {
    "glad": ["smiled", "laughed", "danced", "sang"],
    "low": ["wept", "sighed", "drooped", "grieved"],
    "plain": ["walked", "read", "cooked", "waited"],
}
FILLER = [*words("she went to the old house near the river and then came back with a bag of red apples")]


def texts(n, seed=0, signs=1):
    """n texts per class: filler words in random order with `signs` words of the class among them."""
    rng = np.random.default_rng(seed)
    made = []
    for label, own in SIGNS.items():
        for _ in range(n):
            body = list(rng.choice(FILLER, size=8)) + list(rng.choice(own, size=signs))
            made.append((" ".join(rng.permutation(body)), label))
    return [t for t, _ in made], [label for _, label in made]


def test_separable_texts():
    c = TextClassifier.fit(*texts(80))
    assert min(c.quality.auc.values()) > 0.95
    fresh, truth = texts(30, seed=1)
    posterior = c.posterior(fresh)
    assert np.allclose(posterior.sum(1), 1)
    assert np.mean([c.classes[k] for k in posterior.argmax(1)] == np.array(truth)) > 0.95
    assert c.posterior(["She laughed and danced."])[0, c.column("glad")] > 0.7


def test_shuffled_labels_are_chance():
    body, labels = texts(80)
    shuffled = list(np.random.default_rng(2).permutation(labels))
    quality = TextClassifier.fit(body, [str(s) for s in shuffled]).quality
    assert abs(np.mean(list(quality.auc.values())) - 0.5) < 0.12
    assert quality.accuracy < 0.5


def test_posteriors_are_calibrated_where_classes_overlap():
    """A third of the labels are redrawn at random, so the best possible accuracy is 7 in 9."""
    body, labels = texts(150, seed=3)
    rng = np.random.default_rng(4)
    labels = [str(rng.choice(list(SIGNS))) if rng.random() < 1 / 3 else label for label in labels]
    quality = TextClassifier.fit(body, labels).quality
    assert quality.calibration_error < 0.12
    assert 0.6 < quality.accuracy < 0.9


def test_copies_stay_on_one_side():
    """With every text ten times, a leaking split would score 1 on labels that cannot be learned."""
    rng = np.random.default_rng(5)
    body = [" ".join(rng.choice(FILLER, size=9)) for _ in range(60)]
    labels = [str(x) for x in rng.permutation(["a", "b"] * 30)]
    quality = TextClassifier.fit(body * 10, labels * 10).quality
    assert quality.accuracy < 0.85


def test_deterministic():
    body, labels = texts(40)
    a, b = (TextClassifier.fit(body, labels, seed=7).posterior(body[:9]) for _ in range(2))
    assert np.array_equal(a, b)


def test_calibration_error_closed_form():
    assert calibration_error(np.array([0.75] * 4), np.array([1, 1, 1, 0])) == 0
    assert calibration_error(np.array([0.95] * 2), np.array([0, 0])) == pytest.approx(0.95)


def test_refusals():
    with pytest.raises(InputError, match="two classes"):
        TextClassifier.fit(["a"] * 20, ["x"] * 20)
    with pytest.raises(InputError, match="line up"):
        TextClassifier.fit(["a"], [])
    with pytest.raises(UnknownName, match="gladd"):
        TextClassifier.fit(*texts(20)).column("gladd")
