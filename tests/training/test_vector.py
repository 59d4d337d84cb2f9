"""The trainer against closed forms: a convex softmax layer, a ball, and an odd objective."""

import numpy as np
import pytest
from scipy.optimize import minimize

from trimtab.directions import Direction
from trimtab.errors import InputError
from trimtab.objectives import ChoiceLogRatio, ContinuationNLL
from trimtab.prompts import Prompt
from trimtab.sites import Site
from trimtab.training.vector import Term, learn_vector

WIDTH, VOCABULARY, ROWS = 6, 9, 24
SITE = Site(1)


class SoftmaxLayer:
    """logits = U (h + c v): one linear layer, for which every loss is convex in v. Row i's state is prompt
    token i.
    """

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.u = rng.normal(size=(VOCABULARY, WIDTH))
        self.h = rng.normal(size=(ROWS, WIDTH))
        self.targets = rng.integers(VOCABULARY, size=ROWS)
        self.seen = []

    def losses(self, v, rows, coefficients, objective):
        z = (self.h[rows] + np.outer(coefficients, v)) @ self.u.T
        logp = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
        p = np.exp(logp)
        if isinstance(objective, ContinuationNLL):
            target = self.targets[rows]
            dz = p.copy()
            dz[np.arange(len(rows)), target] -= 1
            return -logp[np.arange(len(rows)), target], dz
        (yes,), (no,), s = objective.yes, objective.no, np.array(objective.signs)
        gap = objective.margin - s * (logp[:, yes] - logp[:, no])
        dz = np.zeros_like(z)
        pull = s / (1 + np.exp(-gap))
        dz[:, yes], dz[:, no] = -pull, pull
        return np.logaddexp(0, gap), dz

    def gradient(self, prompts, site, vector, objective, coefficients):
        rows = [p.tokens[0] for p in prompts]
        self.seen.append((site, tuple(rows), tuple(coefficients)))
        losses, dz = self.losses(np.asarray(vector, np.float64), rows, np.array(coefficients), objective)
        return losses, np.sum(np.array(coefficients)[:, None] * (dz @ self.u), axis=0)


def nll(signs=None):
    prompts = tuple(Prompt((i,)) for i in range(ROWS))
    return Term(prompts, ContinuationNLL((1,) * ROWS), (1.0,) * ROWS, batch=ROWS)


def learn(engine, terms, **options):
    options = {"steps": 400, "rate": 0.2, "max_norm": 50.0} | options
    return learn_vector(engine, SITE, terms, name="t", width=WIDTH, typical_norm=1.0, **options)


def test_adam_and_lbfgs_agree_on_a_convex_loss():
    layer = SoftmaxLayer()
    rows = list(range(ROWS))

    def loss(v):
        losses, dz = layer.losses(v, rows, np.ones(ROWS), ContinuationNLL((1,) * ROWS))
        return losses.mean(), (dz @ layer.u).mean(0)

    best = minimize(
        loss, np.zeros(WIDTH), jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-10}
    )
    learned = learn(layer, [nll()], steps=2000)
    assert loss(learned.direction.raw.astype(float))[0] == pytest.approx(best.fun, abs=1e-3)
    assert np.allclose(learned.direction.raw, best.x, atol=1e-3 * max(1, np.linalg.norm(best.x)) * 5)


def test_first_gradient_is_the_closed_form():
    """At v = 0 the gradient is U^T (mean p − mean y)."""
    layer = SoftmaxLayer()
    term = nll()
    _, gradient = layer.gradient(term.prompts, SITE, np.zeros(WIDTH), term.objective, term.coefficients)
    z = layer.h @ layer.u.T
    p = np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True))
    y = np.eye(VOCABULARY)[layer.targets]
    assert np.allclose(gradient, layer.u.T @ (p.sum(0) - y.sum(0)))


def test_loss_falls_and_norm_stays_in_its_ball():
    learned = learn(SoftmaxLayer(), [nll()], max_norm=0.3)
    assert learned.losses[-1] < learned.losses[0]
    assert learned.direction.norm == pytest.approx(0.3, rel=1e-3)
    assert learned.direction.sign_source == "grad"
    assert isinstance(learned.direction, Direction) and learned.direction.typical_norm == 1.0


def choices(signs, coefficients):
    prompts = tuple(Prompt((i % ROWS,)) for i in range(len(signs)))
    return Term(prompts, ChoiceLogRatio((0,), (1,), tuple(signs)), tuple(coefficients), batch=8)


def test_both_signs_train_one_vector():
    """The same rows with flipped goals at ±1: afterwards +v raises the log-ratio and −v lowers it."""
    layer = SoftmaxLayer()
    term = choices([1.0] * ROWS + [-1.0] * ROWS, [1.0] * ROWS + [-1.0] * ROWS)
    v = learn(layer, [term]).direction.raw.astype(float)
    ratio = [((layer.h + c * v) @ (layer.u[0] - layer.u[1])).mean() for c in (-1, 0, 1)]
    assert ratio[0] < ratio[1] - 1 and ratio[2] > ratio[1] + 1


def test_deterministic_by_seed_and_each_row_once_per_epoch():
    runs = []
    for seed in (0, 0, 1):
        layer = SoftmaxLayer()
        term = choices([1.0] * ROWS, [1.0] * ROWS)
        learned = learn(layer, [term], steps=3, seed=seed)
        runs.append((learned.direction.raw, [rows for _, rows, _ in layer.seen]))
    assert np.array_equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert runs[0][1] != runs[2][1]
    assert sorted(r for batch in runs[0][1] for r in batch) == list(range(ROWS))


def test_terms_are_weighted():
    layer = SoftmaxLayer()
    light, heavy = nll(), Term(nll().prompts, nll().objective, nll().coefficients, weight=3.0, batch=ROWS)
    a, b = learn(layer, [light], steps=1), learn(layer, [heavy], steps=1)
    assert b.losses[0] == pytest.approx(3 * a.losses[0])


def test_refusals():
    layer = SoftmaxLayer()
    with pytest.raises(InputError, match="nothing to learn"):
        learn(layer, [])
    with pytest.raises(InputError, match="steps"):
        learn(layer, [nll()], steps=0)
    with pytest.raises(InputError, match="coefficients"):
        Term((Prompt((1,)),), ContinuationNLL((1,)), ())
    with pytest.raises(InputError, match="judges 2 rows"):
        Term((Prompt((1,)),), ContinuationNLL((1, 1)), (1.0,))
    layer.h[:] = np.nan
    with pytest.raises(InputError, match="not finite"), np.errstate(invalid="ignore"):
        learn(layer, [nll()], steps=2)
    layer = SoftmaxLayer()
    layer.u[:] = 0
    with pytest.raises(InputError, match="no gradient"):
        learn(layer, [nll()], steps=2)
