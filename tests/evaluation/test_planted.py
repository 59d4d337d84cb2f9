"""Planted truths through the whole path of an evaluation: rows, slopes, others, nulls, power, coherence range."""

import numpy as np
import pytest
from scipy import stats

from evaluation.planted import CALM, JOY, NULL, TYPICAL, WIDTH, PlantedEngine
from trimtab.evaluation.conditions import PLAIN, steered
from trimtab.evaluation.items import Item
from trimtab.evaluation.samples import by_condition, item_scores, measure
from trimtab.evaluation.scorers.logprob import Logprob
from trimtab.evaluation.slopes import slopes_of, study

DOSES = [-0.5, -0.25, 0.0, 0.25, 0.5]


def items(count, *labels):
    return [Item.of(f"i{k} w1", id=f"i{k:03}", continuations={c: [c] for c in labels}) for k in range(count)]


def table(engine, vectors, concept, target, count, layer=2, doses=DOSES, labels=None):
    """Scores [doses, items] of `target` while `concept` is steered, from one call of `measure`."""
    conditions = [steered(vectors, concept, d, [layer]) if d else PLAIN for d in doses]
    rows = by_condition(
        measure(engine, items(count, *(labels or (target, "other"))), conditions, [target], [Logprob()])
    )
    return np.stack([item_scores(rows[c.name], "logprob", target) for c in conditions])


def planted(engine, layer=2):
    """Nats per dose: slope x efficacy x typical norm."""
    return engine.slope * engine.efficacy[layer] * TYPICAL


@pytest.mark.parametrize("layer", range(4))
def test_the_slope_comes_back_exactly(layer):
    engine = PlantedEngine()
    found = table(engine, engine.vectors(), "joy", "joy", 6, layer)
    expected = engine.base[:6] + planted(engine, layer) * np.array(DOSES)[:, None]
    assert found - found[2] == pytest.approx(
        expected - expected[2], abs=2e-5
    )  # log-probabilities are float32
    said = study(DOSES, found)
    ratio = slopes_of(DOSES, np.array(DOSES)[:, None])[0]  # a line in the dose is nearly one in symlog
    assert said.slope.mean == pytest.approx(planted(engine, layer) * ratio, abs=1e-4)
    assert said.line.r2 > 0.99 and said.against == 0 and said.line.asymmetry == pytest.approx(0, abs=1e-4)


def test_the_others_do_not_move_at_all():
    engine = PlantedEngine()
    vectors = engine.vectors()
    assert np.ptp(table(engine, vectors, "joy", "calm", 6), axis=0) == pytest.approx(0, abs=1e-5)
    assert np.ptp(table(engine, vectors, "calm", "calm", 6), axis=0).min() > 1


def test_a_direction_that_nothing_reads_does_nothing():
    engine = PlantedEngine()
    found = table(engine, engine.vectors(null=NULL), "null", "joy", 6)
    assert np.ptp(found, axis=0).max() < 1e-5


@pytest.mark.slow
def test_null_vectors_give_uniform_p():
    """Each item is coupled to the vector by a coupling of its own, of mean 0: p is uniform over vectors."""
    p = []
    for seed in range(80):
        engine = PlantedEngine(noise=1.0, seed=seed)
        row = np.random.default_rng(seed).normal(size=WIDTH)
        row[:8] = 0
        found = table(engine, engine.vectors(null=row), "null", "joy", 11, doses=[-0.5, 0.0, 0.5])
        p.append(study([-0.5, 0.0, 0.5], found).p_items)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) < 0.05) < 0.13


@pytest.mark.slow
def test_a_planted_effect_of_half_a_standard_deviation_is_found():
    """n = 64 items, d = .5: power > .9."""
    found = []
    for seed in range(20):
        engine = PlantedEngine(noise=1.0, slope=0.5, seed=seed)
        row = np.random.default_rng(seed).normal(size=WIDTH)
        row[:8] = 0
        row = JOY + row / np.linalg.norm(row)  # equal parts: slope .5 against an SD of 1 over items
        scores = table(engine, engine.vectors(joy=row), "joy", "joy", 64, doses=[-0.5, 0.0, 0.5])
        found.append(study([-0.5, 0.0, 0.5], scores).p_items < 0.05)
    assert np.mean(found) > 0.9


@pytest.mark.parametrize("breaks", [0.3, 0.6])
def test_the_coherence_range_is_where_it_was_planted(breaks):
    """Text falls apart once the push is longer than `breaks` typical norms (efficacy 1)."""
    engine = PlantedEngine(breaks=breaks * TYPICAL)
    doses = [-0.8, -0.6, -0.4, -0.2, 0.0, 0.1, 0.3, 0.5, 0.7]
    conditions = [steered(engine.vectors(), "joy", d, [2]) if d else PLAIN for d in doses]
    rows = by_condition(measure(engine, items(4, "joy", "other"), conditions, ["joy"], [Logprob()]))
    # Junk takes the mass: the answers together hold next to nothing.
    mass = [
        np.exp(np.logaddexp(*(rows[c.name][0]["continuations"][k][0][0] for k in ("joy", "other"))))
        for c in conditions
    ]
    scores = np.stack([item_scores(rows[c.name], "logprob", "joy") for c in conditions])
    good = np.array(mass) > 1e-6
    found = study(doses, scores, good=good)
    inside = [d for d in doses if abs(d) <= breaks]
    assert found.coherence_range == (min(inside), max(inside))


def test_all_conditions_share_one_call():
    engine = PlantedEngine()
    table(engine, engine.vectors(), "joy", "joy", 8)
    assert engine.calls == 1
    assert CALM @ JOY == 0
