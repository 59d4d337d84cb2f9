"""Rules and the feed on a real vLLM server: what acts, from which state on, and what the prefix cache holds then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import httpx
import numpy as np
import pytest

from server.asking import ALL, PLAN, ask, bare, chat, events, fetch, joined, settled, text
from server.stock import CONCEPTS, LAYERS
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt

pytestmark = pytest.mark.engine
READ = {"layers": [2], "concepts": ["sad"], "z": True}
LATER = {"placements": [{"op": "add", "vector": "calm", "dose": 1.5, "layers": [3]}]}


def test_rules_tag_the_token_whose_reading_passed(http):
    readout = {"layers": [2], "concepts": ["sad"], "z": True}
    read = ask(http, text(readout=readout, ignore_eos=True))["choices"][0]["readout"]
    values = np.array(read["values"])[:, 0, 0]
    above = float(np.sort(values)[-2:].mean())
    token = int(values.argmax())
    when = {"concept": "sad", "layer": 2, "above": above}
    rule = {"name": "sadder", "when": when, "then": ["log", {"tag": "down"}]}
    asked = text(rules=[rule], readout={"layers": [4], "concepts": ["happy"]}, ignore_eos=True)
    answer = ask(http, asked)
    (fired,) = answer["rules"]
    assert fired["position"] == read["position"] + token and fired["value"] == pytest.approx(
        values[token], rel=1e-3
    )
    assert answer["choices"][0]["rules"][0]["then"] == ["log", {"tag": "down"}]
    plain = ask(http, text(readout={"layers": [4], "concepts": ["happy"]}, ignore_eos=True))["choices"][0]
    ours = answer["choices"][0]["readout"]
    assert np.allclose(ours["values"], plain["readout"]["values"], rtol=1e-4, atol=1e-3)
    assert answer["choices"][0]["text"] == plain["text"]
    lines = http.post("/v1/completions", json={**asked, "stream": True}).text.splitlines()
    chunks = [json.loads(x[6:]) for x in lines if x.startswith("data: {")]
    at = [c for c in chunks if c["choices"] and c["choices"][0].get("rules")]
    assert [c["choices"][0]["rules"][0]["position"] for c in at] == [fired["position"]]
    (last,) = [c for c in chunks if "rules" in c]
    assert [f["position"] for f in last["rules"]] == [fired["position"]] and "steering_applied" in last


def whole(http, **more: Any) -> dict[str, Any]:
    """A long reply with everything that tells it apart."""
    asked = text(max_tokens=80, ignore_eos=True, logprobs=0, return_token_ids=True, **more)
    return ask(http, asked)


def crossing(http, **more: Any) -> tuple[int, float]:
    """(token, a threshold that its reading of sad at layer 2 is the first to pass) of the reply without rules."""
    read = whole(http, readout=READ, **more)["choices"][0]["readout"]
    values = np.array(read["values"])[:, 0, 0]
    rises = [i for i in range(2, 40) if values[i] > values[:i].max() + 0.05]
    assert rises, values
    i = rises[-1]
    return i, float((values[i] + values[:i].max()) / 2)


def rule(then: Any, above: float) -> dict[str, Any]:
    return {"name": "sadder", "when": {"concept": "sad", "layer": 2, "above": above}, "then": then}


def test_abort_ends_the_reply_with_the_token_that_fired(http):
    plain = whole(http)
    token, above = crossing(http)
    rules = [rule(["abort", {"tag": "x"}], above)]
    answer = whole(http, rules=rules)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop" and answer["usage"]["completion_tokens"] == token + 1
    assert choice["token_ids"] == plain["choices"][0]["token_ids"][: token + 1]
    assert plain["choices"][0]["text"].startswith(choice["text"]) and choice["text"]
    assert [f["then"] for f in choice["rules"]] == [["abort", {"tag": "x"}]]
    chunks = events(http, text(max_tokens=80, ignore_eos=True, rules=rules))
    assert "".join(c["choices"][0]["text"] for c in chunks) == choice["text"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop" and chunks[-1]["rules"] == answer["rules"]
    assert settled(http) == (0, 0)
    # What was written until then is what a plain request would have written.
    assert bare(whole(http)) == bare(plain)


def test_a_plan_that_a_rule_switches_on_is_the_plan_after_the_token_that_fired(http, truth):
    for base in ({}, {"steering": PLAN}):
        token, above = crossing(http, **base)
        asked = {**base, "rules": [rule({"steer": LATER}, above)]}
        for turn in range(2):  # the second time its beginning lies in the cache
            answer = whole(http, **asked)
            (fired,) = answer["rules"]
            after = {**LATER["placements"][0], "positions": {"after": fired["position"]}}
            plan = {"placements": [*base.get("steering", {"placements": []})["placements"], after]}
            want = whole(http, steering=plan)
            ours, theirs = answer["choices"][0], want["choices"][0]
            assert ours["token_ids"] == theirs["token_ids"] and turn in (0, 1)
            gaps = np.abs(
                np.subtract(ours["logprobs"]["token_logprobs"], theirs["logprobs"]["token_logprobs"])
            )
            assert gaps.max() < 1e-4
            assert answer["steering_applied"] == want["steering_applied"]
            plain = whole(http, **base)["choices"][0]
            assert ours["token_ids"][: token + 1] == plain["token_ids"][: token + 1]
            assert ours["token_ids"] != plain["token_ids"]
    # Every state is what another engine makes of the same tokens under that plan.
    seen = whole(http, capture=ALL, **asked)
    states = fetch(http, seen["choices"][0]["capture"])
    tokens = seen["choices"][0]["prompt_token_ids"] + seen["choices"][0]["token_ids"][:-1]
    resolved = truth.resolve(
        SteeringPlan.from_json(plan), Prompt(tuple(tokens[: -len(ours["token_ids"]) + 1]))
    )
    (want,) = truth.capture([Prompt(tuple(tokens))], range(LAYERS), plan=resolved)
    for layer in range(LAYERS):
        assert np.abs(states[f"layer_{layer}.states"] - want[layer]).max() <= 2e-4 * np.abs(want[layer]).max()


def test_nobody_reads_what_a_rule_has_steered(http):
    """A plain request whose prompt is that whole reply, with the prefix cache and without."""
    _, above = crossing(http)
    ruled = whole(http, rules=[rule({"steer": LATER}, above)])["choices"][0]
    prompt = [*ruled["prompt_token_ids"], *ruled["token_ids"]]
    assert len(prompt) > 64  # two blocks at least
    asked = text(prompt=prompt, max_tokens=6, logprobs=3)
    assert bare(ask(http, asked)) == bare(ask(http, {**asked, "cache_salt": "nobody else's"}))
    again = whole(http, rules=[rule({"steer": LATER}, above)])["choices"][0]
    assert again["token_ids"] == ruled["token_ids"]


def test_samples_have_rules_of_their_own(http):
    asked = text(n=4, temperature=1.0, seed=3, max_tokens=30, ignore_eos=True)
    read = ask(http, {**asked, "readout": READ})["choices"]
    tracks = [np.array(c["readout"]["values"])[:, 0, 0] for c in read]
    peaks = sorted(t.max() for t in tracks)
    above = float(np.mean(peaks[1:3]))
    fires = [next((i for i, v in enumerate(t) if v > above), None) for t in tracks]
    assert fires.count(None) == 2
    answer = ask(http, {**asked, "rules": [rule("abort", above)], "return_token_ids": True})
    lengths = [len(t) if i is None else i + 1 for t, i in zip(tracks, fires, strict=True)]
    assert [len(c["token_ids"]) for c in answer["choices"]] == lengths
    assert [f["index"] for f in answer["rules"]] == [i for i, k in enumerate(fires) if k is not None]
    switched = ask(http, {**asked, "rules": [rule({"steer": LATER}, above)]})
    assert [s["fingerprint"] == "plain" for s in switched["steering_applied"]] == [k is None for k in fires]
    assert settled(http) == (0, 0)


def test_a_malformed_plan_of_a_rule_is_refused(http):
    then = {"steer": {"placements": [{**LATER["placements"][0], "vector": "nobody"}]}}
    refused = http.post("/v1/completions", json=text(rules=[rule(then, 1.0)]))
    assert refused.status_code == 400 and "nobody" in refused.json()["error"]["message"]


def test_whoever_watches_sees_the_traffic_of_every_route(http, server):
    plain = bare(ask(http, text()))
    with http.stream("GET", "/v1/readings") as feed:
        lines = (x[6:] for x in feed.iter_lines() if x.startswith("data: "))
        head = json.loads(next(lines))
        assert head["layers"] == list(range(LAYERS)) and head["concepts"] == list(CONCEPTS) and head["z"]
        with httpx.Client(base_url=server.url, timeout=600) as other:
            assert bare(ask(other, text())) == plain
            body = {"model": "embedded", "input": "hi", "max_output_tokens": 3, "temperature": 0}
            assert other.post("/v1/responses", json=body).status_code == 200
            streamed = events(other, chat(max_tokens=3, steering=PLAN, readout=ALL))
        found: dict[str, list[Any]] = {}
        while sum(e[-1]["event"] == "end" for e in found.values()) < 3:
            event = json.loads(next(lines))
            found.setdefault(event["request"], []).append(event)
    assert [len(e) - 1 for e in found.values()] == [12, 3, 3]
    read = np.array(joined(streamed)["values"])
    ours = np.array([e["values"] for e in list(found.values())[2][:-1]])
    assert np.allclose(ours, (read - 0.25) / 2, rtol=1e-3, atol=1e-3)
    assert "morning" not in json.dumps(found)
    unread = ask(http, text(readout={"layers": [2]}))
    assert settled(http) == (0, 0) and unread["choices"][0]["text"] == plain["choices"][0]["text"]


def verb(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    """The command line, in a process of its own."""
    script = "import sys; from trimtab.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=environment, **pipes, **more)


def test_the_watch_verb_reads_the_feed_of_vllms_server(server, http):
    watch = verb("watch", server.url, "--json", "--timeout", "300")
    try:
        until = time.monotonic() + 300
        while watch.poll() is None and time.monotonic() < until:
            ask(http, text(max_tokens=2))
            time.sleep(0.25)
        record = json.loads(watch.communicate(timeout=60)[0])
    finally:
        watch.kill()
    assert watch.returncode == 0 and all(c in json.dumps(record) for c in CONCEPTS)


def test_the_chat_verb_speaks_with_vllms_server(server):
    chat = verb("chat", server.url, "--json", "--max-tokens", "6", "--temperature", "0")
    said = "/read happy sad\nHow was your day?\n/steer happy 0.8 1-4\nHow was your day?\n"
    out, _ = chat.communicate(said, timeout=600)
    record = json.dumps(json.loads(out))
    assert chat.returncode == 0 and "fingerprint" in record and "plain" in record
