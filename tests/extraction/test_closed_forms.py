"""Each method against its formula, and the traps that were measured in the field."""

import warnings

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evidence import RESERVOIR, Evidence
from trimtab.extraction import make
from trimtab.extraction.method import ExtractionWarning, pairs_vote
from trimtab.extraction.spectrum import leading
from trimtab.sites import Site

WIDTH = 32


def planted(shift, noise, pairs=400, seed=0, width=WIDTH):
    """D = shift * t + N(0, noise^2) per coordinate, on top of large shared variation."""
    rng = np.random.default_rng(seed)
    t = np.zeros(width)
    t[0] = 1.0
    negative = 10 * rng.standard_normal((pairs, width))
    return t, negative + shift * t + noise * rng.standard_normal((pairs, width)), negative


def beside_a_nuisance(shift, noise, pairs=800, seed=0):
    """D = shift * t + N(0, noise^2) * q: one nuisance direction q across t, as in the field's reports."""
    rng = np.random.default_rng(seed)
    t, q = np.linalg.qr(rng.standard_normal((WIDTH, 2)))[0].T
    negative = 10 * rng.standard_normal((pairs, WIDTH))
    return t, q, negative + shift * t + noise * rng.standard_normal((pairs, 1)) * q, negative


def fit(name, positive, negative, paired=True):
    method = make(name)
    return method.fit(Evidence.from_rows(Site(0), positive, negative, method.needs, paired=paired), "happy")


def quiet(name, positive, negative):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtractionWarning)
        return fit(name, positive, negative)


def test_mean_difference_of_a_pure_shift_is_the_shift():
    t, positive, negative = planted(3.0, 0.0)
    found = fit("mean_diff", positive, negative)
    assert np.allclose(found.raw, 3.0 * t, atol=1e-6)
    assert found.norm == pytest.approx(3.0)


def test_mean_difference_ignores_the_pairing():
    _, positive, negative = planted(2.0, 1.0)
    shuffled = negative[np.random.default_rng(1).permutation(len(negative))]
    assert np.allclose(
        fit("mean_diff", positive, negative).raw, fit("mean_diff", positive, shuffled).raw, atol=1e-6
    )


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("pairs", [20, 300], ids=["n<width", "n>>width"])
def test_pca_is_the_singular_vector_that_numpy_finds(centred, pairs):
    _, positive, negative = planted(2.0, 1.0, pairs=pairs, seed=4)
    d = positive - negative
    matrix = d - d.mean(0) if centred else d
    _, values, rows = np.linalg.svd(matrix, full_matrices=False)
    found = quiet("pca_diff" if centred else "pca_diff_uncentered", positive, negative)
    assert abs(found.unit @ rows[0]) == pytest.approx(1.0, abs=1e-6)
    count = pairs - 1 if centred else pairs
    assert found.norm == pytest.approx(values[0] / np.sqrt(count))
    assert found.provenance["explained"] == pytest.approx(values[0] ** 2 / np.sum(values**2))


def test_pair_midpoints_give_the_uncentred_direction():
    """`pca_center`, rows +-D/2 about each pair's midpoint, is the same matrix up to scale."""
    _, positive, negative = planted(2.0, 1.0)
    half = (positive - negative) / 2
    _, _, rows = np.linalg.svd(np.concatenate([half, -half]), full_matrices=False)
    assert abs(fit("pca_diff_uncentered", positive, negative).unit @ rows[0]) == pytest.approx(1.0, abs=1e-6)


def test_trap_centring_deletes_a_constant_shift():
    t, q, positive, negative = beside_a_nuisance(4.0, 1.0)
    assert fit("pca_diff_uncentered", positive, negative).unit @ t > 0.99
    with pytest.warns(ExtractionWarning, match="mean_diff or pca_diff_uncentered"):
        centred = fit("pca_diff", positive, negative)
    assert abs(centred.unit @ t) < 0.05 and abs(centred.unit @ q) > 0.99
    assert fit("mean_diff", positive, negative).unit @ t > 0.99


def test_trap_both_pcas_follow_a_loud_nuisance_and_the_mean_does_not():
    t, q, positive, negative = beside_a_nuisance(1.0, 3.0)
    assert fit("mean_diff", positive, negative).unit @ t > 0.98
    for name in ("pca_diff_uncentered", "pca_diff"):
        found = quiet(name, positive, negative)
        assert abs(found.unit @ t) < 0.2 and abs(found.unit @ q) > 0.98


def test_trap_isotropic_noise_spoils_both_pcas_before_the_mean():
    t, positive, negative = planted(1.0, 3.0, pairs=2000)
    mean = fit("mean_diff", positive, negative).unit @ t
    assert mean > 0.9
    for name in ("pca_diff_uncentered", "pca_diff"):
        assert abs(quiet(name, positive, negative).unit @ t) < mean - 0.1


def test_no_warning_of_centring_where_the_mean_is_small():
    """That the pairs do not agree on a sign is another matter, and is said."""
    _, positive, negative = planted(0.1, 3.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert fit("pca_diff", positive, negative).norm > 0
    assert ["hardly agree on its sign" in str(w.message) for w in caught] == [True]


def test_centred_pca_of_equal_differences_is_refused():
    _, positive, negative = planted(4.0, 0.0)
    with pytest.raises(InputError, match=r"all alike.*mean_diff"):
        fit("pca_diff", positive, negative)


def test_the_vote_is_taken_on_uncentred_projections():
    """Nine pairs go up by 1, one goes down by 3: centred projections would split 9 to 1 about any mean."""
    step = np.zeros((10, 8))
    step[:, 0] = [1] * 9 + [-3]
    evidence = Evidence.from_rows(Site(0), step, np.zeros((10, 8)), {"gram"})
    sign, vote = pairs_vote(evidence, np.array([-1.0] + [0.0] * 7))
    assert (sign, vote) == (-1.0, {"pair_accuracy": pytest.approx(0.9)})


def test_outliers_do_not_turn_the_mean_difference_round():
    """Most pairs vote against their own mean here; mean_diff keeps the mean's sign and reports the poor
    accuracy.
    """
    step = np.zeros((10, 8))
    step[:, 0] = [1] * 9 + [-30]
    evidence = Evidence.from_rows(Site(0), step, np.zeros((10, 8)), {"gram"})
    found = make("mean_diff").fit(evidence, "happy")
    assert found.unit[0] == -1.0
    assert found.provenance["pair_accuracy"] == pytest.approx(0.1)


def test_once_the_differences_are_folded_a_reservoir_of_them_votes():
    """Three pairs of four go up by 1, the fourth down by 2.9: the mean difference hardly leans, the pairs know."""
    pairs = 40 * WIDTH
    step = np.random.default_rng(2).standard_normal((pairs, WIDTH)) * 0.01
    step[:, 0] += np.where(np.arange(pairs) % 4 == 3, -2.9, 1.0)
    evidence = Evidence.from_rows(Site(0), step, np.zeros_like(step), {"gram"})
    assert len(evidence.factor) < pairs and len(evidence.reservoir) == min(RESERVOIR, pairs) == 512
    sign, vote = pairs_vote(evidence, np.eye(WIDTH)[0] * -1)
    assert sign == -1.0 and vote["pair_accuracy"] == pytest.approx(0.75, abs=0.06)
    few = Evidence.from_rows(Site(0), step[: 2 * WIDTH], np.zeros((2 * WIDTH, WIDTH)), {"gram"})
    assert few.reservoir is None and pairs_vote(few, np.eye(WIDTH)[0])[1]["pair_accuracy"] == 0.75


@pytest.mark.parametrize("shifted", [False, True])
def test_iteration_agrees_with_the_exact_solve(shifted, monkeypatch):
    monkeypatch.setattr(
        "trimtab.extraction.spectrum.DENSE", 50
    )  # 60 rows are few: they would be solved exactly
    rng = np.random.default_rng(7)
    factor = rng.standard_normal((60, 1500)) * np.linspace(3, 0.1, 60)[:, None]
    shift = np.sqrt(60) * factor.mean(0) if shifted else None
    moment = factor @ factor.T
    if shifted:
        centre = np.eye(60) - 1 / 60
        moment = centre @ moment @ centre
    values, vectors = np.linalg.eigh(moment)
    value, vector = leading(factor, shift)
    centred = factor - factor.mean(0) if shifted else factor
    exact = centred.T @ vectors[:, -1] / np.sqrt(values[-1])
    assert value == pytest.approx(values[-1])
    assert abs(exact @ vector) == pytest.approx(1.0, abs=1e-6)


def test_random_depends_on_seed_concept_and_site_alone():
    _, positive, negative = planted(2.0, 1.0)

    def draw(seed=0, concept="happy", layer=0):
        evidence = Evidence.from_rows(Site(layer), positive, negative, {"mean"})
        return make("random", seed=seed).fit(evidence, concept).unit

    base = draw()
    assert np.array_equal(base, draw())
    for other in (draw(seed=1), draw(concept="sad"), draw(layer=1)):
        assert abs(base @ other) < 0.7
