"""Figures of a spectrum in closed form, against an independent SVD, and against chance."""

import numpy as np
import pytest
from made import sample

import worlds
from trimtab.analysis.quality.spectrum import participation, shape, spectra


def test_four_equal_eigenvalues_are_four_dimensions():
    found = shape(np.array([1, 1, 1, 1, 0, 0]))
    assert found.effective_dim_full == pytest.approx(4) and found.effective_dim_signal == pytest.approx(4)
    assert (found.k_signal_at_90pct, found.first_pc_ratio) == (4, 0.25)


def test_one_eigenvalue_is_one_dimension():
    found = shape(np.array([0, 0, 7.0]))
    assert (found.first_pc_ratio, found.k_signal_at_90pct) == (1, 1)
    assert found.effective_dim_full == found.effective_dim_signal == 1


def test_the_signal_part_ignores_the_tail():
    values = np.array([10.0, 10.0, *[0.01] * 50])
    assert shape(values).k_signal_at_90pct == 2
    assert shape(values).effective_dim_signal == pytest.approx(2)
    assert (
        shape(values).effective_dim_full == pytest.approx(participation(values)) != pytest.approx(2, abs=0.01)
    )


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("paired", [True, False])
def test_eigenvalues_are_squared_singular_values_over_n_minus_one(paired, centred):
    rng = np.random.default_rng(0)
    p, q = rng.standard_normal((2, 12, 7)) + 100  # a large offset must not cost digits
    found = spectra(sample(p, q, paired), permutations=1)[centred]
    d = p - q if paired else p - q.mean(0)
    d = d - d.mean(0) if centred else d
    truth = np.linalg.svd(d, compute_uv=False) ** 2 / 11
    assert np.allclose(found.eigenvalues[:7], truth, rtol=1e-8)
    assert (found.n, found.limit, found.centred) == (12, 7, centred)


def test_a_planted_shift_is_one_dimensional_beyond_chance_and_noise_is_not():
    world = worlds.planted(n=40)
    planted = spectra(sample(world.positive, world.negative))[0]
    assert planted.shape.first_pc_ratio > planted.chance["first_pc_ratio"].high
    assert planted.shape.effective_dim_full < planted.chance["effective_dim_full"].low
    assert planted.p == pytest.approx(1 / 41)
    rng = np.random.default_rng(1)
    p_values = [spectra(sample(*rng.standard_normal((2, 20, 24))), permutations=20)[0].p for _ in range(30)]
    assert 0.3 < np.mean(p_values) < 0.7


def test_few_rows_look_low_dimensional_and_the_chance_level_says_so():
    rng = np.random.default_rng(2)
    few = spectra(sample(*rng.standard_normal((2, 5, 64))))[0]
    assert few.limit == 5 and few.shape.effective_dim_full <= 5
    assert few.chance["effective_dim_full"].mean == pytest.approx(few.shape.effective_dim_full, rel=0.2)


def test_many_rows_are_sampled_and_said():
    rng = np.random.default_rng(3)
    assert spectra(sample(*rng.standard_normal((2, 400, 4))), permutations=2)[0].n == 256
