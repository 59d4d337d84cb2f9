"""What `data validate` finds: each check on a corpus that has the fault, and on one that lacks only that."""

import random

import numpy as np
import pytest

from trimtab.data.checks import alike, check_concept, length_auc, phrase_leak
from trimtab.data.contrast import Contrast
from trimtab.data.validation import validate

POOL = [f"{a}{b}" for a in "lo mi ra te su ka no vi pe du".split() for b in "ran tel mos pir dak".split()]


def words(seed, count=9):
    return " ".join(random.Random(seed).choices(POOL, k=count))


def texts(side, n=20, extra=""):
    return tuple(f"{extra}{words(f'{side}{i}')}" for i in range(n))


def checks(positive, negative, name="joy", by_design=False, **more):
    """check -> severity."""
    return {f.check: f.severity for f in check_concept(Contrast(name, positive, negative, **more), by_design)}


FAIR = texts("p"), texts("n")


def test_a_fair_corpus_has_no_findings():
    assert checks(*FAIR) == {}
    assert checks(*FAIR, paired=True) == {}


def test_few_texts():
    assert checks(FAIR[0][:7], FAIR[1]) == {"few": "warning"}
    assert "few" not in checks(FAIR[0][:8], FAIR[1])


def test_repeated_texts_and_repeated_pairs():
    assert checks(FAIR[0], (*FAIR[1], FAIR[1][0])) == {"repeated": "warning"}
    both = tuple((*side, side[0]) for side in FAIR)
    assert checks(*both, paired=True) == {"repeated": "warning"}
    assert checks(FAIR[0], (*FAIR[1][:-1], FAIR[1][0]), paired=True) == {}  # another partner: another pair


def test_texts_that_differ_across_the_classes_in_case_or_punctuation_alone():
    found = check_concept(Contrast("joy", FAIR[0], (*FAIR[1], FAIR[0][3].upper() + "!")), False)
    assert [(f.check, f.severity) for f in found] == [("both sides", "warning")]


def test_a_length_that_tells_the_classes_apart():
    longer = tuple(f"{t} {words(i, 2)}" for i, t in enumerate(FAIR[0]))
    assert checks(longer, FAIR[1]) == {"length": "warning"}


@pytest.mark.parametrize("seed", range(3))
def test_the_length_auc_counts_pairs_with_ties_half(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.integers(3, 9, 15), rng.integers(3, 9, 11)
    won = (one[:, None] > other).mean() + (one[:, None] == other).mean() / 2
    assert length_auc(one.tolist(), other.tolist()) == pytest.approx(won)


def test_a_phrase_of_the_template():
    marked = texts("p", extra="well now ")
    assert checks(marked, texts("n", extra="so then ")) == {"leak": "warning"}
    assert checks(marked, texts("n", extra="so then "), by_design=True) == {"leak": "note"}
    assert checks(marked, texts("n", extra="well now ")) == {}
    assert phrase_leak(marked, texts("n", extra="so then "))[:2] in [
        (p, s) for p, s in (("well now", "positive"), ("so then", "negative"))
    ]


def test_a_phrase_must_separate_nearly_all():
    some = (*texts("p", 17, "well now "), *texts("q", 3, "oh dear "))
    assert phrase_leak(some, texts("n", extra="oh dear ")) is None
    most = (*texts("p", 19, "well now "), *texts("q", 1, "oh dear "))
    assert phrase_leak(most, texts("n", extra="oh dear ")) is not None


def test_a_concept_that_its_texts_name():
    """The name must be in the negatives as well, or it is a phrase that leaks."""
    named = texts("p", extra="joy is "), texts("n", extra="joy is ")
    assert checks(*named) == {"label": "warning"}
    assert checks((*named[0][:5], *FAIR[0][5:]), FAIR[1]) == {"label": "note"}
    assert checks(*named, name="joy_of_life") == {}


def test_concepts_that_are_too_alike():
    def concept(name, family, seed):
        own = [f"{' '.join(random.Random(f'{seed}{i}').choices(family, k=8))}" for i in range(30)]
        return Contrast(name, tuple(own), texts("n", 30))

    a, b = POOL[:20], POOL[25:45]
    one, same, other = concept("glee", a, 1), concept("mirth", a, 2), concept("wrath", b, 3)
    ((first, second, cosine),) = alike([one, same, other])
    assert (first, second) == ("glee", "mirth") and cosine >= 0.8


def test_too_few_concepts_empty_files_and_what_does_not_load(tmp_path):
    for name, side in (("joy", "p"), ("grief", "q")):
        (tmp_path / f"{name}.txt").write_text("\n---\n".join(texts(side)))
    (tmp_path / "anger.txt").write_text(" \n")
    found = {(f.severity, f.check): f.message for f in validate(tmp_path)}
    assert "2 concepts and no neutrals" in found["warning", "load"]
    assert "skipped 1 empty file: anger.txt" in found["warning", "empty"]
    (tmp_path / "joy.txt").write_text("")
    (only,) = [f for f in validate(tmp_path) if f.severity == "error"]
    assert "'grief' is its only concept" in only.message
