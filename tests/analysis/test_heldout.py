"""Held-out figures: honest on nothing, right on something, and blind to what groups would leak."""

import dataclasses

import numpy as np
import pytest
from made import sample

import worlds
from trimtab.analysis.quality.halves import split_half
from trimtab.analysis.quality.heldout import auc, cross_scores, fixed_scores, folds, held_out, random_aucs
from trimtab.analysis.quality.samples import pick
from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE
from trimtab.extraction import make
from trimtab.extraction.mean_diff import MeanDiff

MEAN = make("mean_diff")


def null(seed, n=24, width=16, paired=True):
    return sample(*np.random.default_rng(seed).standard_normal((2, n, width)), paired=paired)


def judge(s, seed=0, method=MEAN):
    fold = folds(s, seed)
    return held_out(s, cross_scores(s, method, fold), True, seed=seed)


def test_a_planted_direction_is_held_out_perfectly():
    world = worlds.planted(noise=1.0)
    found = judge(sample(world.positive, world.negative))
    assert found.pair_accuracy.value == 1 and found.auc.value > 0.6
    assert (found.folds, found.groups, found.refitted) == (5, 64, True)


@pytest.mark.parametrize("paired", [True, False])
def test_random_labels_average_one_half(paired):
    """30 draws; their mean has a standard error of about .02."""
    found = [auc(s, cross_scores(s, MEAN, folds(s, k))) for k in range(30) for s in [null(k, paired=paired)]]
    assert abs(np.mean(found) - 0.5) < 0.05


def test_pooling_the_folds_would_blur_the_sides():
    """States share a large part, which every fold's direction sees a little differently."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 30, 24)) + 100 * worlds.unit(24, 5)
    s = sample(noise[0] + 2 * worlds.unit(24, 1), noise[1], paired=False)
    scores = cross_scores(s, MEAN, folds(s))
    pooled = type(scores)(scores.values, np.zeros(len(scores.values), int))
    assert auc(s, scores) > 0.8 > auc(s, pooled)


def test_intervals_cover_one_half_on_random_labels():
    found = [judge(null(seed), seed).auc for seed in range(40)]
    assert np.mean([i.low <= 0.5 <= i.high for i in found]) > 0.8


def test_auc_is_the_mean_of_the_folds_own():
    roc = pytest.importorskip("sklearn.metrics").roc_auc_score
    world = worlds.planted(n=30, shift=0.5, noise=2.0)
    s = sample(world.positive, world.negative)
    scores = cross_scores(s, MEAN, folds(s))
    label = np.arange(60) < 30
    parts = [
        (roc(label[f], scores.values[f]), label[f].sum() ** 2) for k in range(5) for f in [scores.fold == k]
    ]
    values, weights = zip(*parts)
    assert auc(s, scores) == pytest.approx(np.average(values, weights=weights))


def test_copies_in_one_group_do_not_leak():
    """Six noisy copies of each text with a random label: without groups they look learnable, and are not."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((40, 200))
    rows = np.repeat(base, 6, 0) + 0.1 * rng.standard_normal((240, 200))
    names = [str(i) for i in np.repeat(np.arange(40), 6)]
    groups = {POSITIVE: names[:120], NEGATIVE: names[120:]}
    honest = judge(sample(rows[:120], rows[120:], False, groups)).auc
    fooled = judge(sample(rows[:120], rows[120:], False)).auc.value
    assert fooled > 0.95 and honest.low < 0.5 < fooled and honest.value < 0.75


def test_a_group_is_never_split():
    names = [str(i // 3) for i in range(30)]
    s = sample(
        *np.random.default_rng(0).standard_normal((2, 30, 4)), True, {POSITIVE: names, NEGATIVE: names}
    )
    for part in (folds(s), s.deal(2, np.random.default_rng(1))):
        assert all(len(set(part[s.group == g])) == 1 for g in range(s.groups))


def test_the_best_of_many_sites_needs_a_wider_interval():
    world = worlds.planted(n=30, shift=0.5, noise=2.0)
    s = sample(world.positive, world.negative)
    scores = cross_scores(s, MEAN, folds(s))
    one, many = held_out(s, scores, True, 1), held_out(s, scores, True, 40)
    assert one.low_over_sites == one.auc.low and many.low_over_sites < many.auc.low == one.auc.low


def test_a_finished_vector_is_read_without_a_refit():
    world = worlds.planted(noise=1.0)
    s = sample(world.positive, world.negative)
    found = held_out(s, fixed_scores(s, world.truth), False)
    assert (found.folds, found.refitted) == (0, False) and found.pair_accuracy.value == 1
    assert auc(s, fixed_scores(s, -world.truth)) == pytest.approx(1 - found.auc.value)


def test_one_group_cannot_be_held_out():
    names = ["a"] * 4
    s = sample(*np.random.default_rng(0).standard_normal((2, 4, 4)), True, {POSITIVE: names, NEGATIVE: names})
    with pytest.raises(InputError, match="at least two groups"):
        folds(s)


@pytest.mark.parametrize("name", ["mean_diff", "pca_diff", "pca_diff_uncentered"])
def test_a_part_gives_what_its_rows_alone_would(name):
    world = worlds.shared_shift()
    s = sample(world.positive, world.negative)
    at = np.array([5, 1, 9, 30, 22])
    part = pick(s.evidence, make(name), at, at + s.positives)
    alone = sample(world.positive[at], world.negative[at]).evidence
    with np.errstate(all="ignore"), pytest.warns() if name == "pca_diff" else _quiet():
        assert abs(make(name).fit(part, "x").unit @ make(name).fit(alone, "x").unit) == pytest.approx(
            1, abs=1e-6
        )


def _quiet():
    import contextlib

    return contextlib.nullcontext()


# --- halves


def test_halves_of_a_planted_direction_agree_and_spearman_brown_extrapolates():
    world = worlds.planted(n=60, shift=1.0, noise=1.0)
    found = split_half(sample(world.positive, world.negative), MEAN)
    assert found.cosine > found.chance_high
    assert found.whole == pytest.approx(2 * found.cosine / (1 + found.cosine)) and found.low <= found.cosine


def test_halves_of_nothing_agree_by_chance():
    gaps = [f.cosine - f.chance for s in range(20) for f in [split_half(null(s), MEAN, s)]]
    assert abs(np.mean(gaps)) < 0.1


def test_halves_of_one_strong_axis_do_not_agree_under_random_labels():
    """Differences of rank one: a random label is a coin, so strangers agree by +1 or -1, and by 0 on average."""
    rng = np.random.default_rng(0)
    base, t = rng.standard_normal((24, 16)), worlds.unit(16, 3)
    found = split_half(sample(base + t, base - t), MEAN)
    assert found.cosine == pytest.approx(1) and found.chance_high < 0.9


def test_a_method_that_does_not_look_has_no_halves():
    with pytest.raises(InputError, match="does not learn"):
        split_half(null(0), make("random"))


# --- strangers


def test_where_states_fill_one_dimension_any_direction_will_do():
    rng = np.random.default_rng(0)
    axis = worlds.unit(64, 2)
    line = sample(np.outer(3 + rng.random(20), axis), np.outer(rng.random(20), axis), False)
    assert judge(line).random > 0.99
    world = worlds.planted(n=60, width=256, shift=3.0)
    wide = judge(sample(world.positive - world.negative, world.negative - world.positive, False))
    assert wide.auc.value > 0.99 and wide.random < 0.8


def test_random_aucs_are_those_of_a_ranking():
    roc = pytest.importorskip("sklearn.metrics").roc_auc_score
    s = null(4, paired=False)
    found = random_aucs(s, np.random.default_rng(9))
    along = s.rows @ np.random.default_rng(9).standard_normal((16, 100))
    truth = [roc(np.arange(48) < 24, along[:, k]) for k in range(100)]
    assert np.allclose(found, np.maximum(truth, 1 - np.array(truth)))


def test_what_is_kept_per_row_follows_its_rows():
    """Methods that need gradients, tokens or marks are refitted on their own share of them."""
    rng = np.random.default_rng(0)
    s = sample(*rng.standard_normal((2, 6, 4)))
    both = lambda x: {POSITIVE: x[:6], NEGATIVE: x[6:]}  # noqa: E731
    gradients, marks = rng.standard_normal((12, 4)), np.arange(12.0)
    tokens = [np.full((i + 1, 4), i) for i in range(12)]
    whole = dataclasses.replace(
        s.evidence,
        gradients=both(gradients),
        scores=both(marks),
        tokens=both(tuple(tokens)),
        weights={"w": np.eye(4)},
        needs=s.evidence.needs | {"gradients", "tokens", "weights"},
    )

    class Greedy(MeanDiff):
        needs = frozenset({"mean", "gradients", "tokens", "weights"})

    part = pick(whole, Greedy(), np.array([4, 1]), np.array([10, 7]))
    part.require("gradients", "tokens", "weights")
    assert np.array_equal(part.gradients[POSITIVE], gradients[[4, 1]])
    assert np.array_equal(part.scores[NEGATIVE], [10, 7]) and part.weights is whole.weights
    assert [len(t) for t in part.tokens[NEGATIVE]] == [11, 8]
    with pytest.raises(InputError, match="holds no gradients, tokens, weights"):
        pick(s.evidence, Greedy(), np.array([4, 1]), np.array([10, 7]))
