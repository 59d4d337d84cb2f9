"""The field's names stand for ours, and knobs are read from text by their declared types."""

import pytest

from trimtab.errors import InputError, UnknownName
from trimtab.extraction import METHODS, make, method_class
from trimtab.extraction.knobs import parse_knobs
from trimtab.extraction.names import ALIASES, aliases_of, resolve

FISHER = [
    ("fisher_steer", {}),
    ("fisher_steer_reg0", {"ridge": 0.0}),
    ("fisher_steer_reg2", {"ridge": 1e-2}),
    ("fisher_steer_reg5", {"ridge": 1e-5}),
    ("fisher_steer_reg2_emp", {"kind": "empirical", "ridge": 1e-2}),
    ("fisher_steer_cov_reg1", {"kind": "cov", "ridge": 1e-1}),
    ("fisher_steer_reg4_cov", {"kind": "cov", "ridge": 1e-4}),
    ("fisher_steer_dual", {"dual": "mean", "ridge_relative": 0.01}),
    ("fisher_steer_dual_cov", {"dual": "mean", "ridge_relative": 0.01, "kind": "cov"}),
    ("fisher_steer_dual_pos", {"dual": "pos", "ridge_relative": 0.01}),
    ("fisher_steer_dual_neg_reg3_emp", {"dual": "neg", "ridge_relative": 0.01, "kind": "empirical"}),
    ("fisher_steer_dual_diff", {"dual": "diff", "ridge_relative": 0.01}),
]


@pytest.mark.parametrize(("name", "knobs"), FISHER)
def test_the_journals_gradient_names_are_taken_apart(name, knobs):
    assert resolve(name) == ("fisher", knobs)


@pytest.mark.parametrize(
    "name",
    ["fisher_steer_reg6", "fisher_steer_pos", "fisher_steer_cov_reg1_emp", "fisher_steer_", "xfisher_steer"],
)
def test_what_only_looks_like_one_is_nothing(name):
    assert resolve(name) == (name, {})
    with pytest.raises(UnknownName, match="unknown method"):
        make(name)


def test_every_method_of_the_journal_is_known(shared_data):
    lines = (shared_data / "journal" / "dose_response.csv").read_text().splitlines()[1:]
    names = {line.split(",")[1] for line in lines}
    parts = ("fisher_steer", "svd_steer", "pca_diff", "pca_diff_weighted")
    found = {n[n.index(p) :] for n in names for p in parts if p in n}
    assert len(found) > 10
    ours = {resolve(n)[0] for n in found}
    assert ours == {"fisher", "svd_gradient", "pca_diff", "pca_diff_weighted"}


@pytest.mark.parametrize("alias", [a for a, (ours, _) in ALIASES.items() if ours in METHODS])
def test_an_alias_makes_our_method_with_knobs_that_it_has(alias):
    ours, knobs = ALIASES[alias]
    made = make(alias)
    assert made.name == ours and type(made) is method_class(alias)
    assert {k: made.parameters[k] for k in knobs} == knobs
    assert alias in aliases_of(ours)


def test_no_alias_hides_a_method_and_those_asked_for_are_there():
    assert not set(ALIASES) & set(METHODS)
    asked = "pca pooled linear lda whitened mean caa diffmean mass_mean svd_steer pos_neg_50 pos_40_70 pos_3".split()
    assert set(asked) <= set(ALIASES)


def test_knobs_given_win_over_those_of_an_alias():
    assert make("trimmed_mean", trim=0.3).parameters["trim"] == 0.3
    assert make("mean_centring").parameters["centre"] is True


@pytest.mark.parametrize(
    ("method", "settings", "knobs"),
    [
        ("mean_diff", ["trim=0.1", "unit_pairs=yes"], {"trim": 0.1, "unit_pairs": True}),
        ("mean_diff", ["centre=False"], {"centre": False}),
        ("logistic", ["C=1e-3", "row = pattern"], {"C": 1e-3, "row": "pattern"}),
        ("logistic", ["C=none", "folds=3"], {"C": None, "folds": 3}),
        ("lda", ["ridge=0"], {"ridge": 0.0}),
        ("trait_contrast", ["select=pos_70"], {"select": "pos_70"}),
    ],
)
def test_settings_take_the_types_of_the_knobs(method, settings, knobs):
    found = parse_knobs(method_class(method), settings)
    assert found == knobs and [type(v) for v in found.values()] == [type(v) for v in knobs.values()]
    make(method, **found)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["trims=1"], "unknown knob of mean_diff 'trims'.*'trim'.*centre, trim, unit_pairs"),
        (["trim=much"], "trim of mean_diff is a number, got 'much'"),
        (["centre=2"], "centre of mean_diff is true or false"),
        (["trim"], "NAME=VALUE, got 'trim'"),
        (["trim="], "NAME=VALUE"),
        (["trim=.1", "trim=.2"], "set twice"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        parse_knobs(method_class("mean_diff"), settings)


def test_words_and_whole_numbers_are_checked_too():
    with pytest.raises(InputError, match=r"row of logistic.*'weight'.*pattern, weights"):
        parse_knobs(method_class("logistic"), ["row=weight"])
    with pytest.raises(InputError, match="whole number"):
        parse_knobs(method_class("logistic"), ["folds=2.5"])


def test_every_knob_of_every_method_can_be_set_from_text():
    for name in METHODS:
        defaults = make(name).parameters
        settings = [f"{k}={v}" for k, v in defaults.items()]
        assert parse_knobs(method_class(name), settings) == defaults
