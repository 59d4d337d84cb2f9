"""The door before engines of ours, on the reference model: same fields, same routes, same answers as the engine."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

import trimtab
from server.tiny_app import MESSAGES, PLAN, TestClient, ask, build, chat, events, text
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.requests import CaptureSpec, Request, Sampling
from trimtab.plans import SteeringPlan
from trimtab.readouts import Readout
from trimtab.server.settings import Settings
from trimtab.sites import Site


@pytest.fixture(scope="module")
def engine():
    return trimtab.load_engine("tiny", "reference")


@pytest.fixture(scope="module")
def vectors(engine) -> ConceptVectors:
    rows = [
        Direction(n, Site(layer), u, mean=0.5, std=2.0, typical_norm=3.0)
        for n, u in engine.planted.items()
        for layer in range(4)
    ]
    return ConceptVectors.from_directions(rows)


@pytest.fixture(scope="module")
def client(engine, vectors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    vectors.save(folder / "planted.safetensors")
    (folder / "allowed").mkdir()
    vectors.only(["joy"]).renamed("bliss").save(folder / "allowed" / "more.safetensors")
    settings = Settings(readout=(folder / "planted.safetensors",), folder=folder / "allowed")
    with TestClient(build(engine, settings)) as found:
        yield found


@pytest.mark.parametrize("body", [text, chat])
def test_an_answer_is_the_engines(client, engine, vectors, body):
    asked = body(steering=PLAN, readout={"layers": "all"}, capture={"layers": "all"})
    answer = ask(client, asked)
    engine.library["planted"] = vectors
    prompt = engine.encode(asked.get("messages") or asked["prompt"], bare=True)
    plan = engine.resolve(SteeringPlan.from_json(PLAN), prompt)
    spec = CaptureSpec(tuple(Site(n) for n in range(4)))
    sampling = Sampling(max_tokens=8, ignore_eos=True)
    (done,) = engine.generate(Request(prompt, plan, sampling, spec, Readout.from_vectors(vectors)))
    choice = answer["choices"][0]
    assert (choice["message"]["content"] if body is chat else choice["text"]) == done.text
    assert choice["finish_reason"] == "length"
    assert np.allclose(choice["readout"]["values"], done.samples[0].readings.values, rtol=1e-5, atol=1e-6)
    assert choice["readout"]["position"] == len(prompt) - 1
    assert choice["capture"]["align"] == "own"
    states = load(client.get(choice["capture"]["url"]).content)
    for layer in range(4):
        assert np.array_equal(
            states[f"layer_{layer}.states"], done.samples[0].capture[layer].astype(np.float32)
        )
    assert client.get(choice["capture"]["url"]).status_code == 404
    assert answer["steering_applied"] == {
        "fingerprint": plan.fingerprint, "vectors": ["joy"], "layers": [1],
        "dose": {"joy": -2.0}, "tokens_steered": len(prompt) + 7,
    }  # fmt: skip
    plain = ask(client, body())
    assert "steering_applied" not in plain and "readout" not in plain["choices"][0]
    assert plain["choices"] != answer["choices"]
    assert plain["usage"] == {
        "prompt_tokens": len(prompt),
        "completion_tokens": 8,
        "total_tokens": len(prompt) + 8,
    }


@pytest.mark.parametrize("align", ["emitting", "own"])
def test_streams_say_the_same(client, align):
    for body in (text, chat):
        asked = body(
            n=2,
            temperature=1.0,
            seed=4,
            steering=PLAN,
            readout={"layers": [2], "align": align, "prompt": True},
        )
        whole, chunks = ask(client, asked), events(client, asked)
        for choice in whole["choices"]:
            parts = [o for c in chunks for o in c["choices"] if o["index"] == choice["index"]]
            words = "".join(o.get("text", "") or o.get("delta", {}).get("content", "") for o in parts)
            assert words == (choice.get("text") or choice["message"]["content"])
            readings = [o["readout"] for o in parts if "readout" in o]
            assert [v for r in readings for v in r["values"]] == choice["readout"]["values"]
            assert {**readings[0], "values": 0} == {**choice["readout"], "values": 0}
            assert [r["start"] for r in readings] == list(range(len(readings)))
            assert len(readings) == 8 - (align == "own")
            assert [o["prompt_readout"] for o in parts if "prompt_readout" in o] == [choice["prompt_readout"]]
            assert [o["finish_reason"] for o in parts if o["finish_reason"]] == [choice["finish_reason"]]
        assert chunks[-1]["steering_applied"] == whole["steering_applied"]
        assert sum("steering_applied" in c for c in chunks) == 1
        usage = events(client, {**asked, "stream_options": {"include_usage": True}})[-1]
        assert usage["choices"] == [] and usage["usage"] == whole["usage"] and "steering_applied" in usage


def test_prompt_rows_are_the_prompts_own_states(client, engine, vectors):
    answer = ask(client, text(steering=PLAN, readout={"layers": [3], "prompt": True}))["choices"][0]
    rows, emitting = answer["prompt_readout"], answer["readout"]
    prompt = engine.encode("I feel", bare=True)
    engine.library["planted"] = vectors
    (want,) = engine.capture([prompt], [3], plan=SteeringPlan.from_json(PLAN))
    readout = Readout.from_vectors(vectors, [Site(3)])
    assert np.allclose(np.array(rows["values"])[:, 0], readout.apply(Site(3), want[3]), rtol=1e-5, atol=1e-6)
    assert (
        np.allclose(rows["values"][-1], emitting["values"][0], rtol=1e-5, atol=1e-6) and rows["position"] == 0
    )


def test_packed_and_shortened_readings(client):
    full = np.array(ask(client, text(readout={"layers": "all"}))["choices"][0]["readout"]["values"])
    packed = ask(client, text(readout={"layers": "all", "encoding": "float16"}))["choices"][0]["readout"]
    numbers = np.frombuffer(base64.b64decode(packed["values"]), "<f2").reshape(packed["shape"])
    assert np.allclose(numbers, full, rtol=2e-3, atol=1e-3)
    top = ask(client, text(readout={"layers": "all", "top_k": 1}))["choices"][0]["readout"]
    assert np.array_equal(np.array(top["indices"])[..., 0], full.argmax(-1))
    z = ask(client, text(readout={"layers": "all", "z": True}))["choices"][0]["readout"]["values"]
    assert np.allclose(z, (full - 0.5) / 2, rtol=1e-5, atol=1e-5)


def test_content_in_parts_is_joined(client):
    parts = [{"type": "text", "text": "I "}, {"type": "text", "text": "feel"}]
    body = chat(messages=[{"role": "user", "content": parts}])
    assert ask(client, body)["choices"] == ask(client, chat())["choices"]
    body["messages"][0]["content"] = [{"type": "image_url", "image_url": {"url": "x"}}]
    assert "not text" in client.post("/v1/chat/completions", json=body).json()["error"]["message"]


def test_roles_header_and_default_plan(client):
    by_role = {"placements": [{**PLAN["placements"][0], "positions": {"role": "user"}}]}
    assert ask(client, chat(steering=by_role))["steering_applied"]["tokens_steered"] >= 1
    refused = client.post("/v1/completions", json=text(steering=by_role))
    assert refused.status_code == 400 and "role" in refused.json()["error"]["message"]
    steered = client.post("/v1/completions", json=text(vllm_xargs={"steering": json.dumps(PLAN)}))
    fingerprint = steered.json()["steering_applied"]["fingerprint"]
    assert steered.headers["x-trimtab-fingerprint"] == fingerprint
    assert client.put("/v1/steering", json={"steering": PLAN}).status_code == 200
    try:
        assert ask(client, text())["steering_applied"]["fingerprint"] == fingerprint
        assert client.get("/v1/steering").json()["steering"]["placements"][0]["vector"] == "joy"
    finally:
        client.put("/v1/steering", json={"steering": None})
    assert "x-trimtab-fingerprint" not in client.post("/v1/completions", json=text()).headers


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"steering": {"placements": [{**PLAN["placements"][0], "vector": "nobody"}]}}, "nobody"),
    ({"readout": {"layer": 1}}, "readout.layer"),
    ({"capture": {"layers": 9}}, "layer 9"),
    ({"steerling": 1}, "steerling"),
    ({"logit_bias": {"3": 5}}, "logit_bias"),
    ({"tools": [{}]}, "tools"),
    ({"vllm_xargs": {"other": 1}}, "other"),
    ({"temperature": "hot"}, "temperature"),
    ({"n": 0}, "n"),
    ({"max_tokens": 4000}, "context"),
    ({"stop": [""]}, "stop"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"stream": True, "steering": {"placements": 3}}, "placements"),
]


@pytest.mark.parametrize(("wrong", "word"), WRONG)
def test_what_is_wrong_is_said_in_openais_form(client, wrong, word):
    for body, route in ((text, "/v1/completions"), (chat, "/v1/chat/completions")):
        answer = client.post(route, json=body(**wrong))
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert word in error["message"] and error["type"] == "BadRequestError" and error["code"] == 400


def test_models_health_figures_and_description(client):
    assert client.post("/v1/completions", json=text(model="gpt")).status_code == 404
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["tiny"]
    assert client.get("/v1/models/tiny").json() == client.get("/v1/models").json()["data"][0]
    for unknown in ("gpt", "tiny/more", ""):
        told = client.get(f"/v1/models/{unknown}")
        assert told.status_code == 404 and told.json()["error"]["type"] == "NotFoundError"
        assert f"`{unknown}` does not exist" in told.json()["error"]["message"]
    assert client.get("/health").status_code == 200
    figures = client.get("/metrics").text
    assert "trimtab_vector_files 1.0" in figures and "trimtab_prompts_in_flight 0.0" in figures
    description = client.get("/openapi.json").json()
    paths, chat_body = description["paths"], description["components"]["schemas"]["ChatBody"]
    assert {"steering", "readout", "capture", "messages"} <= set(chat_body["properties"])
    forms = description["components"]["schemas"]
    assert (
        "align" in forms["ReadoutField"]["properties"] and "placements" in forms["SteeringPlan"]["properties"]
    )
    assert {"/v1/chat/completions", "/v1/completions", "/v1/vectors/load", "/v1/captures/{handle}"} <= set(
        paths
    )
    broken = client.post("/v1/completions", content="{", headers={"content-type": "application/json"})
    assert broken.status_code == 400 and broken.json()["error"]["message"]


def test_captures_of_many_answers_are_fetched_at_once(client):
    asked = text(capture={"layers": [1, 3]})
    answers = [ask(client, {**asked, "prompt": p}) for p in ("I feel glad", "They look mad", "you seem")]
    single, *urls = [a["choices"][0]["capture"]["url"] for a in answers]
    handles = [u.rpartition("/")[2] for u in urls]
    one = load(client.get(single).content)
    assert client.get(",".join([urls[0], single.rpartition("/")[2]])).status_code == 404
    many = load(client.get(",".join([urls[0], handles[1]])).content)
    assert {n.partition(".")[2] for n in many} == set(one) and len(many) == 2 * len(one)
    again = ask(client, {**asked, "prompt": "They look mad"})["choices"][0]["capture"]["url"]
    for name, array in load(client.get(again).content).items():
        assert np.array_equal(many[f"{handles[0]}.{name}"], array)


def test_vectors_over_http(client):
    assert client.get("/v1/vectors").json()["available"] == ["more.safetensors"]
    assert client.post("/v1/vectors/load", json={"file": "../planted.safetensors"}).status_code == 400
    assert client.post("/v1/vectors/load", json={"file": "more.safetensors"}).status_code == 200
    bliss = {"placements": [{**PLAN["placements"][0], "vector": "bliss"}]}
    assert ask(client, text(steering=bliss))["choices"] == ask(client, text(steering=PLAN))["choices"]
    assert client.get("/v1/readout/manifest?vectors=more").json()["concepts"] == ["bliss"]
    assert client.post("/v1/vectors/unload", json={"name": "more"}).status_code == 200
    assert client.post("/v1/completions", json=text(steering=bliss)).status_code == 400
    shown = client.post("/v1/steering/preview", json={"steering": PLAN, "messages": MESSAGES}).json()
    assert shown["layers"] == [1] and shown["placements"][0]["shift"] == -6.0 and shown["prompt_tokens"] > 5


def test_many_clients_at_once_get_their_own(client):
    bodies = [
        text(seed=i, temperature=1.0, readout={"layers": [i % 4]}, steering={
            "placements": [{**PLAN["placements"][0], "amount": float(i - 6)}]})
        for i in range(12)
    ]  # fmt: skip
    alone = [ask(client, b) for b in bodies]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda b: ask(client, b), bodies))
    for a, b in zip(alone, together, strict=True):
        assert a["choices"] == b["choices"] and a["steering_applied"] == b["steering_applied"]


def test_the_key_is_wanted(engine):
    with TestClient(build(engine, Settings(), key="secret")) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/health").status_code == 200
        assert (
            client.get("/v1/readout/manifest", headers={"Authorization": "Bearer secret"}).status_code == 404
        )


def test_a_failing_engine_is_an_error_and_not_an_answer(engine, monkeypatch):
    def broken(*args: Any) -> Any:
        raise RuntimeError("the machine is on fire")

    with TestClient(build(engine, Settings())) as client:
        monkeypatch.setattr(engine, "_forward", broken)
        for body, route in ((text, "/v1/completions"), (chat, "/v1/chat/completions")):
            answer = client.post(route, json=body(stream=body is chat))
            assert answer.status_code == 500 and "on fire" in answer.json()["error"]["message"]
        monkeypatch.undo()
        assert client.post("/v1/completions", json=text()).status_code == 200
