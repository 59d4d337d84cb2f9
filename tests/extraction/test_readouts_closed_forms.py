"""Classifiers and erasure against closed forms, independent implementations and the traps of the field."""

import dataclasses
import math

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evidence import Evidence
from trimtab.extraction import make
from trimtab.extraction.leace import eraser
from trimtab.extraction.ridge import whitened
from trimtab.extraction.sample import labelled
from trimtab.sites import Site

WIDTH = 12


def gaussians(n=4000, width=WIDTH, size=1.0, seed=0, unequal=1.0):
    """Two Gaussians of one covariance S: rows, S and the difference of their means d."""
    rng = np.random.default_rng(seed)
    root = np.linalg.qr(rng.standard_normal((width, width)))[0] * np.linspace(0.5, 3, width)
    d = size * rng.standard_normal(width)
    negative = rng.standard_normal((int(n * unequal), width)) @ root.T
    return rng.standard_normal((n, width)) @ root.T + d, negative, root @ root.T, d


def few(n=30, width=200, seed=0, paired=True, loud=1.0):
    """Fewer pairs than coordinates, which any classifier can tell apart."""
    rng = np.random.default_rng(seed)
    t = rng.standard_normal(width) / math.sqrt(width)
    negative = loud * rng.standard_normal((n, width))
    base = negative if paired else rng.standard_normal((n, width))
    return base + 3 * t + 0.5 * rng.standard_normal((n, width)), negative


def evidence(positive, negative, paired=False, **fields):
    found = Evidence.from_rows(Site(0), positive, negative, {"rows"}, paired=paired)
    return dataclasses.replace(found, **fields)


def fit(name, positive, negative, paired=False, **knobs):
    return make(name, **knobs).fit(evidence(positive, negative, paired), "happy")


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def auc(positive, negative):
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(np.repeat([1, 0], [len(positive), len(negative)]), [*positive, *negative])


@pytest.mark.parametrize("paired", [True, False], ids=["paired", "unpaired"])
def test_logistic_tends_to_the_mean_difference_as_C_falls_and_leaves_it_as_C_grows(paired):
    positive, negative = few(20, paired=paired)
    strength = np.exp(np.random.default_rng(0).standard_normal((20, 1)))
    positive = negative + strength * (positive - negative)
    mean = positive.mean(0) - negative.mean(0)
    along = [
        cosine(fit("logistic", positive, negative, paired, C=C).unit, mean) for C in (1e-8, 1e-2, 1.0, 1e4)
    ]
    assert along[0] > 0.999999
    assert along == sorted(along, reverse=True) and along[-1] < 0.5


@pytest.mark.parametrize("paired", [True, False], ids=["paired", "unpaired"])
def test_logistic_in_the_span_of_the_rows_is_logistic_in_full_width(paired):
    """Against scikit-learn on all 200 coordinates, and the optimum's own condition: no slope is left."""
    from sklearn.linear_model import LogisticRegression

    positive, negative = few(paired=paired)
    given = evidence(positive, negative, paired)
    found = make("logistic", C=0.01).fit(given, "happy")
    full = labelled(given, reduced=False)
    assert full.x.shape[1] == 200 and labelled(given, reduced=True).x.shape[1] < 200
    model = LogisticRegression(C=0.01, tol=1e-10, max_iter=10_000, fit_intercept=not paired).fit(
        full.x, full.y
    )
    weights, intercept = model.coef_[0], float(np.ravel(model.intercept_)[0])
    assert cosine(found.unit, weights) > 1 - 1e-7
    sign = np.where(full.y == 1, 1, -1)
    pull = sign / (1 + np.exp(sign * (full.x @ weights + intercept)))
    assert np.allclose(0.01 * pull @ full.x, weights, atol=1e-6)
    value = (positive - full.centre) / full.scale @ weights + intercept
    ours = positive @ found.unit.astype(float) + found.bias
    assert np.allclose(ours, value * full.scale / np.linalg.norm(weights), atol=1e-4)


def test_logistic_of_unequal_sides_finds_the_boundary_that_scikit_learn_finds():
    from sklearn.linear_model import LogisticRegression

    positive, negative, _, _ = gaussians(600, unequal=0.25)
    found = fit("logistic", positive, negative, C=1e4)
    rows, y = np.concatenate([positive, negative]), np.repeat([1, 0], [len(positive), len(negative)])
    model = LogisticRegression(C=1e6, tol=1e-10, max_iter=10_000).fit(rows, y)
    length = np.linalg.norm(model.coef_)
    assert cosine(found.unit, model.coef_[0]) > 0.9999
    assert found.bias == pytest.approx(float(model.intercept_[0] / length), abs=1e-2)


def test_trap_tearing_pairs_apart_makes_the_held_out_auc_lie():
    """Each text looks like its partner: held out from it, it is taken for the partner's side."""
    positive, negative = few(60, 400, loud=3.0)
    torn = fit("logistic", positive, negative).provenance["held_out_auc"]
    names = tuple(str(i) for i in range(60))
    kept = evidence(positive, negative, groups={"positive": names, "negative": names})
    whole = make("logistic").fit(kept, "happy").provenance["held_out_auc"]
    assert torn < 0.5 < 0.7 < whole


def test_C_is_the_smallest_of_those_that_do_best_on_held_out_groups():
    positive, negative, _, _ = gaussians(200, size=8.0)
    found = fit("logistic", positive, negative).provenance
    assert found["C"] == 1e-6 and found["held_out_auc"] > 0.999
    t = np.eye(20)[0]
    loud = np.random.default_rng(0).standard_normal((200, 20)) * np.where(t == 1, 0.1, 3.0)
    many = fit("logistic", loud[:100] + 0.1 * t, loud[100:] - 0.1 * t).provenance
    assert (
        many["C"] >= 10 and many["auc_by_C"]["1e-06"] < 0.6
    )  # a quiet tell among loud noise is not in the mean
    assert many["held_out_auc"] > 0.75
    assert many["held_out_auc"] == max(many["auc_by_C"].values())


def test_one_group_cannot_be_held_out():
    positive, negative = few(6)
    one = {"positive": ("scene",) * 6, "negative": ("scene",) * 6}
    with pytest.raises(InputError, match=r"held-out groups.*--set C="):
        make("logistic").fit(evidence(positive, negative, groups=one), "happy")
    assert make("logistic", C=0.1).fit(evidence(positive, negative, groups=one), "happy").norm > 0


def test_ridge_is_discriminant_analysis_and_least_squares_on_labels():
    from sklearn.linear_model import Ridge

    positive, negative, _, _ = gaussians(300)
    found = fit("ridge", positive, negative, ridge=0.7)
    middle = (positive.mean(0) + negative.mean(0)) / 2
    rows, y = np.concatenate([positive, negative]) - middle, np.repeat([1.0, -1.0], 300)
    model = Ridge(alpha=2 * 300 * 0.7, fit_intercept=False, tol=1e-12).fit(rows, y)
    within = np.concatenate([positive - positive.mean(0), negative - negative.mean(0)])
    scatter = within.T @ within / 600
    lda = np.linalg.solve(scatter + 0.7 * np.eye(WIDTH), positive.mean(0) - negative.mean(0))
    assert cosine(found.unit, model.coef_) > 1 - 1e-10
    assert cosine(found.unit, lda) > 1 - 1e-10
    assert middle @ found.unit + found.bias == pytest.approx(0, abs=1e-5)


def test_ridge_finds_the_best_readout_of_two_gaussians_and_its_auc():
    positive, negative, covariance, d = gaussians(20_000, size=0.7)
    found = fit("ridge", positive, negative, ridge=0.0)
    assert cosine(found.unit, np.linalg.solve(covariance, d)) > 0.999
    separation = math.sqrt(d @ np.linalg.solve(covariance, d))
    expected = 0.5 * (1 + math.erf(separation / 2))  # Phi(separation / sqrt 2)
    assert auc(positive @ found.unit, negative @ found.unit) == pytest.approx(expected, abs=0.005)
    assert auc(positive @ d, negative @ d) < expected - 0.02


def test_ridge_tends_to_the_mean_difference():
    positive, negative, _, d = gaussians(2000)
    mean = fit("mean_diff", positive, negative)
    assert cosine(fit("ridge", positive, negative, ridge=1e8).unit, mean.unit) > 1 - 1e-9
    assert cosine(fit("ridge", positive, negative, ridge=0.0).unit, d) < 0.9


def test_the_pattern_of_the_whitened_difference_is_the_difference():
    positive, negative, _, _ = gaussians(500)
    mean = fit("mean_diff", positive, negative)
    found = fit("ridge", positive, negative, ridge=0.0, row="pattern")
    assert np.allclose(found.raw, mean.raw, atol=1e-5) and found.bias is None


@pytest.mark.parametrize("count", [8, 40], ids=["n<width", "n>width"])
def test_whitening_in_the_smaller_space_is_whitening(count):
    rng = np.random.default_rng(3)
    rows, vector = rng.standard_normal((count, 20)), rng.standard_normal(20)
    exact = np.linalg.inv(rows.T @ rows / count + 1e-3 * np.eye(20)) @ vector
    assert np.allclose(whitened(rows, 1e-3, vector), exact, rtol=1e-8)


def test_ridge_relative_is_a_multiple_of_the_typical_variance_and_zero_needs_rows():
    positive, negative = few()
    within = np.concatenate([positive - positive.mean(0), negative - negative.mean(0)])
    found = fit("ridge", positive, negative, ridge_relative=0.5)
    assert found.provenance["resolved_ridge"] == pytest.approx(0.5 * np.trace(within.T @ within) / 60 / 200)
    for knob in ("ridge", "ridge_relative"):
        with pytest.raises(InputError, match=r"60 rows .* width 200 .* needs 202"):
            fit("ridge", positive, negative, **{knob: 0.0})
    with pytest.raises(InputError, match="give one of them"):
        make("ridge", ridge=1.0, ridge_relative=1.0)


@pytest.mark.parametrize("name", ["logistic", "logistic_l1", "ridge", "leace"])
def test_raw_norms_are_what_the_sides_differ_by_along_the_row(name):
    positive, negative, _, _ = gaussians(200)
    found = fit(name, positive, negative)
    assert found.norm == pytest.approx(abs((positive.mean(0) - negative.mean(0)) @ found.unit), rel=1e-5)


@pytest.mark.parametrize("name", ["logistic", "logistic_l1"])
def test_patterns_are_covariance_times_weights(name):
    positive, negative = few(60, 20)
    weights = fit(name, positive, negative, paired=True, C=0.1)
    pattern = fit(name, positive, negative, paired=True, C=0.1, row="pattern")
    d = positive - negative
    assert cosine(pattern.unit, d.T @ (d @ weights.unit)) > 1 - 1e-7
    assert pattern.bias is None and weights.bias is not None


@pytest.mark.parametrize("paired", [True, False], ids=["paired", "unpaired"])
def test_l1_meets_the_condition_of_its_optimum_on_every_coordinate(paired):
    """|slope| <= 1 / C everywhere, with equality and the right sign where there is a weight."""
    positive, negative = few(40, 500, paired=paired)
    given = evidence(positive, negative, paired)
    sample = labelled(given, reduced=False, balanced=True)
    found = make("logistic_l1", C=0.2, bootstraps=0).fit(given, "happy")
    picked = found.unit != 0
    assert 2 < picked.sum() == found.provenance["picked"] < 80
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=0.2, l1_ratio=1, solver="liblinear", fit_intercept=False, tol=1e-8, random_state=0
    )
    weights = model.fit(sample.x, sample.y).coef_[0]
    assert cosine(found.unit, weights) > 0.9999
    sign = np.where(sample.y == 1, 1, -1)
    slope = 0.2 * (sign / (1 + np.exp(sign * (sample.x @ weights)))) @ sample.x
    assert np.abs(slope).max() < 1.001
    assert np.allclose(slope[picked], np.sign(found.unit[picked]), atol=1e-3)


def test_l1_picks_the_neuron_that_knows_and_says_how_surely():
    rng = np.random.default_rng(0)
    negative = rng.standard_normal((80, 50))
    positive = rng.standard_normal((80, 50)) + 4 * np.eye(50)[7]
    found = fit("logistic_l1", positive, negative, bootstraps=8)
    assert found.unit[7] > 0.99
    assert found.provenance["neurons"][7] == 1.0
    twins = np.concatenate([positive, positive[:, 7:8] + 0.3 * rng.standard_normal((80, 1))], axis=1)
    others = np.concatenate([negative, negative[:, 7:8] + 0.3 * rng.standard_normal((80, 1))], axis=1)
    shaky = fit("logistic_l1", twins, others, bootstraps=8, C=10.0).provenance
    assert shaky["picked_again"] < 1.0


def test_l1_without_a_weight_is_refused_with_the_C_that_has_one():
    positive, negative = few(40, 60)
    with pytest.raises(InputError, match=r"picks no neuron .* C must be above ([\d.e-]+) ") as caught:
        fit("logistic_l1", positive, negative, C=1e-6)
    least = float(str(caught.value).split("above ")[1].split()[0])
    assert fit("logistic_l1", positive, negative, C=1.05 * least, bootstraps=0).provenance["picked"] >= 1


def whitening_leace(positive, negative):
    """LEACE as its paper writes it: I - W^+ P W with W the inverse root of the covariance."""
    rows = np.concatenate([positive, negative])
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    keep = values > 1e-10 * values.max()
    roots, vectors = np.sqrt(values[keep]), vectors[:, keep]
    w, w_inverse = vectors / roots @ vectors.T, vectors * roots @ vectors.T
    u = w @ (positive.mean(0) - negative.mean(0))
    return rows - (rows - rows.mean(0)) @ w.T @ np.outer(u, u) / (u @ u) @ w_inverse.T


@pytest.mark.parametrize(
    ("n", "unequal"), [(200, 1.0), (200, 0.3), (5, 1.0)], ids=["equal", "unequal", "n<width"]
)
def test_the_eraser_is_leace(n, unequal):
    positive, negative, _, _ = gaussians(n, unequal=unequal)
    read, write, mean = eraser(evidence(positive, negative))
    rows = np.concatenate([positive, negative])
    erased = rows - np.outer((rows - mean) @ read, write)
    assert np.allclose(erased, whitening_leace(positive, negative), atol=1e-8)
    assert np.allclose(erased[: len(positive)].mean(0), erased[len(positive) :].mean(0), atol=1e-8)


def test_ablating_the_written_row_erases_and_the_read_row_does_not():
    positive, negative, _, _ = gaussians(400)
    write, read = (fit("leace", positive, negative, row=row) for row in ("write", "read"))

    def left(u):
        p, n = (rows - np.outer(rows @ u, u) for rows in (positive, negative))
        return np.linalg.norm(p.mean(0) - n.mean(0)) / np.linalg.norm(positive.mean(0) - negative.mean(0))

    assert left(write.unit.astype(float)) < 1e-6 and left(read.unit.astype(float)) > 0.3
    assert write.provenance["overlap"] == pytest.approx(write.cosine(read), abs=1e-6)
    rows = np.concatenate([positive, negative])
    assert rows.mean(0) @ read.unit + read.bias == pytest.approx(0, abs=1e-5)
    minimal, full = whitening_leace(positive, negative), rows - np.outer(rows @ write.unit, write.unit)
    centred = (
        full + rows.mean(0) @ write.unit * write.unit
    )  # ablation about the mean: same erasure, less change
    assert np.sum((minimal - rows) ** 2) < np.sum((centred - rows) ** 2)
