"""Studies over doses: planted slopes come back, nulls are uniform, and what cannot be said is said."""

import math

import numpy as np
import pytest
from scipy import stats

from trimtab.errors import InputError
from trimtab.evaluation.dose_response import permutation_p, symlog
from trimtab.evaluation.slopes import coherence_range, item_slopes, paired_slopes, study

DOSES = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]


def table(slopes, noise=0.0, seed=0, doses=DOSES):
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 2, len(slopes))
    return (
        base
        + symlog(doses)[:, None] * np.asarray(slopes)
        + noise * rng.normal(size=(len(doses), len(slopes)))
    )


def test_an_exact_table_gives_back_each_items_slope():
    planted = [1.0, 0.5, 2.0, -0.25]
    found = study(DOSES, table(planted))
    assert found.slopes == pytest.approx(planted) and found.slope.mean == pytest.approx(0.8125)
    assert found.line.slope == pytest.approx(0.8125) and found.line.r2 == pytest.approx(1)
    assert found.against == 0.25 and found.line.effect_size > 0
    assert found.line.score_v1 == pytest.approx(0.8125)


def test_the_coherent_slope_forgets_what_lies_outside():
    t = table([1.0] * 6)
    t[-1] += 50  # the end of the grid is word salad that scores high
    found = study(DOSES, t, good=[True] * 6 + [False])
    assert found.coherence_range == (-2, 1)
    assert found.coherent_line.slope == pytest.approx(1)
    assert found.line.slope > 5 and any("decides" in w for w in found.warnings)


def test_coherence_range_stops_at_the_first_bad_dose_on_each_side():
    assert coherence_range(DOSES, [True, False, True, True, True, False, True]) == (-0.5, 0.5)
    assert coherence_range([1, 0, -1], [True, True, True]) == (-1, 1)
    assert all(math.isnan(x) for x in coherence_range(DOSES, [True] * 3 + [False] + [True] * 3))
    assert all(math.isnan(x) for x in coherence_range([1, 2], [True, True]))


def test_items_without_numbers_are_left_out_and_counted():
    t = table([1.0, 2.0, 3.0])
    t[2, 1] = np.nan
    found = study(DOSES, t)
    assert found.slope.n == 2 and found.slope.mean == pytest.approx(2)
    assert "1 of 3 items" in found.warnings[0]
    with pytest.raises(InputError, match="no item"):
        study(DOSES, np.full((7, 2), np.nan))
    with pytest.raises(InputError, match="table"):
        study(DOSES, t.T)


def test_effect_size_says_why_it_is_missing():
    one = study(DOSES, table([1.0]))
    assert math.isnan(one.line.effect_size) and "two items" in one.line.effect_size_why
    no_zero = study([-1.0, 1.0, 2.0], table([1.0, 1.0], doses=[-1, 1, 2]))
    assert "dose 0" in no_zero.line.effect_size_why
    assert study(DOSES, table([1.0, 2.0])).line.effect_size_why == ""


def test_permutation_p_is_exact_for_few_points_and_agrees_with_random_shuffles():
    assert permutation_p([0, 1, 2], [0.0, 1.0, 2.0]) == pytest.approx(2 / 6)
    x, y = np.arange(8.0), np.array([0.1, 0.4, 0.2, 0.9, 0.7, 1.0, 0.8, 1.4])
    theirs = stats.permutation_test(
        (y,), lambda v: stats.pearsonr(x, v).statistic, permutation_type="pairings",
        n_resamples=4000, rng=np.random.default_rng(0),
    ).pvalue  # fmt: skip
    assert abs(permutation_p(x, y) - theirs) < 0.01


def test_level_slopes_of_null_items_give_uniform_p():
    rng = np.random.default_rng(1)
    p = [item_slopes(DOSES, rng.normal(size=(7, 11)))[1] for _ in range(150)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    q = [permutation_p(range(7), rng.normal(size=7)) for _ in range(150)]
    assert stats.kstest(q, "uniform").pvalue > 0.01


def test_power_half_a_standard_deviation_is_found_with_64_items():
    """An item's slope is one draw of mean d = .5 and SD 1."""
    found = [
        study(DOSES, table(np.random.default_rng(i).normal(0.5, 1, 64), seed=i)).p_items < 0.05
        for i in range(30)
    ]
    assert np.mean(found) > 0.9


def test_paired_slopes_rank_methods_on_the_same_items():
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 3, 48)  # what items share cancels in pairs
    tables = {
        "mean_diff": table(hard, noise=0.1, seed=1),
        "better": table(hard + 0.3, noise=0.1, seed=2),
        "same": table(hard, noise=0.1, seed=3),
    }
    found = paired_slopes(DOSES, tables, "mean_diff")
    assert found["better"][0].low > 0.2 and found["better"][1] < 0.01
    assert found["same"][1] > 0.05
    with pytest.raises(InputError, match="reference"):
        paired_slopes(DOSES, tables, "worse")
