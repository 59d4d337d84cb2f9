"""Knobs of the mean difference, PCA about midpoints, the leading subspace, and when centring is warned of."""

import dataclasses
import warnings

import numpy as np
import pytest

import worlds
from trimtab.directions import ConceptVectors
from trimtab.errors import InputError
from trimtab.evidence import Evidence, EvidenceBuilder
from trimtab.extraction import make, spectrum
from trimtab.extraction.mean_diff import trimmed
from trimtab.extraction.method import ExtractionWarning
from trimtab.sites import Site

WIDTH = 24


def fit(name, positive, negative, paired=True, **knobs):
    method = make(name, **knobs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtractionWarning)
        return method.fit(
            Evidence.from_rows(Site(0), positive, negative, method.wanted, paired=paired), "happy"
        )


def said(positive, negative, **fields):
    """What pca_diff warns of on these pairs."""
    given = Evidence.from_rows(Site(0), positive, negative, {"gram"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = make("pca_diff").fit(dataclasses.replace(given, **fields), "happy")
    return [str(w.message) for w in caught if "centres the differences" in str(w.message)], found.provenance


@pytest.mark.parametrize(
    "knobs", [{}, {"trim": 0.2}, {"unit_pairs": True}, {"trim": 0.2, "unit_pairs": True}]
)
def test_every_mean_of_a_pure_shift_is_the_shift(knobs):
    negative = 10 * np.random.default_rng(0).standard_normal((50, WIDTH))
    t = 3 * worlds.unit(WIDTH, 1)
    assert np.allclose(fit("mean_diff", negative + t, negative, **knobs).raw, t, atol=1e-6)
    if "unit_pairs" not in knobs:
        assert np.allclose(fit("mean_diff", negative + t, negative, paired=False, **knobs).raw, t, atol=1e-6)


def test_trimming_is_scipys_and_forgets_outliers():
    from scipy.stats import trim_mean

    rows = np.random.default_rng(0).standard_normal((37, 5)) ** 3
    assert np.allclose(trimmed(rows, 0.1), trim_mean(rows, 0.1, axis=0))
    world = worlds.planted(n=100)
    positive = world.positive.copy()
    positive[:5] += 500 * worlds.beside(world.truth, 7)
    assert abs(fit("mean_diff", positive, world.negative).unit @ world.truth) < 0.3
    assert fit("mean_diff", positive, world.negative, trim=0.1).unit @ world.truth > 0.95
    unpaired = fit("mean_diff", positive, world.negative, paired=False, trim=0.1)
    assert unpaired.unit @ world.truth > 0.75  # here what the texts of a pair share is noise too


def test_unit_pairs_give_a_loud_pair_no_more_weight():
    world = worlds.planted(n=40)
    positive = world.positive.copy()
    positive[0] = world.negative[0] + 2000 * worlds.beside(world.truth, 7)
    assert fit("mean_diff", positive, world.negative).unit @ world.truth < 0.3
    assert fit("mean_diff", positive, world.negative, unit_pairs=True).unit @ world.truth > 0.9


def test_centring_against_the_corpus_scales_and_nothing_else():
    world = worlds.planted(n=60)
    for n in (60, 20):
        positive, negative = world.positive, world.negative[:n]
        plain = fit("mean_diff", positive, negative, paired=n == 60)
        centred = fit("mean_diff", positive, negative, paired=n == 60, centre=True)
        corpus = np.concatenate([positive, negative]).mean(0)
        assert np.allclose(centred.raw, positive.mean(0) - corpus, atol=1e-5)
        assert centred.cosine(plain) == pytest.approx(1.0) and centred.norm == pytest.approx(
            plain.norm * n / (60 + n)
        )


def test_knobs_out_of_range_are_refused():
    with pytest.raises(InputError, match="below .5"):
        make("mean_diff", trim=0.5)
    with pytest.raises(InputError, match="k >= 1"):
        make("pca_topk", k=0)
    with pytest.raises(InputError, match="unit_pairs needs pairs"):
        make("mean_diff", unit_pairs=True).check_pairs(False, "happy")


def test_pca_about_midpoints_is_the_uncentred_one_at_half_the_length():
    world = worlds.planted()
    ours, uncentred = (fit(m, world.positive, world.negative) for m in ("pca_center", "pca_diff_uncentered"))
    assert np.array_equal(ours.unit, uncentred.unit) and ours.norm == pytest.approx(uncentred.norm / 2)
    middle = (world.positive + world.negative) / 2
    rows = np.concatenate([world.positive - middle, world.negative - middle])
    from sklearn.decomposition import PCA

    reference = PCA(1).fit(rows)
    assert abs(reference.components_[0] @ ours.unit) == pytest.approx(1.0, abs=1e-6)
    assert ours.norm == pytest.approx(np.sqrt(np.mean((rows @ reference.components_[0]) ** 2)), rel=1e-6)


def test_the_leading_subspace_holds_the_projected_mean_and_is_stored():
    world = worlds.planted(n=40)
    d = world.positive - world.negative
    found = fit("pca_topk", world.positive, world.negative, k=4)
    rows = np.linalg.svd(d, full_matrices=False)[2][:4]
    assert np.allclose(found.raw, rows.T @ (rows @ d.mean(0)), atol=1e-5)
    assert found.basis.shape == (4, WIDTH)
    assert np.allclose(found.basis.T @ found.basis, rows.T @ rows, atol=1e-5)
    assert np.all(found.basis @ d.mean(0) > 0)
    whole = fit("pca_topk", world.positive, world.negative, k=WIDTH)
    assert np.allclose(whole.raw, d.mean(0), atol=1e-5) and whole.provenance["mean_kept"] == pytest.approx(
        1.0
    )


@pytest.mark.parametrize("pairs", [10, 200], ids=["rows", "folded"])
def test_the_subspace_does_not_depend_on_a_rotation_within_it_as_the_sum_of_its_rows_would(pairs):
    """Two directions of equal strength: which rotation of them is found is chance, their span is not."""
    rng = np.random.default_rng(0)
    a, b = np.linalg.qr(rng.standard_normal((WIDTH, 2)))[0].T
    along = rng.standard_normal((pairs, 2))
    along -= along.mean(0)
    values, vectors = np.linalg.eigh(along.T @ along / pairs)
    along = along @ vectors / np.sqrt(values) @ vectors.T  # white: both directions equally strong
    along += [1.0, 0.0]
    d = along @ np.stack([a, b])
    found = fit("pca_topk", d, np.zeros_like(d), k=2)
    assert found.unit @ a == pytest.approx(1.0, abs=1e-6)


def test_more_components_than_there_are_are_refused():
    world = worlds.planted(n=3)
    with pytest.raises(InputError, match=r"span 3 directions, not k=5.*--set k=3"):
        fit("pca_topk", world.positive, world.negative)


def test_a_basis_goes_through_a_file_and_unequal_ones_are_refused(tmp_path):
    world = worlds.planted(n=40)
    first = fit("pca_topk", world.positive, world.negative, k=3)
    second = dataclasses.replace(fit("pca_topk", world.negative, world.positive, k=3), name="sad")
    vectors = ConceptVectors.from_directions([first, second])
    vectors.save(tmp_path / "v.safetensors")
    back = ConceptVectors.load(tmp_path / "v.safetensors")
    for d in (first, second):
        assert np.array_equal(back.direction(d.name, Site(0)).basis, d.basis)
    assert np.array_equal(back.only(["sad"]).direction("sad", Site(0)).basis, second.basis)
    with pytest.raises(InputError, match="bases of different sizes"):
        ConceptVectors.from_directions([first, dataclasses.replace(second, basis=None)])


@pytest.mark.parametrize(
    "basis", [np.eye(WIDTH)[0], np.ones((2, WIDTH)), np.eye(3), np.full((1, WIDTH), np.nan)]
)
def test_a_basis_that_is_none_is_refused(basis):
    world = worlds.planted()
    found = fit("mean_diff", world.positive, world.negative)
    with pytest.raises(InputError, match="basis of 'happy'"):
        dataclasses.replace(found, basis=basis)


@pytest.mark.parametrize("pairs", [40, 200], ids=["held out", "by moments"])
def test_centring_is_warned_of_where_it_loses_held_out_pairs(pairs):
    world = worlds.shared_shift(n=pairs)
    warned, known = said(world.positive, world.negative)
    assert len(warned) == 1 and "mean_diff or pca_diff_uncentered" in warned[0]
    assert known["pairs_right_uncentred"] > 0.95 > 0.7 > known["pairs_right_centred"]
    assert ("held-out" in known["pairs_right_measured"]) == (pairs == 40)


@pytest.mark.parametrize("pairs", [40, 200], ids=["held out", "by moments"])
def test_centring_is_not_warned_of_where_it_does_as_well_although_the_mean_is_large(pairs):
    """The old rule looked at the size of the mean alone; here it is large, and the strength varies along it."""
    rng = np.random.default_rng(0)
    t = worlds.unit(WIDTH, 3)
    negative = rng.standard_normal((pairs, WIDTH))
    positive = (
        negative + (6 + 2 * rng.standard_normal((pairs, 1))) * t + 0.1 * rng.standard_normal((pairs, WIDTH))
    )
    warned, known = said(positive, negative)
    assert known["shift_to_variance"] > 0.1 and not warned
    assert known["pairs_right_centred"] == pytest.approx(known["pairs_right_uncentred"], abs=0.02)


def test_groups_are_halved_whole():
    """Two groups of three pairs and no more can't be halved into fits: the moments of all pairs speak."""
    world = worlds.shared_shift(n=6)
    few = {"positive": tuple("aaabbb"), "negative": tuple("aaabbb")}
    assert "moments" in said(world.positive, world.negative, groups=few)[1]["pairs_right_measured"]
    many = {"positive": tuple("abcdef"), "negative": tuple("abcdef")}
    assert "held-out" in said(world.positive, world.negative, groups=many)[1]["pairs_right_measured"]


def test_differences_come_in_the_comparisons_order():
    """Groups are names of rows: they are worth nothing where the rows arrive sorted by length."""
    world = worlds.planted(n=20)
    builder = EvidenceBuilder(Site(0), {"gram"}, paired=True)
    for places in (range(10, 20), range(10)):
        at = list(places)
        builder.add(world.positive[at], world.negative[at], (at, at))
    assert np.allclose(builder.finish().factor, world.positive - world.negative)


def test_pairs_that_do_not_agree_on_a_sign_are_warned_of():
    world = worlds.shared_shift(n=40)  # few enough that single differences are still there to vote
    with pytest.warns(ExtractionWarning, match="hardly agree on its sign"):
        make("pca_diff").fit(Evidence.from_rows(Site(0), world.positive, world.negative, {"gram"}), "happy")
    assert fit("mean_diff", world.positive, world.negative).norm > 0


def test_few_rows_are_solved_among_themselves(monkeypatch):
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((20, 300)) * np.linspace(3, 0.1, 20)[:, None]
    value, vector = spectrum.leading(factor)
    monkeypatch.setattr(spectrum, "DENSE", 10)
    again = spectrum.leading(factor)
    assert value == pytest.approx(again[0]) and abs(vector @ again[1]) == pytest.approx(1.0, abs=1e-9)
    values, rows = spectrum.top(factor.T, 3)
    assert np.allclose(values, np.linalg.svd(factor, compute_uv=False)[:3]) and rows.shape == (3, 20)
