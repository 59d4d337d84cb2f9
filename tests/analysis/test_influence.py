"""Leave one out: the closed form is the refit, the planted outlier is named, and its id can be excluded."""

import numpy as np
import pytest
from made import sample

import worlds
from trimtab.analysis.quality import influence as rooms
from trimtab.analysis.quality.heldout import cross_scores, folds
from trimtab.analysis.quality.influence import influence
from trimtab.analysis.quality.shortcuts import shortcuts
from trimtab.data.contrast import Contrast
from trimtab.errors import InputError
from trimtab.extraction import make

MEAN = make("mean_diff")


def contrast(n, paired=True):
    return Contrast("joy", [f"good {i}" for i in range(n)], [f"bad {i}" for i in range(n)], paired=paired)


def brute(s, method, i):
    keep = rooms._mask(s, i)
    whole = s.fit(method, s.positive, s.negative)
    return 1 - whole @ s.fit(method, *s.sides(keep))


@pytest.mark.parametrize("paired", [True, False])
def test_the_closed_form_is_the_refit(paired):
    positive, negative = np.random.default_rng(0).standard_normal((2, 9, 6))
    s = sample(positive + 0.5, negative, paired=paired)
    turns, how = rooms._turns(s, MEAN)
    truth = [brute(s, MEAN, i) for i in range(9 if paired else 18)]
    assert np.allclose(turns, truth, atol=1e-6) and how.startswith("closed form")


def test_another_method_is_refitted_on_a_bounded_number(monkeypatch):
    monkeypatch.setattr(rooms, "REFITS", 5)
    world = worlds.planted(n=20)
    s, method = sample(world.positive, world.negative), make("pca_diff_uncentered")
    turns, how = rooms._turns(s, method)
    known = np.flatnonzero(np.isfinite(turns))
    assert len(known) == 5 and how == "refitted without each of 5 of 20"
    assert np.allclose(turns[known], [brute(s, method, i) for i in known])


def outlier(at=7, n=20):
    world = worlds.planted(n=n, noise=0.2)
    positive = world.positive.copy()
    positive[at] = world.negative[at] - 30 * world.truth + 30 * worlds.beside(world.truth, 5)
    return sample(positive, world.negative)


def test_a_planted_outlier_is_named_and_hurts():
    s = outlier()
    scores = cross_scores(s, MEAN, folds(s))
    found = influence(s, MEAN, contrast(20), scores, judge=True)
    first = found.examples[0]
    assert first.id == "joy:8" and "good 7" in first.text and "bad 7" in first.text
    assert first.turn > 10 * found.typical and first.lead < 0
    assert first.auc_without > found.auc


def test_numbers_are_those_of_the_whole_corpus():
    kept = {"positive": [i for i in range(21) if i != 2], "negative": [i for i in range(21) if i != 2]}
    found = influence(outlier(), MEAN, contrast(20), None, kept=kept)
    assert found.examples[0].id == "joy:9"


def test_texts_without_pairs_have_a_side_in_their_id():
    s = outlier()
    s = sample(s.rows[:20], s.rows[20:], paired=False)
    assert influence(s, MEAN, contrast(20, False), None).examples[0].id == "joy:positive:8"


def test_conversations_are_quoted_where_they_differ():
    talk = [
        ({"role": "system", "content": f"Be {w}."}, {"role": "user", "content": "Hi"})
        for w in ("glad", "sad")
    ]
    assert rooms._where_they_differ(*talk) == ("Be glad.", "Be sad.")


def test_too_few_examples():
    with pytest.raises(InputError, match="three examples"):
        influence(sample(*np.random.default_rng(0).standard_normal((2, 2, 4))), MEAN, contrast(2), None)


# --- shortcuts


def test_a_marker_and_a_length_confound_are_said():
    texts = [f"it is {w} outside the house today" for w in "abcdefgh"]
    marked = shortcuts(
        Contrast("joy", ["### " + t for t in texts], [t + " and so on for longer" for t in texts])
    )
    words = {m[0] for m in marked.markers}
    assert "###" in words and "longer" in words
    assert marked.length_auc == 0 and any("length alone has AUC 1.00" in line for line in marked.found)


def test_fair_texts_and_the_concepts_own_name_are_left_alone():
    words = ("cheerful", "merry", "glad", "jolly", "bright")
    others = ("gloomy", "sad", "unhappy", "grim", "dull")
    fair = Contrast("joy", [f"I feel {w} now" for w in words], [f"I feel {w} now" for w in others])
    assert shortcuts(fair).found == ()
    named = Contrast(
        "happiness", [f"a happy person {i}" for i in range(5)], [f"a person once {i}" for i in range(5)]
    )
    assert [m[0] for m in shortcuts(named).markers] == ["once"]


def test_two_texts_mark_nothing():
    assert shortcuts(Contrast("joy", ["yes", "yes yes"], ["no", "no no"])).markers == ()
