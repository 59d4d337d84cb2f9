"""Closed forms of the token and weight methods, on evidence made by hand."""

import dataclasses

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evidence import STREAMED_NEEDS, Evidence
from trimtab.extraction import davidson, make
from trimtab.extraction.davidson import tops
from trimtab.extraction.method import ExtractionWarning
from trimtab.extraction.projectors import Together, span, top_of
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


@pytest.mark.parametrize(
    ("tokens", "count"), [(1, 12), (2, 12), (3, 10), (6, 12)], ids="qr qr-wide davidson lanczos".split()
)
@pytest.mark.parametrize("soft", [False, True])
def test_the_top_of_the_difference_is_that_of_a_dense_solve(tokens, count, soft):
    _, evidence = stories(tokens=tokens, count=count)
    if (tokens, count) == (3, 10):  # 30 rows a side: few enough of them positive, too many in all for QR
        evidence = beside(evidence, more=15)
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


def beside(evidence, more):
    """The same evidence with further negative texts."""
    extra = tuple(RNG(40 + i).standard_normal((3, evidence.width)) for i in range(more))
    texts = {**evidence.tokens, "negative": (*evidence.tokens["negative"], *extra)}
    return dataclasses.replace(evidence, tokens=texts)


def test_a_shared_part_is_taken_off_every_matrix():
    rng = RNG(4)
    parts = [rng.standard_normal((r, 60)) for r in (5, 9, 20, 5)] * 6  # more than are solved together
    low = rng.standard_normal((60, 60))
    low = -low @ low.T / 60
    found = tops(parts, 4, lambda x: low @ x, -np.trace(low) / 60)
    for c, (values, vectors) in zip(parts, found, strict=True):
        expected, exact = np.linalg.eigh(c.T @ c + low)
        np.testing.assert_allclose(values, expected[::-1][:4], atol=1e-10)
        np.testing.assert_allclose(np.abs(np.diag(vectors @ exact[:, ::-1][:, :4])), 1, atol=1e-10)


def test_a_leading_direction_is_found_behind_many_that_the_shared_part_takes_away():
    """30 directions are stronger in the matrix's own part than the three that remain once the shared part is off."""
    axes = np.linalg.qr(RNG(6).standard_normal((200, 40)))[0].T
    own = np.sqrt(np.r_[np.full(30, 5.0), 1.0, 0.9, 0.8, np.full(7, 0.1)])[:, None] * axes
    shared = axes[:30]
    ((values, vectors),) = tops([own], 2, lambda x: -5.0 * shared.T @ (shared @ x), 150 / 200)
    np.testing.assert_allclose(values, [1.0, 0.9], atol=1e-12)
    assert abs(vectors[0] @ axes[30]) > 1 - 1e-10


def test_a_matrix_of_lower_rank_gives_what_it_has():
    ((values, _),) = tops([np.eye(2, 50)], 5, lambda x: 0.0 * x, 0.0)
    np.testing.assert_allclose(values, [1, 1], atol=1e-12)


def test_a_search_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr(davidson, "ROUNDS", 1)
    rows, low = RNG(1).standard_normal((20, 80)), RNG(2).standard_normal((80, 80))
    with pytest.raises(InputError, match="did not converge in 1 rounds"):
        tops([rows], 5, lambda x: -(low @ (low.T @ x)), 80.0)


# --- concepts that are each other's negatives


def concepts(count=5, each=3, tokens=2, width=96, seed=0):
    """Evidence of every concept against all the others' texts, which are the same arrays everywhere, and a neutral
    text that is nobody's positive."""
    told = []
    for i in range(count):
        t, rng = RNG(900 + i).standard_normal(width), RNG(seed + i)
        told.append(
            tuple(
                rng.standard_normal((tokens, width)) + np.outer(1 + rng.random(tokens), 2 * t)
                for _ in range(each)
            )
        )
    neutral = (RNG(77).standard_normal((4, width)),)
    for i, own in enumerate(told):
        texts = {
            "positive": own,
            "negative": (*(x for j, more in enumerate(told) if j != i for x in more), *neutral),
        }
        means = [np.stack([x.mean(0) for x in texts[g]]) for g in ("positive", "negative")]
        evidence = Evidence.from_rows(SITE, *means, {"mean"}, paired=False)
        yield dataclasses.replace(evidence, tokens=texts, needs=evidence.needs | {"tokens"})


@pytest.mark.parametrize("count", [5, 24], ids=["rows", "formed"])
@pytest.mark.parametrize("knobs", [{}, {"weights": "soft"}, {"rank": 1}], ids=str)
def test_concepts_fitted_together_are_those_fitted_alone(count, knobs, monkeypatch):
    given = list(concepts(count))
    method, names = make("subspace", k=3, **knobs), [str(i) for i in range(count)]
    alone = [method.fit(e, n) for e, n in zip(given, names, strict=True)]
    monkeypatch.setattr("trimtab.extraction.subspace.top_of", lambda *_: pytest.fail("one by one"))
    for one, other in zip(alone, method.fit_site(given, names), strict=True):
        np.testing.assert_allclose(one.provenance["eigenvalues"], other.provenance["eigenvalues"], atol=1e-9)
        assert cos(one.unit, other.unit) > 1 - 1e-6 and one.norm == pytest.approx(other.norm, rel=1e-6)


def test_concepts_that_cannot_be_solved_together_are_solved_alone(monkeypatch):
    repeated = list(concepts(8))
    texts = repeated[0].tokens
    repeated[0] = dataclasses.replace(
        repeated[0], tokens={**texts, "negative": (*texts["negative"], texts["negative"][0])}
    )
    calls = []
    monkeypatch.setattr("trimtab.extraction.subspace.top_of", lambda *a: calls.append(a) or top_of(*a))
    found = list(make("subspace").fit_site(repeated, list("abcdefgh")))
    assert len(calls) == 1 and len(found) == 8
    expected, _ = dense(repeated[0])
    np.testing.assert_allclose(found[0].provenance["eigenvalues"], expected[:5], atol=1e-10)
    calls.clear()
    list(make("subspace").fit_site([stories(seed=s)[1] for s in (1, 2)], ["x", "y"]))
    assert len(calls) == 2  # they share no text


def test_the_texts_of_all_concepts_are_summed_once():
    given = list(concepts(6))
    summed = []
    texts = [x for e in given for x in (*e.tokens["positive"], *e.tokens["negative"])]
    Together(texts, lambda x: summed.append(id(x)) or span(x))
    assert len(summed) == len(set(summed)) == 6 * 3 + 1


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


def test_coordinates_of_outputs_and_of_inputs_are_the_same_once_both_are_whitened():
    """(y - b) U / sqrt(sigma) = x V sqrt(sigma): S-space is one space, seen from behind a matrix or from before it."""
    evidence, rng = touched(), RNG(7)
    weight = evidence.weights["layer_3.o"].astype(float)
    u, sigma, v = np.linalg.svd(weight, full_matrices=False)
    ours, found = basis_of(evidence.site, evidence.weights)
    x, bias = rng.standard_normal((30, 48)), rng.standard_normal(WIDTH)
    y = x @ weight.T + bias
    np.testing.assert_allclose((y - bias) @ u / np.sqrt(sigma), x @ v.T * np.sqrt(sigma), atol=1e-12)
    np.testing.assert_allclose(found, sigma, rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(ours * u, 0)), 1, atol=1e-6)


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
