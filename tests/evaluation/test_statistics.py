"""Intervals cover, nulls are uniform, planted effects are found."""

import math

import numpy as np
import pytest
from scipy import stats

from trimtab.errors import InputError
from trimtab.evaluation.statistics import (
    auc,
    auc_interval,
    benjamini_hochberg,
    by_item,
    holm,
    mean_interval,
    paired_difference,
    sign_flip,
    spearman,
    upper_quantile,
)


def test_interval_covers_the_true_mean():
    rng = np.random.default_rng(0)
    draws = rng.beta(2, 5, size=(300, 32))  # skewed and bounded, like posteriors
    found = [mean_interval(d, seed=i, resamples=500) for i, d in enumerate(draws)]
    covered = np.mean([e.low <= 2 / 7 <= e.high for e in found])
    assert 0.90 <= covered <= 0.98
    assert all(e.n == 32 and e.low < e.mean < e.high for e in found)


def test_interval_is_deterministic_and_widens_with_level():
    values = np.random.default_rng(1).normal(size=20)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    narrow, wide = mean_interval(values, level=0.5), mean_interval(values, level=0.99)
    assert wide.high - wide.low > narrow.high - narrow.low


def test_interval_of_equal_values_and_of_one_value():
    assert mean_interval([0.25] * 8).low == mean_interval([0.25] * 8).high == 0.25
    assert math.isnan(mean_interval([1.0]).low)


def test_null_p_values_are_uniform():
    rng = np.random.default_rng(2)
    p = [sign_flip(rng.normal(size=11)) for _ in range(300)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_planted_effect_has_power():
    rng = np.random.default_rng(3)
    found = [sign_flip(rng.normal(0.5, 1, size=64), seed=i) < 0.05 for i in range(60)]
    assert np.mean(found) > 0.9


def test_exact_sign_flip_closed_form():
    assert sign_flip([1.0, 2.0, 3.0]) == 2 / 8  # only +++ and −−− reach |6|
    assert sign_flip([0.0, 0.0]) == 1.0
    many = sign_flip(np.ones(40))
    assert many == 1 / 10_001


def test_random_sign_flip_agrees_with_scipy():
    d = np.random.default_rng(4).normal(0.3, 1, size=20)
    ours = sign_flip(d, seed=1)
    theirs = stats.permutation_test(
        (d,), np.sum, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(5)
    ).pvalue
    assert abs(ours - theirs) < 0.015


def test_paired_difference_removes_what_items_share():
    rng = np.random.default_rng(6)
    base = rng.normal(0, 5, size=40)
    e = paired_difference(base + 0.3 + rng.normal(0, 0.1, size=40), base)
    assert e.low > 0.2 and e.high < 0.4
    with pytest.raises(InputError, match="paired"):
        paired_difference([1, 2], [1, 2, 3])


def test_by_item_averages_samples_in_first_order():
    assert by_item([1, 3, 10], ["b", "b", "a"]).tolist() == [2, 10]
    with pytest.raises(InputError, match="line up"):
        by_item([1], ["a", "b"])


def test_spearman_and_its_edges():
    assert spearman([1, 2, 3], [1, 10, 100]) == pytest.approx(1)
    assert spearman([1, 2, 3], [5, 5, 5]) == 0
    assert math.isnan(spearman([1], [1]))


def test_corrections():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert benjamini_hochberg([0.01, 0.02, 0.03]).tolist() == pytest.approx([0.03, 0.03, 0.03])
    assert holm([0.6, 0.9]).max() <= 1


def test_auc_counts_ties_as_half():
    assert auc([1, 2, 3], [0, 0]) == 1
    assert auc([1], [1]) == 0.5
    assert auc([0, 2], [1]) == 0.5


def test_upper_quantile_lies_between_the_largest():
    assert upper_quantile([0, 1, 2, 3, 4]) == pytest.approx(3.8)


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [[1.0]]])
def test_bad_items_are_refused(bad):
    with pytest.raises(InputError):
        mean_interval(bad)


def test_holm_keeps_the_family_wise_level_and_bh_the_false_discovery_rate():
    """20 tests, of which 5 are false nulls: any false alarm under Holm, the share of false alarms under BH."""
    rng = np.random.default_rng(7)
    any_false, shares, power = [], [], []
    for _ in range(400):
        z = rng.normal(size=20)
        z[:5] += 3.5
        p = 2 * stats.norm.sf(np.abs(z))
        any_false.append((holm(p)[5:] < 0.05).any())
        found = benjamini_hochberg(p) < 0.05
        shares.append(found[5:].sum() / max(1, found.sum()))
        power.append(found[:5].mean())
    assert np.mean(any_false) < 0.075
    assert np.mean(shares) < 0.06
    assert np.mean(power) > 0.75


def test_auc_interval_is_stratified_and_covers():
    rng = np.random.default_rng(8)
    truth = stats.norm.cdf(1 / np.sqrt(2))
    hits = []
    for i in range(150):
        e = auc_interval(rng.normal(1, 1, 40), rng.normal(0, 1, 25), seed=i, resamples=400)
        hits.append(e.low <= truth <= e.high)
    assert 0.88 <= np.mean(hits) <= 0.99 and e.n == 65
    same = auc_interval([1, 2, 3], [0, 0])
    assert (same.mean, same.low, same.high) == (1, 1, 1)
    assert auc_interval([1, 2, 2], [2, 0]).mean == auc([1, 2, 2], [2, 0])
