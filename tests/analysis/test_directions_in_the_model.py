"""Redundancy, neurons, heads and neutral components, each with a planted truth."""

import numpy as np
import pytest

from trimtab.analysis.quality.background import background, components
from trimtab.analysis.quality.heads import heads_of
from trimtab.analysis.quality.neurons import Neurons, nearest_neuron
from trimtab.analysis.quality.redundancy import redundancy
from trimtab.errors import Unsupported
from trimtab.evidence import Evidence
from trimtab.sites import Site


def units(k, d, seed=0):
    rows = np.random.default_rng(seed).standard_normal((k, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# --- redundancy


def test_a_mixture_is_found_with_its_signed_contributors():
    rows = units(10, 512)
    rows[9] = 0.8 * rows[0] - 0.6 * rows[1]
    rows[9] /= np.linalg.norm(rows[9])
    found = redundancy(tuple(f"v{i}" for i in range(10)), rows)[9]
    assert found.r2 == pytest.approx(0.9999, abs=2e-4) and found.redundant
    (first, a), (second, b) = found.contributors[:2]
    assert (first, second) == ("v0", "v1") and a == pytest.approx(0.79, abs=0.03) and b < -0.55
    assert found.nearest == "v0" and len(found.contributors) == 5


def test_r2_is_one_minus_one_over_the_inverse_gram_diagonal():
    """1 - 1 / VIF, up to the ridge."""
    rows = units(6, 40)
    inverse = np.linalg.inv(rows @ rows.T)
    found = redundancy(tuple("abcdef"), rows)
    assert np.allclose([f.r2 for f in found], 1 - 1 / np.diag(inverse), atol=1e-3)


def test_strangers_explain_what_chance_says():
    found = [f for s in range(20) for f in redundancy(tuple("abcdefghij"), units(10, 64, s))]
    assert found[0].chance == pytest.approx(9 / 64)
    assert np.mean([f.r2 for f in found]) == pytest.approx(9 / 64, abs=0.03)
    assert not any(f.redundant for f in found)


def test_more_concepts_than_dimensions_mean_nothing():
    found = redundancy(tuple("abcdefgh"), units(8, 5))
    assert all(f.meaningless and not f.redundant and f.r2 > 0.9 for f in found)


def test_clusters_gather_opposites_too():
    rows = units(4, 256)
    rows[1] = -rows[0] + 0.1 * rows[1]
    rows[1] /= np.linalg.norm(rows[1])
    found = redundancy(tuple("abcd"), rows)
    assert found[0].cluster == found[1].cluster == ("a", "b") and found[2].cluster == ("c",)
    assert found[0].nearest_cosine < -0.9


# --- neurons


def test_a_planted_neuron_is_found_with_its_sign():
    columns = np.random.default_rng(0).standard_normal((64, 200))
    found = nearest_neuron(-columns[:, 17] / np.linalg.norm(columns[:, 17]), Neurons.of(columns))
    assert (found.index, found.single) == (17, True) and found.cosine == pytest.approx(-1)


def test_chance_is_the_maximum_over_strangers():
    columns = np.random.default_rng(1).standard_normal((128, 1000))
    found = nearest_neuron(units(1, 128, 5)[0], Neurons.of(columns))
    assert found.expected == pytest.approx(np.sqrt(2 * np.log(1000) / 128))
    assert found.chance == pytest.approx(found.expected, rel=0.15)
    assert abs(found.cosine) < found.chance_high * 1.2 and not found.single


def test_a_direction_of_another_width_is_refused():
    with pytest.raises(Unsupported, match="64 numbers, and the direction has 32"):
        nearest_neuron(np.ones(32) / np.sqrt(32), Neurons.of(np.ones((64, 5))))


# --- heads


def evidence_of(delta, noise=0.1, n=40, seed=0):
    rng = np.random.default_rng(seed)
    base = noise * rng.standard_normal((2, n, len(delta)))
    return Evidence.from_rows(Site(3, "head_out"), base[0] + delta, base[1], {"mean"}, False)


def test_a_head_that_the_output_matrix_nulls_writes_nothing():
    """Head 1 differs most, and W_O throws it away; head 4 carries the direction."""
    count, size, hidden = 24, 4, 16
    unit = units(1, hidden, 1)[0]
    delta = np.zeros((count, size))
    delta[1], delta[4] = 50.0, 1.0
    output = np.random.default_rng(2).standard_normal((hidden, count * size)) * 0.01
    output[:, 4:8] = 0
    output[:, 16:20] = unit[:, None]
    found = heads_of(unit, Site(3), evidence_of(delta.ravel()), count, output)
    assert int(np.argmax(found.raw_norm)) == 1 and found.strongest == 4 and found.concentrated
    assert sum(found.share) == pytest.approx(1) and found.share[4] > 0.9
    assert found.uniform == pytest.approx(10 / 24) and found.concentration > 0.9


def test_concentration_of_few_heads_means_nothing_so_the_strongest_must_stand_alone():
    even = heads_of(units(1, 8)[0], Site(3, "q"), evidence_of(np.ones(32)), 8, None)
    assert (even.concentration, even.uniform, even.concentrated) == (pytest.approx(1), 1, False)
    assert even.written is None and even.share is None
    one = np.zeros(32)
    one[4:8] = 5.0
    assert heads_of(units(1, 8)[0], Site(3, "q"), evidence_of(one), 8, None).concentrated


def test_selectivity_is_the_difference_over_the_negatives_spread():
    delta = np.zeros(8)
    delta[0] = 3.0
    evidence = evidence_of(delta, noise=0.5, n=400)
    found = heads_of(units(1, 8)[0], Site(3, "q"), evidence, 2, None)
    assert found.selectivity[0] == pytest.approx(3 / 0.5, rel=0.1)


def test_a_direction_on_head_out_needs_no_matrix():
    delta = np.arange(12.0)
    unit = delta / np.linalg.norm(delta)
    found = heads_of(unit, Site(3, "head_out"), evidence_of(delta, noise=0.0), 3, None)
    truth = (delta**2).reshape(3, 4).sum(1) / (delta**2).sum()
    assert np.allclose(found.share, truth)


def test_heads_that_do_not_fit_the_width_are_refused():
    with pytest.raises(Unsupported, match="do not share evenly"):
        heads_of(units(1, 8)[0], Site(3), evidence_of(np.ones(10)), 4, None)


# --- neutral components


def test_a_direction_along_neutral_variance_shows():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((32, 32)))[0]
    rows = rng.standard_normal((500, 32)) * np.array([20, 10, 5, *[1] * 29]) @ axes.T + 7 * axes[:, 10]
    neutral = components(rows)
    along = background(axes[:, 1], neutral)
    assert along.cosines[1] > 0.99 and max(along.cosines[0], along.cosines[2]) < 0.1
    assert along.explained[0] > along.explained[1] > along.explained[2]
    aside = background(axes[:, 20], neutral)
    assert max(aside.cosines) < 0.2 and aside.chance == pytest.approx(1 / np.sqrt(32))
    assert background(axes[:, 10], neutral).mean_cosine > 0.9
