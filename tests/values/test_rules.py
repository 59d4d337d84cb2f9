"""Rules fire where their definition says, on any split of the reply; every malformed one is refused by name."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.interventions import Add
from trimtab.plans import Placement, SteeringPlan
from trimtab.rules import Action, Condition, Rule, Watch, load_rules


def fire(rule, series, unit="z"):
    watch = Watch([rule], [3], ["anger"], unit)
    return [f.position for f in watch.see_all(range(len(series)), np.reshape(series, (-1, 1, 1)))]


def rule(again=False, **when):
    return Rule("r", Condition("anger", **when), (Action("log"),), again)


def test_a_threshold_must_hold_for_tokens_in_a_row():
    series = [3, 1, 3, 3, 1, 3, 3, 3, 3]
    assert fire(rule(above=2), series) == [0]
    assert fire(rule(above=2, tokens=2), series) == [3]
    assert fire(rule(above=2, tokens=3), series) == [7]
    assert fire(rule(above=2, tokens=5), series) == []
    assert fire(rule(above=2, tokens=2, again=True), series) == [3, 6]
    assert fire(rule(below=2), series) == [1]


def test_equality_is_not_past_a_threshold():
    assert fire(rule(above=2), [2, 2]) == [] and fire(rule(below=2), [2]) == []


def test_a_missing_reading_passes_nothing_and_empties_the_mean():
    nan = math.nan
    assert fire(rule(above=2, tokens=2), [3, nan, 3, 3]) == [3]
    assert fire(rule(above=2, mean=2), [3, nan, 3, 3]) == [3]
    assert fire(rule(below=2), [nan, nan]) == []


@given(
    st.lists(st.floats(-5, 5), max_size=40),
    st.integers(1, 5),
    st.integers(1, 4),
    st.floats(-2, 2),
    st.booleans(),
)
def test_firings_are_those_of_the_definition(series, mean, tokens, above, again):
    """Written once more, over the whole reply at a time."""
    means = [
        math.fsum(series[i - mean + 1 : i + 1]) / mean if i + 1 >= mean else -math.inf
        for i in range(len(series))
    ]
    over = [m > above for m in means]
    want = [
        i for i in range(tokens - 1, len(series))
        if all(over[i - tokens + 1 : i + 1]) and not (i >= tokens and over[i - tokens])
    ]  # fmt: skip
    assert fire(rule(above=above, mean=mean, tokens=tokens, again=again), series) == (
        want if again else want[:1]
    )


def test_the_reading_is_that_of_the_named_layer_and_concept():
    rules = [Rule(n, Condition(c, above=0.5, layer=layer), (Action("log"),)) for n, c, layer in
             (("a", "x", 1), ("b", "y", 1), ("c", "x", 4), ("d", "y", 4))]  # fmt: skip
    watch = Watch(rules, [1, 4], ["x", "y"], "z")
    assert [f.rule.name for f in watch.see(9, [[0, 1], [1, 0]])] == ["b", "c"]


def test_a_rule_reads_back_from_its_json():
    plan = SteeringPlan(Placement(Add(dose=0.4), "calm", layers=[3]))
    given = Rule(
        "cool down", Condition("anger", above=2.5, layer=3, mean=4, tokens=3),
        (Action("tag", label="angry"), Action("steer", plan=plan), Action("steer", plan="calm"), Action("abort")),
        again=True,
    )  # fmt: skip
    again = Rule.from_json(given.to_json())
    assert again.to_json() == given.to_json()
    assert again.when == given.when and again.again
    assert again.then[1].plan.to_json() == plan.to_json() and again.then[2].plan == "calm"


def test_a_line_says_what_its_json_says():
    line = Rule.parse("very angry@12 z mean 4 > 2.5 for 3 tokens -> tag angry, log, steer calm")
    assert line.when == Condition("very angry", above=2.5, layer=12, mean=4, tokens=3)
    assert [a.to_json() for a in line.then] == [{"tag": "angry"}, "log", {"steer": "calm"}]
    assert Rule.parse("anger raw < -1e-2 → abort").when == Condition("anger", below=-0.01, unit="raw")
    both = load_rules(
        '["anger z > 2 -> log", {"name": "n", "when": {"concept": "a", "below": 0}, "then": "abort"}]'
    )
    assert [r.name for r in both] == ["anger z > 2 -> log", "n"]
    assert [r.name for r in load_rules("# mine\nanger z > 2 -> log\n\n")] == ["anger z > 2 -> log"]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("anger > 2 -> log", "write it as"),
        ("anger z > 2", "write it as"),
        ("anger z > 2 -> shout", "unknown action 'shout'"),
        ("anger z > 2 -> tag", "'tag'"),
        ("anger z > 1.2.3 -> log", "not a number"),
        ({"name": "n", "when": {"concept": "a", "above": 1}}, "lacks then"),
        ({"name": "n", "when": {"concept": "a"}, "then": "log"}, "one of 'above' and 'below'"),
        ({"name": "n", "when": {"concept": "a", "above": 1, "below": 2}, "then": "log"}, "one of"),
        ({"name": "n", "when": {"above": 1}, "then": "log"}, "lacks 'concept'"),
        ({"name": "n", "when": {"concept": "a", "abov": 1}, "then": "log"}, "Did you mean 'above'"),
        ({"name": "n", "when": {"concept": "a", "above": "hot"}, "then": "log"}, "is a number"),
        ({"name": "n", "when": {"concept": "a", "above": math.nan}, "then": "log"}, "is a number"),
        ({"name": "n", "when": {"concept": "a", "above": 1, "tokens": 0}, "then": "log"}, "whole number from 1"),
        ({"name": "n", "when": {"concept": "a", "above": 1, "unit": "nats"}, "then": "log"}, "unknown unit"),
        ({"name": "n", "when": {"concept": "a", "above": 1}, "then": []}, "does nothing"),
        ({"name": "n", "when": {"concept": "a", "above": 1}, "then": {"tag": 3}}, "an action is"),
        ({"name": "n", "when": {"concept": "a", "above": 1}, "then": "log", "x": 1}, "key of a rule"),
        (7, "a rule is an object"),
    ],
)  # fmt: skip
def test_malformed_rules_are_refused(given, word):
    with pytest.raises(InputError, match=word):
        Rule.from_json(given)


def test_a_rule_that_the_readings_cannot_answer_is_refused():
    for bad, word in (
        (rule(above=1, unit="raw"), "raw readings"),
        (rule(above=1, layer=5), "layer"),
        (Rule("r", Condition("angr", above=1), (Action("log"),)), "Did you mean 'anger'"),
    ):
        with pytest.raises(InputError, match=word):
            Watch([bad], [3], ["anger"], "z")
    with pytest.raises(InputError, match="must name one of the layers"):
        Watch([rule(above=1)], [3, 4], ["anger"], "z")
    with pytest.raises(InputError, match="two rules"):
        load_rules("anger z > 2 -> log\nanger z > 2 -> log")
