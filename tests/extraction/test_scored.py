"""Methods that let a judge's marks decide: their rules, word for word, and what they refuse."""

import dataclasses

import numpy as np
import pytest

from trimtab.data.contrast import Contrast
from trimtab.errors import InputError, UnknownName
from trimtab.evidence import Evidence
from trimtab.extraction import make
from trimtab.recipes import check
from trimtab.sites import Site

RNG = np.random.default_rng(0)
POSITIVE, NEGATIVE = RNG.standard_normal((60, 8)) + 2, RNG.standard_normal((60, 8))
MARKS, OTHERS = RNG.permutation(np.linspace(0, 100, 60)), RNG.permutation(np.linspace(0, 60, 60))
MARKS[:3] = np.nan


def fit(name, marks=(MARKS, OTHERS), paired=True, **knobs):
    given = Evidence.from_rows(Site(0), POSITIVE, NEGATIVE, {"rows"}, paired=paired)
    scores = None if marks is None else dict(zip(("positive", "negative"), marks))
    return make(name, **knobs).fit(dataclasses.replace(given, scores=scores), "evil")


def mean(positive, negative):
    return POSITIVE[positive].mean(0) - NEGATIVE[negative].mean(0)


ALL = np.ones(60, bool)
RULES = [
    ("trait_contrast", {"select": "pos_neg"}, ALL, ALL),
    ("trait_contrast", {"select": "pos_default"}, ALL, ALL),
    ("trait_contrast", {}, MARKS - OTHERS > 50, MARKS - OTHERS > 50),
    ("trait_contrast", {"select": "pos_default_50"}, MARKS - OTHERS > 50, MARKS - OTHERS > 50),
    ("trait_contrast", {"select": "pos_70"}, MARKS >= 70, ALL),
    ("trait_contrast", {"select": "pos_40_70"}, (MARKS >= 40) & (MARKS < 70), ALL),
    ("persona_response_avg", {}, MARKS > 50, OTHERS < 50),
    ("role_difference", {"score": 70.0, "min_count": 5}, MARKS >= 70, ALL),
]


@pytest.mark.parametrize(("name", "knobs", "positive", "negative"), RULES)
def test_each_rule_is_the_mean_of_what_it_keeps(name, knobs, positive, negative):
    found = fit(name, **knobs)
    assert np.allclose(found.raw, mean(positive, negative), atol=1e-5)
    assert found.provenance["kept"] == {"positive": positive.sum(), "negative": negative.sum()}


def test_pos_neg_50_is_about_pairs_and_not_about_marks_over_fifty():
    marks, others = np.full(60, 60.0), np.full(60, 5.0)
    others[30:] = 20.0  # a gap of 40: no pair of the rule, although every positive is above 50
    found = fit("trait_contrast", (marks, others))
    assert np.allclose(found.raw, mean(np.arange(60) < 30, np.arange(60) < 30), atol=1e-5)


def test_role_scores_are_the_top_mark_and_fifty_of_them():
    marks = np.repeat([3.0, 2.0], [50, 10])
    found = fit("role_difference", (marks, np.full(60, np.nan)))
    assert np.allclose(found.raw, mean(marks == 3, ALL), atol=1e-5)
    marks[0] = 2.0
    with pytest.raises(InputError, match=r"keeps 49 of 60 positive texts of 'evil' \(mark >= 3.* needs 50"):
        fit("role_difference", (marks, np.full(60, np.nan)))


@pytest.mark.parametrize(
    ("name", "knobs"),
    [("trait_contrast", {}), ("trait_contrast", {"select": "pos_70"}), ("persona_response_avg", {})],
)
def test_nothing_kept_is_refused_and_never_zeros(name, knobs):
    with pytest.raises(InputError, match="keeps 0 of 60 positive texts of 'evil'"):
        fit(name, (np.full(60, 10.0), np.full(60, 10.0)), **knobs)


@pytest.mark.parametrize("marks", [None, (np.full(60, np.nan), OTHERS)])
@pytest.mark.parametrize("name", ["trait_contrast", "persona_response_avg", "role_difference"])
def test_unjudged_texts_are_refused_with_the_mend(name, marks):
    with pytest.raises(InputError, match=rf"{name} selects by .* 'evil' have none.*positive_score"):
        fit(name, marks)


def test_plain_contrasts_need_no_judge_and_gaps_need_pairs():
    assert np.allclose(fit("trait_contrast", None, select="pos_neg").raw, mean(ALL, ALL), atol=1e-5)
    assert fit("trait_contrast", paired=False, select="pos_70").norm > 0
    with pytest.raises(InputError, match="needs pairs for pos_neg_50"):
        fit("trait_contrast", paired=False)
    with pytest.raises(UnknownName, match="pos_neg_50"):
        make("trait_contrast", select="pos_neg_5")


def contrast(scores=(90.0, 60.0, None), negative_scores=(10.0, 55.0, 5.0), **fields):
    given = {"scores": scores, "negative_scores": negative_scores, "paired": True, **fields}
    return Contrast("evil", ("a a", "b b", "c c"), ("x x", "y y", "z z"), **given)


def test_marks_are_checked_before_any_model():
    for name in ("trait_contrast", "role_difference", "persona_response_avg"):
        with pytest.raises(InputError, match="have none"):
            check([contrast((), ())], name)
    with pytest.raises(InputError, match="keeps 1 of 3 .*1 have no mark.* needs 2"):
        check([contrast()], make("trait_contrast", min_count=2))
    check([contrast()], "trait_contrast")
