"""A public story model of 260 thousand weights: pushing along an emotion makes its continuations likelier, steadily.

y = mean log-probability per token of continuations of the target emotion less that of the other's. Layer, pooling and
sign are chosen on training contexts; the curve is read on others.
"""

import itertools

import numpy as np
import pytest

from trimtab.data.contrast import Contrast
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines import load_engine
from trimtab.evaluation.baselines import random_like
from trimtab.evaluation.calibration import searches, solve
from trimtab.evaluation.conditions import PLAIN, steered
from trimtab.evaluation.items import Item
from trimtab.evaluation.limits import limit_of
from trimtab.evaluation.samples import by_condition, item_scores, measure
from trimtab.evaluation.scorers.logprob import Logprob
from trimtab.evaluation.slopes import slopes_of
from trimtab.recipes import extract
from trimtab.sites import Site

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]

NAMES = ("Lily", "Tom", "Ben", "Mia", "Sam", "Sue", "Tim", "Anna")
PLACES = ("in the park", "at home", "in the garden", "by the tree")
#: Beginnings and endings of extraction differ from those that are scored.
GLAD = ("{n} was very happy {p}. {n} smiled and laughed", "{n} felt so glad {p}. {n} clapped and smiled")
SORRY = ("{n} was very sad {p}. {n} cried and cried", "{n} felt so upset {p}. {n} wept and cried")
CONTEXTS = ("One day, {n} went to play {p}.", "{n} saw a big dog {p}.", "{n} had a red ball {p}.")
AFTER = {
    "happy": (" She was so happy.", " He was very happy and he smiled.", " They laughed and had fun."),
    "sad": (" She was so sad.", " He was very sad and he cried.", " They were sad and wanted to cry."),
}


def contrast():
    texts = [[t.format(n=n, p=p) for t in side for n in NAMES[:4] for p in PLACES] for side in (GLAD, SORRY)]
    return Contrast("happy", *texts, paired=True)


def contexts(names):
    return [
        Item.of(c.format(n=n, p=p), continuations=AFTER)
        for c, n, p in itertools.product(CONTEXTS, names, PLACES[:2])
    ]


@pytest.fixture(scope="module")
def engine(shared_models):
    return load_engine(shared_models / "stories260K" / "hf", "transformers")


def table(engine, vectors, concept, layer, doses, items):
    """y [doses, items]."""
    conditions = [steered(vectors, concept, d, [layer]) if d else PLAIN for d in doses]
    rows = by_condition(measure(engine, items, conditions, ["happy"], [Logprob()]))
    return np.stack([item_scores(rows[c.name], "logprob", "happy") for c in conditions])


def chosen(engine, items):
    """Layer, pooling and sign with the steepest mean slope on the training contexts."""
    best = None
    for pooling in ("last", "mean_all"):
        vectors = extract(engine, contrast(), pooling=pooling)
        for layer in vectors.layers():
            doses = [-0.2, 0.0, 0.2]
            slope = float(slopes_of(doses, table(engine, vectors, "happy", layer, doses, items)).mean())
            if best is None or abs(slope) > abs(best[0]):
                best = (slope, vectors, layer)
    slope, vectors, layer = best
    d = vectors.direction("happy", Site(layer))
    flipped = (
        d if slope > 0 else Direction("happy", d.site, -d.unit, norm=d.norm, typical_norm=d.typical_norm)
    )
    return ConceptVectors.from_directions([flipped]), layer


def test_the_curve_on_held_out_contexts_rises_within_the_calibrated_range(engine):
    vectors, layer = chosen(engine, contexts(NAMES[4:6]))
    held_out = contexts(NAMES[6:])
    prompts = [i.encode(engine) for i in contexts(NAMES[4:6])]
    up, down = solve(
        engine, searches(vectors, [Site(layer)]), limit_of("kl_p95", tokens=12), prompts, steps=5
    )
    assert up.strength > 0.05 and down.strength > 0.05
    doses = [
        *np.linspace(-down.strength, 0, 4)[:-1].tolist(),
        0.0,
        *np.linspace(0, up.strength, 4)[1:].tolist(),
    ]
    found = table(engine, vectors, "happy", layer, doses, held_out)
    means = found.mean(1)
    assert np.all(np.diff(means) > 0), means.round(4)
    assert slopes_of(doses, found).min() > 0  # in every context by itself
    slope = slopes_of(doses, found).mean()
    drawn = random_like(vectors, 20, seed=1)
    null = [slopes_of(doses, table(engine, drawn, r, layer, doses, held_out)).mean() for r in drawn.concepts]
    assert slope > max(null) and slope > max(-n for n in null), (slope, sorted(null))
