"""`pca_diff_weighted` against its definition: what the weights are, what they do, and how many pairs are left."""

import dataclasses
import warnings

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evidence import Evidence
from trimtab.extraction import make
from trimtab.extraction.method import ExtractionWarning
from trimtab.sites import Site

PAIRS, WIDTH = 60, 16
RNG = np.random.default_rng


def evidence(logprobs, positive=None, negative=None):
    """Two kinds of pairs in turn: the even ones vary along axis 0, the odd ones twice as much along axis 1."""
    rng = RNG(3)
    difference = 0.1 * rng.standard_normal((PAIRS, WIDTH))
    for start, axis, size in ((0, 0, 1.0), (1, 1, 2.0)):
        difference[start::2, axis] += size * rng.standard_normal(PAIRS // 2) + 0.5
    base = rng.standard_normal((PAIRS, WIDTH))
    found = Evidence.from_rows(Site(0), base + difference, base, {"mean", "rows", "gram"})
    sides = dict(zip(("positive", "negative"), logprobs, strict=True))
    return dataclasses.replace(found, logprobs=sides, needs=found.needs | {"logprobs"}), difference


def uneven(likely=0.0, unlikely=-30.0):
    """Log-probs that leave only the even pairs."""
    one = np.where(np.arange(PAIRS) % 2 == 0, likely, unlikely)
    return one, one


def quiet(found, **knobs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtractionWarning)
        return make("pca_diff_weighted", **knobs).fit(found, "x")


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_it_is_the_top_of_the_weighted_covariance(temperature):
    logprobs = RNG(1).normal(-2, 1, (2, PAIRS))
    found, difference = evidence(logprobs)
    exponent = logprobs.mean(0) / temperature
    weights = np.exp(exponent) / np.exp(exponent).sum()
    covariance = np.cov(difference.T, aweights=weights, ddof=0)
    values, vectors = np.linalg.eigh(covariance)
    got = quiet(found, temperature=temperature)
    assert abs(got.unit @ vectors[:, -1]) == pytest.approx(1, abs=1e-6)
    assert got.norm == pytest.approx(np.sqrt(values[-1]))
    assert got.provenance["explained"] == pytest.approx(values[-1] / np.trace(covariance))
    assert got.provenance["effective_pairs"] == pytest.approx(1 / np.sum(weights**2))


def test_likely_pairs_decide():
    even, _ = evidence(uneven())
    odd, _ = evidence(uneven(-30.0, 0.0))
    assert abs(quiet(even).unit[0]) > 0.98 and abs(quiet(odd).unit[1]) > 0.98
    assert quiet(even).provenance["effective_pairs"] == pytest.approx(PAIRS / 2)
    flat, _ = evidence(np.full((2, PAIRS), -3.0))
    assert abs(quiet(flat).unit[1]) > 0.98  # all alike: the larger variance, as pca_diff finds it
    assert abs(quiet(flat).unit @ quiet_pca(flat)) == pytest.approx(1, abs=1e-6)
    assert quiet(flat).provenance["effective_pairs"] == pytest.approx(PAIRS)


def quiet_pca(found):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtractionWarning)
        return make("pca_diff").fit(found, "x").unit


def test_both_texts_of_a_pair_count():
    """A likely positive beside an unlikely negative weighs as two texts of middling likelihood."""
    one, _ = evidence(uneven())
    ups = np.where(np.arange(PAIRS) % 2 == 0, 10.0, -60.0)
    two, _ = evidence((ups, np.where(np.arange(PAIRS) % 2 == 0, -10.0, 0.0)))
    assert np.allclose(quiet(one).unit, quiet(two).unit, atol=1e-6)


def test_a_constant_added_to_every_log_prob_changes_nothing():
    logprobs = RNG(1).normal(-2, 1, (2, PAIRS))
    one, two = (quiet(evidence(logprobs + shift)[0]) for shift in (0.0, -4000.0))
    assert np.allclose(one.unit, two.unit, atol=1e-5) and np.isfinite(two.norm)


def test_a_large_temperature_weighs_all_alike_and_a_small_one_keeps_a_single_pair():
    found, _ = evidence(RNG(1).normal(-2, 1, (2, PAIRS)))
    counts = [quiet(found, temperature=t).provenance["effective_pairs"] for t in (0.2, 1.0, 5.0, 1e6)]
    assert counts == sorted(counts) and counts[0] < 5 and counts[-1] == pytest.approx(PAIRS)
    with pytest.raises(InputError, match="all alike"):
        quiet(found, temperature=1e-4)


@pytest.mark.parametrize(("spread", "warned"), [(0.2, False), (3.0, True)])
def test_few_effective_pairs_warn(spread, warned):
    found, _ = evidence(RNG(1).normal(-2, spread, (2, PAIRS)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = make("pca_diff_weighted").fit(found, "x")
    said = any("rests on few of its pairs" in str(w.message) for w in caught)
    assert said is warned is (got.provenance["effective_pairs"] < PAIRS / 4)
