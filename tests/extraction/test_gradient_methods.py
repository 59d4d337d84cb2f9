"""The gradient methods against closed forms, on planted gradients."""

import decimal

import numpy as np
import pytest

from trimtab.errors import InputError, UnknownName
from trimtab.evidence import Evidence
from trimtab.extraction import make
from trimtab.sites import Site

PAIRS, WIDTH = 12, 40


def evidence(pairs=PAIRS, width=WIDTH, seed=0, gradients=None):
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((2, pairs, width))
    g = rng.standard_normal((2, pairs, width)) if gradients is None else gradients
    s = rng.uniform(0.5, 2.0, (2, pairs))
    found = Evidence.from_rows(Site(0), *states, {"mean"})
    both = (
        dict(zip(("positive", "negative"), g, strict=True)),
        dict(zip(("positive", "negative"), s, strict=True)),
    )
    object.__setattr__(found, "gradients", both[0])
    object.__setattr__(found, "loss_norms", both[1])
    object.__setattr__(found, "needs", frozenset({"mean", "gradients"}))
    return found, np.concatenate(g), np.concatenate(s)


def raw(found, **knobs):
    return make("fisher", **knobs)._raw(found, "happy")


@pytest.mark.parametrize("pairs", [PAIRS, 3 * WIDTH], ids=["few", "many"])
@pytest.mark.parametrize("ridge", [1.0, 1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("kind", ["ief", "empirical", "cov"])
def test_it_equals_the_dense_solve(kind, ridge, pairs):
    found, g, s = evidence(pairs)
    centred = g - g.mean(0)
    dense = {
        "ief": g.T @ (g / s[:, None]) / len(g),
        "empirical": g.T @ g / len(g),
        "cov": centred.T @ centred / (len(g) - 1),
    }[kind]
    mean = (g[pairs:].mean(0) - g[:pairs].mean(0)) / 2
    expected = np.linalg.solve(dense + ridge * np.eye(WIDTH), mean)
    vector, known = raw(found, kind=kind, ridge=ridge)
    # The dense solve itself loses digits as the ridge becomes small.
    assert np.linalg.norm(vector - expected) <= 1e-14 / min(ridge, 1e-2) * 1e2 * np.linalg.norm(expected)
    assert known["ridge_used"] == ridge


def woodbury(g, s, ridge, mean):
    """(F + ridge)^-1 mean by the identity with an [N, N] solve, F = A.T A the improved empirical Fisher."""
    a = g / np.sqrt(s * len(g))[:, None]
    return (mean - a.T @ np.linalg.solve(a @ a.T + ridge * np.eye(len(a)), a @ mean)) / ridge


def exact(g, s, ridge, pairs):
    """The same of the signed mean, all in 60 decimal digits: the [width, width] system by Cholesky."""
    with decimal.localcontext(decimal.Context(prec=60)):
        number = np.vectorize(decimal.Decimal, otypes=[object])
        a, b, m = number(g), number(s), len(g)
        f = (a / b[:, None]).T @ a / decimal.Decimal(m) + np.diag(number(np.full(g.shape[1], ridge)))
        n = len(f)
        low = number(np.zeros((n, n)))
        for i in range(n):
            for j in range(i + 1):
                rest = f[i, j] - sum((low[i, k] * low[j, k] for k in range(j)), decimal.Decimal(0))
                low[i, j] = rest.sqrt() if i == j else rest / low[j, j]
        y = (a[pairs:].sum(0) - a[:pairs].sum(0)) / decimal.Decimal(m)
        for i in range(n):
            y[i] = (y[i] - sum((low[i, k] * y[k] for k in range(i)), decimal.Decimal(0))) / low[i, i]
        for i in reversed(range(n)):
            y[i] = (y[i] - sum((low[k, i] * y[k] for k in range(i + 1, n)), decimal.Decimal(0))) / low[i, i]
        return y.astype(float)


#: Ridge, and the relative error that the direct solve and the Woodbury identity stay under, for |F| of about 4: both
#: lose digits as the condition |F| / ridge grows (5, 4e2, 4e4, 4e8); the factor's own singular vectors lose none.
REACHED = [(1.0, 1e-14, 1e-14), (1e-2, 1e-13, 1e-12), (1e-4, 1e-11, 1e-10), (1e-8, 1e-7, 1e-6)]


@pytest.mark.parametrize(("ridge", "direct", "identity"), REACHED)
def test_it_holds_its_digits_where_woodbury_and_a_direct_solve_lose_theirs(ridge, direct, identity):
    found, g, s = evidence(6, 16)
    mean = (g[6:].mean(0) - g[:6].mean(0)) / 2
    truth = exact(g, s, ridge, 6)

    def error(vector):
        return float(np.linalg.norm(vector - truth) / np.linalg.norm(truth))

    dense = g.T @ (g / s[:, None]) / len(g) + ridge * np.eye(16)
    errors = {
        "ours": error(raw(found, ridge=ridge)[0]),
        "direct": error(np.linalg.solve(dense, mean)),
        "woodbury": error(woodbury(g, s, ridge, mean)),
    }
    assert errors["ours"] < 1e-13, errors
    assert errors["direct"] < direct and errors["woodbury"] < identity, errors
    if ridge < 1e-3:
        assert min(errors["direct"], errors["woodbury"]) > 10 * errors["ours"], errors


@pytest.mark.parametrize("mean", ["signed", "plain"])
def test_without_a_ridge_ief_changes_every_rows_loss_by_its_own_s(mean):
    found, g, s = evidence()
    vector, _ = raw(found, ridge=0.0, mean=mean)
    sigma = np.repeat([1.0, -1.0], PAIRS)
    assert np.allclose(g @ vector, s if mean == "plain" else -sigma * s, atol=1e-9)


@pytest.mark.parametrize("kind", ["ief", "empirical", "cov"])
def test_a_large_ridge_gives_the_mean_gradient(kind):
    found, _, _ = evidence()
    far = make("fisher", kind=kind, ridge=1e9).fit(found, "happy")
    assert far.cosine(make("grad_mean").fit(found, "happy")) > 1 - 1e-6
    near = make("fisher", kind=kind, ridge=1e-3).fit(found, "happy")
    assert near.cosine(make("grad_mean").fit(found, "happy")) < 0.99


def test_ridges_resolve_as_they_say():
    found, g, s = evidence()
    trace = float(np.sum(g**2 / s[:, None])) / len(g) / WIDTH
    assert raw(found)[1]["ridge_used"] == pytest.approx(max(1e-6, 0.01 * trace))
    assert raw(found, ridge_relative=0.5)[1]["ridge_used"] == pytest.approx(0.5 * trace)
    with pytest.raises(InputError, match="not both"):
        make("fisher", ridge=1.0, ridge_relative=1.0)
    with pytest.raises(UnknownName, match="ief"):
        make("fisher", kind="kfac")


def test_duals_are_what_their_names_say():
    found, _, _ = evidence()
    parts = {d: raw(found, dual=d, ridge=0.1)[0] for d in ("pos", "neg", "diff", "mean")}
    assert np.allclose(parts["diff"], parts["pos"] - parts["neg"])
    assert np.allclose(parts["mean"], (parts["pos"] + parts["neg"]) / 2)


def test_sides_that_cancel_are_refused_for_the_plain_mean_only():
    g = np.random.default_rng(1).standard_normal((PAIRS, WIDTH))
    found, _, _ = evidence(gradients=np.stack([-g, g]))
    with pytest.raises(InputError, match="mean='signed'"):
        raw(found, mean="plain")
    assert np.allclose(make("grad_mean")._raw(found, "happy")[0], g.mean(0))


def test_svd_gradient_is_the_top_singular_vector_of_the_centred_rows():
    found, g, _ = evidence()
    top = np.linalg.svd(g - g.mean(0))[2][0]
    vector = make("svd_gradient").fit(found, "happy")
    assert abs(vector.unit @ top) > 1 - 1e-6
    assert (g[PAIRS:] - g[:PAIRS]).mean(0) @ vector.unit > 0
