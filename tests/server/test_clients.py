"""Clients that know nothing of trimtab, against a live server on loopback: each as `docs/clients.md` says it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

import trimtab
from trimtab.directions import ConceptVectors, Direction
from trimtab.errors import SteeringLost
from trimtab.server.settings import Settings
from trimtab.sites import Site

httpx = pytest.importorskip("httpx", reason="the server needs httpx: pip install 'trimtab[serve]'")
pytest.importorskip("uvicorn", reason="the server needs uvicorn: pip install 'trimtab[serve]'")

PLAN = {"placements": [{"op": "add", "vector": "joy", "amount": -6.0, "layers": [1]}]}
MESSAGES = [{"role": "user", "content": "I feel"}]
BODY = {"model": "tiny", "messages": MESSAGES, "max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from engines.served import Served

    engine = trimtab.load_engine("tiny", "reference")
    file = tmp_path_factory.mktemp("vectors") / "planted.safetensors"
    rows = [
        Direction(n, Site(layer), u, mean=0.5, std=2.0, typical_norm=3.0)
        for n, u in engine.planted.items()
        for layer in range(4)
    ]
    ConceptVectors.from_directions(rows).save(file)
    found = Served(engine, Settings(readout=(file,)), key="secret")
    yield found
    found.close()


def steered(server: Any) -> dict[str, Any]:
    """What any client should get."""
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        json={**BODY, "steering": PLAN, "readout": {"layers": [2]}},
        headers={"Authorization": "Bearer secret"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs the curl program")
def test_curl(server, tmp_path):
    def curl(*words: str) -> subprocess.CompletedProcess[str]:
        key = ["-H", "Authorization: Bearer secret"]
        return subprocess.run(["curl", "-sS", *key, *words], capture_output=True, text=True, timeout=60)

    def post(body: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
        kind = ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        return curl(f"{server.url}/v1/chat/completions", *kind, *more)

    want = steered(server)
    asked = {**BODY, "steering": PLAN, "readout": {"layers": [2]}}
    found = json.loads(post(asked).stdout)
    assert found["choices"] == want["choices"] and found["steering_applied"] == want["steering_applied"]
    head = post(asked, "-i").stdout.split("\r\n\r\n", 1)[0].lower()
    assert f"x-trimtab-fingerprint: {want['steering_applied']['fingerprint']}" in head
    events = [x for x in post({**asked, "stream": True}, "-N").stdout.split("\n\n") if x]
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(e.removeprefix("data: ")) for e in events[:-1]]
    text = "".join(o["delta"].get("content", "") for c in chunks for o in c["choices"])
    assert text == want["choices"][0]["message"]["content"]
    handle = json.loads(post({**BODY, "capture": {"layers": [2]}}).stdout)["choices"][0]["capture"]
    file = tmp_path / "states.safetensors"
    assert curl(server.url + handle["url"], "-o", str(file), "--fail").returncode == 0
    assert load(file.read_bytes())["layer_2.states"].shape == (handle["rows"], 32)
    wrong = post(
        {**BODY, "steering": {"placements": [{**PLAN["placements"][0], "vector": "jox"}]}}, "--fail-with-body"
    )
    assert wrong.returncode == 22 and "Did you mean 'joy'" in json.loads(wrong.stdout)["error"]["message"]
    big = tmp_path / "big.json"
    big.write_bytes(b" " * (9 << 20))
    place = f"{server.url}/v1/chat/completions"
    for more in ([], ["-H", "Transfer-Encoding: chunked"]):
        told = curl(place, "--data-binary", f"@{big}", *more, "-o", str(file), "-w", "%{http_code}")
        assert told.stdout == "413", told


def test_the_official_client_over_a_real_connection(server):
    openai = pytest.importorskip("openai", reason="the official client, to see that it needs no change")
    want = steered(server)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret") as client:
        more = {"steering": PLAN, "readout": {"layers": [2]}}
        stream = list(client.chat.completions.create(**BODY, stream=True, extra_body=more))
        parts = [c.choices[0] for c in stream if c.choices]
        assert "".join(p.delta.content or "" for p in parts) == want["choices"][0]["message"]["content"]
        values = [v for p in parts for v in (p.model_extra or {}).get("readout", {}).get("values", [])]
        assert np.allclose(values, want["choices"][0]["readout"]["values"], rtol=1e-5)
        assert stream[-1].model_extra["steering_applied"] == want["steering_applied"]
    wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong")
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.chat.completions.create(**BODY)


def test_a_client_that_only_knows_a_base_address(server):
    """As LangChain and others send it: their own fields beside ours, and a body in small pieces."""
    key = {"Authorization": "Bearer secret"}
    with httpx.Client(base_url=f"{server.url}/v1/", headers=key, timeout=60) as client:
        assert [m["id"] for m in client.get("models").json()["data"]] == ["tiny"]
        body = {**BODY, "n": 1, "stream": False, "logprobs": None, "user": "me", "frequency_penalty": 0.0}
        text = json.dumps({**body, "steering": PLAN, "readout": {"layers": [2]}}).encode()
        pieces = (text[i : i + 7] for i in range(0, len(text), 7))
        answer = client.post("chat/completions", content=pieces, headers={"content-type": "application/json"})
        assert answer.json()["choices"] == steered(server)["choices"]


def test_lm_evals_requests(server):
    """The body that `lm_eval --model local-chat-completions` sends."""
    body = {
        "messages": [{"role": "user", "content": "I feel", "type": "text"}],
        "model": "tiny", "max_tokens": 6, "temperature": 0, "stop": ["\n\n", "</s>"], "seed": 1234,
    }  # fmt: skip
    answer = httpx.post(
        f"{server.url}/v1/chat/completions", json=body, headers={"Authorization": "Bearer secret"}, timeout=60
    )
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"]


def test_inspects_provider(server, monkeypatch, tmp_path):
    pytest.importorskip("inspect_ai", reason="needs Inspect: pip install 'trimtab[inspect]'")
    from inspect_ai.model import GenerateConfig, get_model

    from trimtab.clients.inspect import field

    want = steered(server)
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN))
    config = GenerateConfig(max_tokens=6, temperature=0)
    place = {"base_url": f"{server.url}/v1", "api_key": "secret", "config": config, "memoize": False}
    for plan in (PLAN, json.dumps(PLAN), str(file)):
        model = get_model("trimtab/tiny", steering=plan, readout={"layers": [2]}, **place)
        output = asyncio.run(model.generate("I feel"))
        assert output.completion == want["choices"][0]["message"]["content"]
        told = output.metadata["trimtab"]
        assert told["steering_applied"] == want["steering_applied"]
        assert told["choices"][0]["readout"]["values"] == want["choices"][0]["readout"]["values"]
    plain = asyncio.run(get_model("trimtab/tiny", **place).generate("I feel"))
    assert plain.completion != output.completion and plain.metadata["trimtab"]["steering_applied"] is None
    with pytest.raises(trimtab.InputError, match="cannot be read"):
        field("steering", "nowhere.json")
    wrong = get_model(
        "trimtab/tiny", steering={"placements": [{**PLAN["placements"][0], "vector": "jox"}]}, **place
    )
    with pytest.raises(Exception, match="joy"):
        asyncio.run(wrong.generate("I feel"))
    # A server that drops our fields gives no receipt, and its answers are withheld.
    model = get_model("trimtab/tiny", steering=PLAN, **place)
    monkeypatch.setattr(
        type(model.api), "completion_params",
        lambda self, config, tools: super(type(self), self).completion_params(config, tools),
    )  # fmt: skip
    with pytest.raises(SteeringLost):
        asyncio.run(model.generate("I feel"))
