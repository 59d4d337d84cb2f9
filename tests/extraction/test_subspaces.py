"""Closed forms of the token and weight methods, on evidence made by hand."""

import dataclasses

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evidence import STREAMED_NEEDS, Evidence
from trimtab.extraction import make
from trimtab.extraction.method import ExtractionWarning
from trimtab.extraction.projectors import span, top_of
from trimtab.extraction.s_space import basis_of
from trimtab.sites import Site

pytestmark = pytest.mark.filterwarnings("ignore::trimtab.extraction.method.ExtractionWarning")
WIDTH, PAIRS, SITE = 24, 8, Site(3)
RNG = np.random.default_rng
ALIKE = 1e-9


def cos(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def stories(count=12, tokens=6, width=64, seed=0, shared=True):
    """Texts [tokens, width]: private random subspaces, and in the positive ones a shared direction."""
    rng = RNG(seed)
    t = RNG(99).standard_normal(width)
    t /= np.linalg.norm(t)

    def text(with_t):
        x = rng.standard_normal((tokens, width))
        x -= np.outer(x @ t, t)
        return x + 50 * np.outer(rng.standard_normal(tokens) + 1, t) if with_t else x

    texts = {
        "positive": tuple(text(shared) for _ in range(count)),
        "negative": tuple(text(False) for _ in range(count)),
    }
    means = [np.stack([x.mean(0) for x in texts[g]]) for g in ("positive", "negative")]
    evidence = Evidence.from_rows(SITE, *means, {"mean"})
    return t, dataclasses.replace(evidence, tokens=texts, needs=evidence.needs | {"tokens"})


def dense(evidence, **knobs):
    """Eigenvalues, falling, and rows of the difference of mean projectors, formed."""
    total = 0
    for side, sign in (("positive", 1), ("negative", -1)):
        for x in evidence.tokens[side]:
            v, w = span(x, **knobs)
            total = total + sign * (v.T * w) @ v / len(evidence.tokens[side])
    values, vectors = np.linalg.eigh(total)
    return values[::-1], vectors[:, ::-1].T


@pytest.mark.parametrize("tokens", [1, 2, 6], ids=["qr", "qr-wide", "lanczos"])
@pytest.mark.parametrize("soft", [False, True])
def test_the_top_of_the_difference_is_that_of_a_dense_solve(tokens, soft):
    _, evidence = stories(tokens=tokens)
    values, vectors = dense(evidence, soft=soft)
    found = make("subspace", k=3, weights="soft" if soft else "full").fit(evidence, "x")
    np.testing.assert_allclose(found.provenance["eigenvalues"], values[:3], atol=1e-10)
    mean = evidence.mean["positive"] - evidence.mean["negative"]
    expected = sum(values[j] * (vectors[j] @ mean) * vectors[j] for j in range(3))
    assert cos(found.raw, expected) > 1 - 1e-6
    assert np.linalg.norm(found.raw) == pytest.approx(np.linalg.norm(expected), rel=1e-5)
    assert found.basis.shape == (3, 64)


def test_a_shared_direction_leads_with_eigenvalue_near_one():
    t, evidence = stories(count=40, tokens=6, width=256)
    found = make("subspace", k=1).fit(evidence, "x")
    assert found.basis[0] @ t > 0.95 and found.unit @ t > 0.95
    assert found.provenance["eigenvalues"][0] > 0.95
    _, without = stories(count=40, tokens=6, width=256, shared=False)
    assert make("subspace", k=1).fit(without, "x").provenance["eigenvalues"][0] < 0.5


def test_soft_weights_rescue_texts_that_span_everything():
    t, evidence = stories(tokens=40, width=24)
    with pytest.raises(InputError, match="weights=soft"):
        noisy = {
            g: tuple(x + 1e-3 * RNG(i).standard_normal(x.shape) for i, x in enumerate(v))
            for g, v in evidence.tokens.items()
        }
        make("subspace").fit(dataclasses.replace(evidence, tokens=noisy), "x")
    soft = make("subspace", k=1, weights="soft").fit(dataclasses.replace(evidence, tokens=noisy), "x")
    assert soft.basis[0] @ t > 0.9


def test_the_oriented_sum():
    _, evidence = stories()
    values, vectors = dense(evidence)
    mean = evidence.mean["positive"] - evidence.mean["negative"]
    expected = sum(values[j] * np.sign(vectors[j] @ mean) * vectors[j] for j in range(5))
    assert cos(make("subspace", mode="oriented_sum").fit(evidence, "x").raw, expected) > 1 - 1e-6


def test_a_further_part_is_added():
    rng = RNG(4)
    rows_, extra = rng.standard_normal((5, 40)), np.diag(rng.uniform(-1, 0, 40))
    values, _ = top_of(rows_, np.ones(5), 2, rest=lambda x: extra @ x)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(rows_.T @ rows_ + extra)[::-1][:2], atol=1e-10)


# --- coordinates of the weights ---


def touched(seed=0, weights=None):
    site = Site(3, "o")
    rng = RNG(seed)
    t, base = rng.standard_normal(WIDTH), rng.standard_normal((40, WIDTH))
    evidence = Evidence.from_rows(site, base + t, base + rng.standard_normal((40, WIDTH)), STREAMED_NEEDS)
    weights = {site.key: rng.standard_normal((WIDTH, 48))} if weights is None else weights
    return dataclasses.replace(evidence, weights=weights, needs=evidence.needs | {"weights"})


def test_a_whole_basis_is_the_mean_difference_and_truncation_is_not():
    evidence = touched()
    mean = evidence.mean["positive"] - evidence.mean["negative"]
    with pytest.warns(ExtractionWarning, match="that is mean_diff"):
        whole = make("s_space", r=WIDTH).fit(evidence, "x")
    np.testing.assert_allclose(whole.raw, mean, rtol=1e-5, atol=1e-5)
    assert whole.provenance["mean_kept"] == pytest.approx(1)
    u = np.linalg.svd(evidence.weights["layer_3.o"])[0]
    cut = make("s_space", r=5).fit(evidence, "x")
    np.testing.assert_allclose(cut.raw, u[:, :5] @ u[:, :5].T @ mean, atol=1e-5)
    assert cos(cut.raw, mean) < 0.9


def test_selection_by_shift_keeps_more_of_the_mean_difference():
    evidence = touched()
    kept = {
        s: make("s_space", r=6, select=s).fit(evidence, "x").provenance["mean_kept"]
        for s in ("sigma", "shift")
    }
    assert kept["shift"] > kept["sigma"]
    assert make("s_space", r=6, select="thirds").fit(evidence, "x").provenance["directions"] <= 6


def test_whitening_divides_by_the_singular_values():
    evidence = touched()
    mean = evidence.mean["positive"] - evidence.mean["negative"]
    u, sigma, _ = np.linalg.svd(evidence.weights["layer_3.o"])
    for power in (0.5, 1.0):
        assert (
            cos(make("s_space", whiten=power).fit(evidence, "x").raw, u @ (sigma**-power * (u.T @ mean)))
            > 1 - 1e-6
        )


def test_projecting_and_averaging_commute_and_pca_only_over_a_whole_unwhitened_basis():
    evidence = touched()
    u, sigma = basis_of(evidence.site, evidence.weights)
    d = evidence.rows["positive"] - evidence.rows["negative"]
    np.testing.assert_allclose((d @ u[:, :5]).mean(0), d.mean(0) @ u[:, :5])
    before = np.linalg.svd(d - d.mean(0))[2][0]

    def inside(basis, scale=1.0):
        s = (d @ basis) * scale
        return basis @ (np.linalg.svd(s - s.mean(0))[2][0] / scale)

    assert abs(cos(inside(u), before)) > 1 - 1e-9
    truncated = u[:, :8] @ u[:, :8].T @ before
    assert abs(cos(inside(u[:, :8]), truncated)) < 0.99
    assert abs(cos(inside(u, sigma**-0.5), before)) < 0.99


def test_a_residual_site_pools_writers_and_readers():
    rng = RNG(5)
    weights = {
        "layer_3.o": rng.standard_normal((WIDTH, 8)),
        "layer_3.down": rng.standard_normal((WIDTH, 30)),
        "layer_4.q": rng.standard_normal((16, WIDTH)),
    }
    u, sigma = basis_of(Site(3), weights)
    moment = (
        sum(w @ w.T for k, w in weights.items() if k != "layer_4.q")
        + weights["layer_4.q"].T @ weights["layer_4.q"]
    )
    np.testing.assert_allclose((u * sigma**2) @ u.T, moment, atol=1e-9)
    assert np.all(np.diff(sigma) <= 0)
