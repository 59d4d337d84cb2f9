"""Readouts on planted states: a shared direction holds off its own data, a corpus's own marker does not."""

import numpy as np
import pytest

from trimtab.directions import ConceptVectors, Direction
from trimtab.engines import load_engine
from trimtab.engines.requests import Sampling
from trimtab.errors import InputError
from trimtab.evaluation.readout.controls import control_scores, sentiment
from trimtab.evaluation.readout.cross import cross
from trimtab.evaluation.readout.matrix import Corpus, grouped_auc, matrix
from trimtab.extraction import make
from trimtab.sites import Site

SITES = (Site(0), Site(1))
WIDTH, N = 12, 40
WORDS = ["river", "stone", "table", "window", "garden", "letter", "paper", "chair"]


def corpus(name, marker=None, seed=0, words=None):
    """States whose sides differ along axis 0 at layer 1, and along a marker of this corpus alone at layer 0."""
    rng = np.random.default_rng(seed)
    sign = np.repeat([1.0, -1.0], N)[:, None]
    base = {s: rng.normal(size=(2 * N, WIDTH)) for s in SITES}
    base[Site(1)][:, :1] += 2 * sign
    if marker is not None:
        base[Site(0)][:, marker : marker + 1] += 4 * sign
    said = [" ".join(rng.choice(words or WORDS, 6)) for _ in range(2 * N)]
    return Corpus(name, base, N, tuple(said), tuple(f"{name}{i % N}" for i in range(2 * N)), True)


METHOD = make("mean_diff")


def test_a_shared_direction_is_a_readout_and_a_marker_is_none():
    found = matrix([corpus("a", marker=3, seed=1), corpus("b", marker=7, seed=2)], METHOD)
    cells = {(e.train, e.unseen, e.site.layer): e for e in found.entries}
    assert len(cells) == 8
    assert cells["a", "b", 1].auc > 0.95 and cells["a", "b", 1].holds
    own, other = cells["a", "a", 0], cells["a", "b", 0]
    assert own.auc > 0.95 and own.own  # its own halves show the marker ...
    assert 0.2 < other.auc < 0.8 and not other.holds  # ... which the other corpus does not have
    # The layer is chosen on the training corpus alone, which prefers its marker: the verdict says what comes of it.
    a = found.verdicts[0]
    assert a.site == Site(0) and not a.readout and a.fails_on == ("b",)
    clean = matrix([corpus("a", seed=1), corpus("b", seed=2)], METHOD)
    assert all(v.readout and v.site == Site(1) for v in clean.verdicts)


def test_a_direction_that_length_explains_is_no_readout():
    """Both corpora differ in length too: the control reaches 1, and nothing can be above it."""

    def longer(c):
        texts = tuple(t + " and so on" if i < N else t for i, t in enumerate(c.texts))
        return Corpus(c.name, c.rows, c.positives, texts, c.groups, c.paired)

    found = matrix([longer(corpus("a", seed=1)), longer(corpus("b", seed=2))], METHOD)
    assert all(e.controls["length"] == 1.0 and not e.holds for e in found.entries)
    assert not any(v.readout for v in found.verdicts)


def test_controls():
    train = (["a happy friend", "a good day"], ["a sad enemy", "a bad dark day"])
    found = control_scores(train, ["happy good", "sad bad bad words here"])
    assert found["sentiment"][0] > found["sentiment"][1] and sentiment("happy sad") == 0
    assert found["length"][0] > found["length"][1]  # the positives were shorter: shorter counts as positive
    assert found["topic"][0] > found["topic"][1]


def test_grouped_intervals_are_wider_where_texts_are_copies():
    rng = np.random.default_rng(0)
    single = np.concatenate([rng.normal(0.5, 1, 20), rng.normal(-0.5, 1, 20)])
    copies = np.concatenate([np.repeat(single[:20], 5), np.repeat(single[20:], 5)])
    alone = grouped_auc(copies, 100, [str(i) for i in range(200)])
    grouped = grouped_auc(
        copies, 100, [f"p{i // 5}" for i in range(100)] + [f"n{i // 5}" for i in range(100)]
    )
    assert alone[0] == grouped[0]
    assert (grouped[2] - grouped[1]) > 1.8 * (alone[2] - alone[1])  # about √5


def test_one_corpus_and_needy_methods_are_refused():
    with pytest.raises(InputError, match="at least two"):
        matrix([corpus("a")], METHOD)
    from trimtab.errors import Unsupported

    with pytest.raises(Unsupported, match="gradients"):
        matrix([corpus("a"), corpus("b")], make("grad_mean"))


def test_steering_a_planted_concept_moves_its_own_reading_most():
    engine = load_engine("tiny", "reference")
    directions = [
        Direction(name, Site(layer), engine.planted[name], norm=3.0, typical_norm=6.0)
        for name in ("joy", "formality")
        for layer in (1, 3)
    ]
    vectors = ConceptVectors.from_directions(directions)
    prompts = ["we feel really", "they look so", "you seem", "I stay very"]
    found = cross(
        engine,
        vectors,
        prompts,
        dose=0.6,
        steer=Site(1),
        read=Site(3),
        sampling=Sampling(max_tokens=8),
        random=5,
    )
    assert found.strongest == (True, True) and not found.same_site and found.n == 4
    high = found.null[0][1]
    assert found.change[0][0].mean > high  # further than any random direction of the same dose
    with pytest.raises(InputError, match="does not reach"):
        cross(engine, vectors, prompts, dose=0.6, steer=Site(3), read=Site(1))
