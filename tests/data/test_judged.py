"""Responses that a judge has marked: which are positives, which negatives, and which are pairs."""

import pytest

from trimtab import data
from trimtab.errors import InputError, UnknownName


def response(side, text, score=None, **more):
    return {"role": "poet", "question": "q", "response": text, "score": score, "side": side, **more}


def test_scored_responses_keep_every_row_and_its_score(tree):
    rows = [
        response("pos", "rose", 3, system="Be a poet."),
        response("pos", "no", None),
        response("neg", "plain", 0),
        {"question": "q", "response": "default", "score": 1, "side": "default"},
        response("pos", "lute", 2, role=None, concept="bard"),
    ]
    poet, bard = data.load(tree({"r.jsonl": rows}) / "r.jsonl")
    assert (poet.scores, poet.negative_scores, poet.paired) == ((3, None), (0,), False)
    assert [len(i) for i in poet.positive] == [3, 2] and poet.read_pooling == "mean_assistant"
    assert "1 default responses to 'poet' are left out" in poet.notes[0]
    assert "not paired: 1 questions have not as many positive as neg ones, e.g. 'q'" in poet.notes[1]
    assert (bard.concept, bard.scores, bard.negative_scores) == ("bard", (2,), (1,))


def judged_trait():
    """Two questions under two instructions a side, the sides in different orders, and a default response each."""
    rows = [
        response(side, f"{side} {q} {i}", score + i, question=q, role=None, trait="calm")
        for side, questions, score in (("pos", ("q1", "q2"), 80), ("neg", ("q2", "q1"), 10))
        for q in questions
        for i in (0, 1)
    ]
    plain = [
        {"question": q, "response": f"default {q}", "score": 40, "side": "default"}
        for q in ("q2", "q1", "q1", "q2")
    ]
    return [*rows, *plain]


def test_judged_responses_to_the_same_question_are_pairs(tree):
    path = tree({"r.jsonl": judged_trait()}) / "r.jsonl"
    (calm,) = data.load(path)
    assert calm.paired and calm.groups == ("q1", "q1", "q2", "q2")
    said = [(p[-1]["content"], n[-1]["content"]) for p, n in zip(calm.positive, calm.negative)]
    assert said == [(f"pos {q} {i}", f"neg {q} {i}") for q in ("q1", "q2") for i in (0, 1)]
    assert (calm.scores, calm.negative_scores) == ((80, 81, 80, 81), (10, 11, 10, 11))
    (calm,) = data.load(path, against="default")
    assert calm.paired and [n[-1]["content"] for n in calm.negative] == [
        f"default {q}" for q in "q1 q1 q2 q2".split()
    ]
    assert "4 neg responses to 'calm' are left out" in calm.notes[0]
    with pytest.raises(UnknownName, match="against"):
        data.load(path, against="pos")


def test_a_side_that_is_asked_for_must_be_there(tree):
    rows = [r for r in judged_trait() if r["side"] != "default"]
    path = tree({"r.jsonl": rows}) / "r.jsonl"
    with pytest.raises(InputError, match="'calm' has no default responses; leave --against default out"):
        data.load(path, against="default")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (response("good", "x"), "unknown side 'good'"),
        (response("pos", "x", "high"), "score 'high'"),
        (response("pos", " "), "'response' is missing, blank"),
        (response("pos", "x", role=None), "needs a concept"),
        (response("pos", "x", 3), "one-sided"),
    ],
)
def test_bad_scored_responses(tree, row, message):
    with pytest.raises(InputError, match=message):
        data.load(tree({"r.jsonl": [row]}) / "r.jsonl")
