"""Rules on live readings: what fires, when, and that a plan switched on mid-reply is the plan `after` that token."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest

import trimtab
from trimtab.directions import ConceptVectors, Direction
from trimtab.server.settings import Settings
from trimtab.sites import Site

TestClient = pytest.importorskip(
    "fastapi.testclient", reason="the server needs fastapi: pip install 'trimtab[serve]'"
).TestClient
PUSH = {"placements": [{"op": "add", "vector": "anger", "amount": 8.0, "layers": [1]}]}
BASE = {"placements": [{"op": "add", "vector": "joy", "amount": 0.5, "layers": [0]}]}


def build(*args: Any, **kwargs: Any) -> Any:
    from trimtab.server import app

    return app.build(*args, **kwargs)


@pytest.fixture(scope="module")
def engine():
    return trimtab.load_engine("tiny", "reference")


@pytest.fixture(scope="module")
def file(engine, tmp_path_factory):
    rows = [
        Direction(n, Site(layer), u, mean=0.5, std=2.0, typical_norm=3.0)
        for n, u in engine.planted.items()
        for layer in range(4)
    ]
    path = tmp_path_factory.mktemp("vectors") / "planted.safetensors"
    ConceptVectors.from_directions(rows).save(path)
    return path


@pytest.fixture(scope="module")
def client(engine, file):
    with TestClient(build(engine, Settings(readout=(file,)))) as found:
        yield found


def text(**more: Any) -> dict[str, Any]:
    return {"prompt": "I feel", "max_tokens": 10, "temperature": 0, "ignore_eos": True, **more}


def ask(client: Any, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def chunks(client: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.post("/v1/completions", json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines[:-1]]


def crossing(client: Any, body: dict[str, Any], unit: str = "z") -> tuple[int, float, float, int]:
    """(token, its reading, a threshold that this token is the first to pass, position of its state) of joy at layer 2,
    from a run without rules."""
    read = ask(client, {**body, "readout": {"layers": [2], "concepts": ["joy"], "z": unit == "z"}})
    found = read["choices"][0]["readout"]
    values = np.array(found["values"])[:, 0, 0]
    rises = [i for i in range(2, len(values) - 3) if values[i] > values[:i].max() + 1e-3]
    assert rises, values
    i = rises[0]
    return i, float(values[i]), float((values[i] + values[:i].max()) / 2), found["position"] + i


def rule(then: Any, above: float, name: str = "joyful", **when: Any) -> dict[str, Any]:
    return {"name": name, "when": {"concept": "joy", "layer": 2, "above": above, **when}, "then": then}


@pytest.mark.parametrize("unit", ["z", "raw"])
def test_a_tag_comes_with_the_token_whose_state_fired(client, unit):
    token, value, above, position = crossing(client, text(), unit)
    body = text(rules=[rule({"tag": "happy"}, above, unit=unit)])
    plain, whole, parts = ask(client, text()), ask(client, body), chunks(client, body)
    want = {
        "rule": "joyful",
        "position": position,
        "value": pytest.approx(value, rel=1e-5),
        "then": [{"tag": "happy"}],
    }
    choice = whole["choices"][0]
    assert choice["rules"] == [want] and whole["rules"] == [{"index": 0, **want}]
    assert choice["text"] == plain["choices"][0]["text"] and "readout" not in choice
    assert whole["steering_applied"]["fingerprint"] == "plain"
    at = [i for i, c in enumerate(parts) if c["choices"][0].get("rules")]
    assert at == [token] and parts[token]["choices"][0]["rules"] == [want]
    assert parts[-1]["rules"] == whole["rules"] and not any("readout" in c["choices"][0] for c in parts)
    never = ask(client, text(rules=[rule({"tag": "happy"}, 1e6)]))
    assert never["rules"] == [] and "rules" not in never["choices"][0]


def test_a_rule_reads_beside_the_readout_that_was_asked_for(client):
    *_, above, position = crossing(client, text())
    readout = {"layers": [0, 3], "concepts": ["anger"]}
    both = ask(client, text(readout=readout, rules=[rule("log", above)]))
    alone = ask(client, text(readout=readout))
    ours, want = both["choices"][0]["readout"], alone["choices"][0]["readout"]
    assert np.allclose(ours.pop("values"), want.pop("values"), rtol=1e-5, atol=1e-6) and ours == want
    assert [f["position"] for f in both["rules"]] == [position]
    implied = rule("log", above)
    del implied["when"]["layer"]
    # Without a layer, a rule is about the one that the request reads.
    same = ask(client, text(readout={"layers": [2]}, rules=[implied]))["rules"]
    assert [f["position"] for f in same] == [position]


def test_abort_ends_the_reply_at_the_token_and_frees_its_place(client, engine, monkeypatch):
    token, _, above, _ = crossing(client, text())
    body = text(rules=[rule("abort", above)], max_tokens=300)
    before = engine.forwards
    answer = ask(client, body)
    assert engine.forwards - before == token + 1  # the engine ran no further
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop" and answer["usage"]["completion_tokens"] == token + 1
    assert choice["rules"][0]["then"] == ["abort"]
    plain = ask(client, text())["choices"][0]["text"]
    assert plain.startswith(choice["text"]) and len(choice["text"]) < len(plain)
    last = chunks(client, body)[-1]
    assert last["choices"][0]["finish_reason"] == "stop" and last["rules"] == answer["rules"]


def test_the_plan_of_a_rule_is_the_plan_after_the_token_that_fired(client):
    for base in (None, BASE):
        start = text() if base is None else text(steering=base)
        token, _, above, position = crossing(client, start)
        steered = ask(client, {**start, "rules": [rule({"steer": PUSH}, above)], "logprobs": 0})
        after = {**PUSH["placements"][0], "positions": {"after": position}}
        whole = {"placements": [*(base or {"placements": []})["placements"], after]}
        want = ask(client, text(steering=whole, logprobs=0))
        assert steered["choices"][0]["text"] == want["choices"][0]["text"]
        assert steered["choices"][0]["logprobs"] == want["choices"][0]["logprobs"]
        assert steered["steering_applied"] == want["steering_applied"]
        unsteered = ask(client, {**start, "logprobs": 0})["choices"][0]["logprobs"]["token_logprobs"]
        ours = steered["choices"][0]["logprobs"]["token_logprobs"]
        assert ours[: token + 1] == unsteered[: token + 1] and ours[token + 1] != unsteered[token + 1]


def test_every_sample_has_its_own_rules(client):
    body = text(n=4, temperature=1.3, seed=3)
    read = ask(client, {**body, "readout": {"layers": [2], "concepts": ["joy"], "z": True}})
    tracks = [np.array(c["readout"]["values"])[:, 0, 0] for c in read["choices"]]
    peaks = sorted(t.max() for t in tracks)
    gap = int(np.argmax(np.diff(peaks)))
    above = float(peaks[gap] + peaks[gap + 1]) / 2
    fires = [next((i for i, v in enumerate(t) if v > above), None) for t in tracks]
    assert None in fires and any(i is not None for i in fires)
    answer = ask(client, {**body, "rules": [rule(["abort", {"tag": "x"}], above)]})
    lengths = [len(t) if i is None else i + 1 for t, i in zip(tracks, fires, strict=True)]
    assert answer["usage"]["completion_tokens"] == sum(lengths)
    assert [f["index"] for f in answer["rules"]] == [i for i, k in enumerate(fires) if k is not None]
    switched = ask(client, {**body, "rules": [rule({"steer": PUSH}, above)]})
    assert len(switched["steering_applied"]) == 4
    plain = [s["fingerprint"] == "plain" for s in switched["steering_applied"]]
    assert plain == [k is None for k in fires]


def test_the_operators_rules_hold_for_everybody(engine, file, tmp_path, caplog):
    with TestClient(build(engine, Settings(readout=(file,)))) as probe:
        *_, above, position = crossing(probe, text())
    (tmp_path / "push.json").write_text(json.dumps(PUSH))
    rules = tmp_path / "rules.txt"
    rules.write_text(f"# house rules\njoy@2 z > {above} -> log, steer push\n")
    with TestClient(build(engine, Settings(readout=(file,), rules=rules))) as client:
        with caplog.at_level(logging.WARNING, "trimtab.server"):
            answer = ask(client, text())
        assert answer["rules"][0]["position"] == position
        assert answer["steering_applied"]["layers"] == [1]
        (line,) = [json.loads(r.message) for r in caplog.records if r.name == "trimtab.server"]
        assert line["event"] == "rule" and line["position"] == position and "feel" not in json.dumps(line)
        same = {"name": answer["rules"][0]["rule"], "when": {"concept": "joy", "above": 1.0}, "then": "log"}
        refused = client.post("/v1/completions", json=text(rules=[same]))
        assert refused.status_code == 400 and "another name" in refused.json()["error"]["message"]
        assert client.post("/v1/completions", json=text(readout={"at": "before"})).status_code == 400
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine), "monitors", False)
        with pytest.raises(trimtab.errors.TrimtabError, match="judges no rules"):
            build(engine, Settings(readout=(file,), rules=rules))
        with TestClient(build(engine, Settings(readout=(file,)))) as client:
            answer = client.post("/v1/completions", json=text(rules=[rule("log", 1.0)]))
            assert answer.status_code == 400 and "monitors" in answer.json()["error"]["message"]
    rules.write_text("envious z > 1 -> log")
    with pytest.raises(trimtab.errors.TrimtabError, match="envious"):
        build(engine, Settings(readout=(file,), rules=rules))


WRONG: list[tuple[Any, str]] = [
    ({"name": "x"}, "list"),
    ([{"name": "x"}], "lacks"),
    ([rule("explode", 1.0)], "explode"),
    ([rule("log", 1.0, layer=9)], "9"),
    ([rule("log", 1.0, concept="envy")], "envy"),
    ([rule("log", 1.0), rule("log", 2.0)], "two rules"),
    ([rule({"steer": "push"}, 1.0)], "operator's"),
    ([rule({"steer": {"placements": [{**PUSH["placements"][0], "vector": "nobody"}]}}, 1.0)], "nobody"),
    ([rule({"steer": {"placements": [{**PUSH["placements"][0], "positions": "prompt"}]}}, 1.0)], "generated"),
    ([rule("log", 1.0, name=str(i)) for i in range(65)], "64"),
    (["anger z > x -> log"], "rules[0]"),
    ([rule("log", 1.0, mean=10**30)], "100000"),
    ([rule("log", 10**400)], "rules[0]"),
    ([rule({"tag": "x" * (1 << 20)}, 1.0)], "bytes"),
    ([rule({"tag": {"a": 1}}, 1.0)], "action"),
    ([rule([], 1.0)], "does nothing"),
]


@pytest.mark.parametrize(("wrong", "word"), WRONG)
def test_what_is_wrong_with_rules_is_said(client, wrong, word):
    answer = client.post("/v1/completions", json=text(rules=wrong))
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert word in error["message"] and error["param"] == "rules"


def test_a_reading_that_overflowed_is_null_and_no_broken_answer(engine, file):
    from trimtab.prompts import Prompt
    from trimtab.rules import Rule
    from trimtab.server.joint import Joint
    from trimtab.server.ruling import Ruling, grouped

    (group,) = grouped([Rule.from_json(rule("abort", 1.0))], ConceptVectors.load(file), engine.info)
    ruling = Ruling("r", engine.resolve(None, Prompt((0,))), [group], {})
    ruling.bind(Joint.of([group.readout]), 0)
    verdict = ruling.see(0, 3, np.array([[np.inf]], np.float32))
    assert verdict is not None and verdict.stop and ruling.see(0, 4, np.array([[np.nan]], np.float32)) is None
    assert ruling.fired(0, 3)[0]["value"] is None and ruling.report()[0]["value"] is None


def test_an_inline_vector_in_a_rule_needs_leave(client):
    inline = {"name": "x", "site": "layer_1.resid_post", "data": "AAAA"}
    plan = {"placements": [{"op": "add", "vector": inline, "amount": 1.0, "layers": [1]}]}
    answer = client.post("/v1/completions", json=text(rules=[rule({"steer": plan}, 1.0)]))
    assert answer.status_code == 400 and "not allowed" in answer.json()["error"]["message"]


@pytest.mark.parametrize("unit", ["z", "raw"])
def test_a_readout_of_the_server_is_a_trace_on_which_rules_fire_as_they_did(client, unit):
    from trimtab.errors import InputError
    from trimtab.evaluation.rule_traces import Trace, score_rules
    from trimtab.rules import Rule

    _, _, above, position = crossing(client, text(), unit)
    given = rule("log", above, unit=unit)
    read = {"layers": [1, 2], "concepts": ["anger", "joy"], "z": unit == "z"}
    choice = ask(client, text(rules=[given], readout=read))["choices"][0]
    assert choice["rules"][0]["position"] == position
    trace = Trace.from_json({**choice["readout"], "id": "a", "truth": {"joyful": position}})
    (fired,) = trace.fire([Rule.from_json(given)])
    assert fired.position == position and fired.value == pytest.approx(choice["rules"][0]["value"], rel=1e-5)
    (found,) = score_rules([Rule.from_json(given)], [trace])
    assert found.precision.value == found.recall.value == 1 and found.early == found.delay == 0
    for more in ({"encoding": "float16"}, {"top_k": 1}):
        packed = ask(client, text(readout={**read, **more}))["choices"][0]["readout"]
        with pytest.raises(InputError, match="no trace"):
            Trace.from_json({**packed, "truth": {}})
