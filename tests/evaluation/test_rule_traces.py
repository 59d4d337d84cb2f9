"""Precision, recall and delay of rules on traces whose truth is planted."""

import json

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evaluation.rule_traces import Rate, Trace, read_traces, score_rules
from trimtab.rules import Rule

RULE = Rule.parse("anger z > 2 for 2 tokens -> abort")


def trace(series, truth, start=10):
    return Trace.from_json({
        "id": "t", "layers": [3], "concepts": ["anger"], "unit": "z", "start": start,
        "values": [[[v]] for v in series], "truth": {RULE.name: truth},
    })  # fmt: skip


def test_counts_are_those_of_hand_made_traces():
    hot, cold = [0, 3, 3, 0], [0, 3, 0, 3]
    traces = [
        trace(hot, True),
        trace(hot, 11),
        trace(hot, 13),
        trace(hot, False),
        trace(cold, True),
        trace(cold, False),
    ]
    (found,) = score_rules([RULE], traces)
    # hot fires at position 12: right for True and for 11 (one token late), early for 13, false for False.
    assert (found.precision.hits, found.precision.n) == (2, 4)
    assert (found.recall.hits, found.recall.n) == (2, 4)
    assert found.early == 1 and found.delay == 1 and found.replies == 6


def test_planted_anger_is_found_and_noise_is_not():
    rng = np.random.default_rng(0)
    traces = []
    for i in range(200):
        series, angry = rng.standard_normal(60), i % 2 == 0
        if angry:
            series[20:30] += 4
        traces.append(trace(series, 30 if angry else False))
    (found,) = score_rules([RULE], traces)
    assert found.recall.value > 0.95 and 0 <= found.delay <= 2
    # Two z of noise beyond 2 in a row: 59 chances of .0228 ** 2 in a reply.
    expected = 1 - (1 - 0.0228**2) ** 59
    false = found.precision.n - found.precision.hits - found.early
    assert abs(false / 100 - expected) < 0.05


def test_wilson_interval_holds_its_level():
    low, high = Rate(8, 10).interval
    assert (low, high) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert Rate(0, 5).interval[0] == 0 and np.isnan(Rate(0, 0).value)


def test_missing_readings_and_files(tmp_path):
    assert score_rules([RULE], [trace([3, None, 3, 3], True)])[0].recall.hits == 1
    file = tmp_path / "t.jsonl"
    file.write_text(
        json.dumps({"layers": [3], "concepts": ["anger"], "unit": "z", "values": [[[1, 2]]]}) + "\n"
    )
    with pytest.raises(InputError, match="line 1.*values"):
        read_traces(file)
    with pytest.raises(InputError, match="no such rule"):
        score_rules([Rule.parse("anger z > 1 -> log")], [trace([1], True)])
    with pytest.raises(InputError, match="should fire"):
        score_rules(
            [RULE], [Trace.from_json({"layers": [3], "concepts": ["anger"], "unit": "z", "values": []})]
        )
