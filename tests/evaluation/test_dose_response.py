"""Closed forms of the regression columns, and what counts as a rise."""

import math

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evaluation.dose_response import (
    Row,
    at_dose,
    best_row,
    coherent_rows,
    longest_rise,
    regress,
    rises,
    symlog,
)
from trimtab.evaluation.slopes import item_slopes

GRID = np.array([-10, -2, -1, -0.1, 0, 0.1, 1, 2, 10])


def row(dose, score, coherence=0.95):
    return Row(dose, score, score - 0.1, score + 0.1, coherence, 32)


def test_symlog():
    assert symlog([0, math.e - 1, 1 - math.e]).tolist() == pytest.approx([0, 1, -1])


def test_exact_line():
    r = regress(GRID, 3 * symlog(GRID) + 1)
    assert (r.slope, r.intercept, r.r2, r.score_v1) == pytest.approx((3, 1, 1, 3))
    assert r.score_v2 == pytest.approx(3 * (r.max - r.min))
    assert r.p_value < 1e-12 and r.spearman == pytest.approx(1) and r.asymmetry == pytest.approx(0)


def test_constant():
    r = regress(GRID, np.full(9, 0.4))
    assert (r.slope, r.r2, r.p_value, r.score_v1, r.asymmetry) == (0, 0, 1, 0, 0)
    assert r.intercept == 0.4


def test_invalid_points_lower_valid_frac_squared():
    y = 3 * symlog(GRID) + 1
    y[0] = np.nan
    r = regress(GRID, y, valid=[True] * 8 + [False])
    assert r.n_valid == 7 and r.valid_frac == pytest.approx(7 / 9)
    assert r.score_v1 == pytest.approx(3 * (7 / 9) ** 2)


def test_two_points_are_too_few():
    r = regress([0, 1, 2], [1.0, np.nan, 2.0])
    assert math.isnan(r.slope) and math.isnan(r.score_v1) and r.n_valid == 2


def test_p_value_is_linregress():
    from scipy.stats import linregress

    rng = np.random.default_rng(0)
    y = symlog(GRID) + rng.normal(size=9)
    r, other = regress(GRID, y), linregress(symlog(GRID), y)
    assert (r.p_value, r.r2) == pytest.approx((other.pvalue, other.rvalue**2))
    assert r.slope_low < other.slope < r.slope_high


def test_asymmetry_and_effect_size():
    one_sided = regress([-1, 0, 1], [0.0, 0.0, 2.0], items_at_zero=[0.0, 1.0, 2.0])
    assert one_sided.asymmetry == 1
    assert one_sided.effect_size == pytest.approx(abs(one_sided.slope) / 1.0)
    assert math.isnan(regress([0, 1, 2], [0, 1, 2]).asymmetry)


def test_item_slopes_recover_a_planted_slope():
    rng = np.random.default_rng(1)
    table = rng.normal(size=64)[None] * 3 + 0.7 * symlog(GRID)[:, None] + rng.normal(0, 0.2, (9, 64))
    slope, p = item_slopes(GRID, table)
    assert slope.low < 0.7 < slope.high and slope.n == 64 and p < 0.001
    with pytest.raises(InputError, match="table"):
        item_slopes(GRID, table.T)


def test_row_from_items():
    r = Row.of(0.4, [0.2, 0.4, 0.6, 0.8], 0.9, fingerprint="abc", seed=1)
    assert r.score == pytest.approx(0.5) and r.low < 0.5 < r.high and r.n == 4
    assert r.to_json()["fingerprint"] == "abc"


def test_rises_allows_small_drops_only():
    assert rises([0.1, 0.3, 0.285, 0.5])
    assert not rises([0.1, 0.3, 0.27, 0.5])
    assert not rises([0.3, 0.3])
    assert not rises([0.3])
    assert not rises([0.1, 0.115, 0.13, 0.12, 0.105, 0.09])  # small steps must not add up to a fall


def test_best_is_the_highest_coherent_row():
    rows = [row(0, 0.1), row(0.4, 0.5), row(0.8, 0.7), row(1.2, 0.9, coherence=0.5)]
    assert best_row(rows, unsteered=0.95).dose == 0.8
    assert [r.dose for r in coherent_rows(rows, 0.95)] == [0, 0.4, 0.8]
    assert at_dose(rows, 0.4).score == 0.5
    with pytest.raises(InputError, match="no dose is coherent"):
        best_row(rows[3:], unsteered=0.95)
    with pytest.raises(InputError, match="no row"):
        at_dose(rows, 0.5)


def test_longest_rise_skips_falls():
    rows = [row(-1, 0.5), row(0, 0.1), row(0.4, 0.3), row(0.8, 0.29), row(1.0, 0.6), row(1.2, 0.9, 0.5)]
    assert [r.dose for r in longest_rise(rows, 0.95)] == [0, 0.4, 0.8, 1.0]
    assert longest_rise(rows[:2], 0.95) == []
