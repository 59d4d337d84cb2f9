"""`trimtab score --rules`: figures from recorded readings, and clear refusals."""

import json

import pytest


@pytest.fixture
def traces(tmp_path):
    file = tmp_path / "traces.jsonl"
    rows = [([0, 3, 3, 0], 1), ([0, 3, 0, 3], True), ([0, 0, 0, 0], False)]
    file.write_text("".join(
        json.dumps({"id": i, "layers": [3], "concepts": ["anger"], "unit": "z", "start": 0,
                    "values": [[[v]] for v in values], "truth": {"hot": truth}}) + "\n"
        for i, (values, truth) in enumerate(rows)
    ))  # fmt: skip
    return file


def test_rules_are_judged_on_recorded_readings(trimtab, traces, tmp_path):
    rules = tmp_path / "rules.json"
    rules.write_text(
        '[{"name": "hot", "when": {"concept": "anger", "above": 2, "tokens": 2}, "then": "abort"}]'
    )
    (found,) = trimtab("score", traces, "--rules", rules, "--json").record["rules"]
    assert (found["precision"]["value"], found["recall"]["value"], found["delay"]) == (1, 0.5, 1)
    assert found["precision"]["n"] == 1 and found["recall"]["n"] == 2 and found["replies"] == 3


def test_what_cannot_be_judged_is_refused(refused, traces, tmp_path):
    rules = tmp_path / "rules.txt"
    rules.write_text("anger z > 2 -> log\n")
    assert "no such rule" in refused("score", traces, "--rules", rules)
    rules.write_text("anger z > 2 -> shout\n")
    assert "unknown action 'shout'" in refused("score", traces, "--rules", rules)
    assert "one of --score" in refused("score", traces)
    assert "cannot read" in refused("score", traces, "--rules", tmp_path / "none")
