"""A real vLLM server among many clients: who is refused, who goes away, and that nobody gets another's."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import httpx
import numpy as np
import pytest

from server.asking import (
    ALL,
    FLAGS,
    MESSAGES,
    PLAN,
    ask,
    bare,
    chat,
    events,
    joined,
    settled,
    text,
)  # fmt: skip
from server.malformed import requests
from server.stock import CONCEPTS, LAYERS, Server, vectors

pytestmark = pytest.mark.engine


def test_every_malformed_request_is_refused_in_words(http):
    faults = requests()
    assert len(faults) >= 500
    for i, (word, fields) in enumerate(faults):
        body = chat(**fields) if i % 2 else text(**fields)
        content = json.dumps(
            {**body, "stream": i % 3 == 0}
        )  # NaN and Infinity included, as Python writes them
        route = "/v1/chat/completions" if i % 2 else "/v1/completions"
        answer = http.post(route, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (word, fields, answer.text[:300])
        error = answer.json()["error"]
        assert (
            error["type"] in ("BadRequestError", "Bad Request") and error["code"] == 400 and error["message"]
        )
    figures = http.get("/metrics").text
    assert 'trimtab_requests_total{outcome="refused"}' in figures


def test_routes_that_do_not_steer_refuse(http):
    hello = {"model": "embedded", "max_tokens": 3}
    others = {
        "/v1/responses": {"model": "embedded", "input": "hi", "max_output_tokens": 3},
        "/v1/messages": {**hello, "messages": MESSAGES},
        "/v1/chat/completions/batch": {**hello, "messages": [MESSAGES]},
    }
    for route, body in others.items():
        for field in ({"steering": PLAN}, {"readout": True}, {"capture": ALL}):
            answer = http.post(route, json={**body, **field})
            assert (
                answer.status_code == 400 and "/v1/chat/completions" in answer.json()["error"]["message"]
            ), route
        assert http.post(route, json=body).status_code == 200, route
    forged = {"temperature": 0, "max_tokens": 3, "extra_args": {"trimtab": "{}"}}
    answer = http.post("/inference/v1/generate", json={"token_ids": [5, 6, 7], "sampling_params": forged})
    assert answer.status_code in (400, 403, 404), (
        answer.text
    )  # a route that vLLM opens only when it is told to
    assert "beam" in http.post("/v1/completions", json=text(use_beam_search=True, readout=True)).text
    assert http.post("/v1/completions", json=text(echo=True, readout=True)).status_code == 400


def test_our_routes_and_fields_stand_in_vllms_document_and_our_routes_are_limited(http):
    found = http.get("/openapi.json").json()
    ours = {"/v1/steering", "/v1/vectors/load", "/v1/captures/{handle}", "/v1/engine/score"}
    assert {*ours, "/v1/completions"} <= set(found["paths"])
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        fields = set(found["components"]["schemas"][name]["properties"])
        assert {"steering", "readout", "capture", "rules"} <= fields
    long = http.post("/v1/steering/preview", content=iter([b" " * (1 << 20)] * 9))
    assert long.status_code == 413 and "8388608 bytes" in long.json()["error"]["message"]


def test_vectors_are_loaded_from_the_allowed_folder_only(http):
    known = http.get("/v1/vectors").json()
    assert [v["name"] for v in known["data"]] == ["feelings"] and known["default"] == "feelings"
    assert known["available"] == ["feelings.safetensors", "more.safetensors"]
    brave = {"placements": [{"op": "add", "vector": "brave", "dose": 1, "layers": 2}]}
    assert http.post("/v1/completions", json=text(steering=brave)).status_code == 400
    for file in (
        "../secret.safetensors",
        "/etc/passwd",
        "vectors/../../secret.safetensors",
        "none.safetensors",
    ):
        assert http.post("/v1/vectors/load", json={"file": file}).status_code == 400, file
    assert http.post("/v1/vectors/load", json={"file": "more.safetensors"}).status_code == 200
    steered = ask(http, text(steering=brave, readout={"vectors": "more", "layers": [2]}))
    assert steered["choices"][0]["readout"]["concepts"] == ["brave"]
    assert http.post("/v1/vectors/unload", json={"name": "more"}).status_code == 200
    assert http.post("/v1/completions", json=text(steering=brave)).status_code == 400
    manifest = http.get("/v1/readout/manifest").json()
    assert manifest["concepts"] == list(CONCEPTS) and manifest["layers"] == list(range(LAYERS))
    assert http.get("/v1/readout/manifest?vectors=more").status_code == 404
    assert http.get("/v1/captures/guess").status_code == 404


def test_the_default_plan_steers_whoever_names_none(http):
    plain, steered = bare(ask(http, text())), ask(http, text(steering=PLAN))
    assert http.put("/v1/steering", json={"steering": PLAN}).status_code == 200
    try:
        answer = http.post("/v1/completions", json=text())
        assert bare(answer.json()) == bare(steered)
        assert answer.headers["x-trimtab-fingerprint"] == steered["steering_applied"]["fingerprint"]
        explicit = bare(ask(http, text(steering={"placements": []})))
        assert explicit.pop("steering_applied")["fingerprint"] == "plain" and explicit == plain
        refused = http.post(
            "/v1/responses", json={"model": "embedded", "input": "hi", "max_output_tokens": 3}
        )
        assert refused.status_code == 400 and "by default" in refused.text
        assert http.post("/v1/vectors/unload", json={"name": "feelings"}).status_code == 400
    finally:
        assert http.put("/v1/steering", json={"steering": None}).status_code == 200
    assert bare(ask(http, text())) == plain


def test_a_client_that_goes_away_leaves_nothing(http, server):
    asked = text(max_tokens=200, ignore_eos=True, steering=PLAN, readout=ALL, capture=ALL)
    for stream in (True, True, False):
        # Who streams leaves after a token, however late that comes; who waits for the whole loses patience.
        patience = httpx.Timeout(600, read=600 if stream else 0.7)
        with httpx.Client(base_url=server.url, timeout=patience) as client:
            try:
                with client.stream("POST", "/v1/completions", json={**asked, "stream": stream}) as answer:
                    next(answer.iter_lines())
            except httpx.ReadTimeout:
                assert not stream
    assert settled(http) == (0, 0)
    assert ask(http, text(steering=PLAN, readout=ALL))["choices"][0]["readout"]["values"]


def test_many_clients_with_plans_of_their_own(http, server):
    """Each equals its own solo run: nobody gets another's plan, readings or text."""
    bodies = [
        text(
            prompt=f"The {word} in the morning",
            steering={
                "placements": [
                    {"op": "add", "vector": CONCEPTS[i % 3], "dose": 0.5 + i / 20, "layers": [i % 6]}
                ]
            }
            if i % 4
            else None,
            readout={"layers": [i % 6]} if i % 3 else None,
            stream=True,
        )
        for i, word in enumerate(["dog", "tree", "girl", "river", "house", "bird"] * 4)
    ]
    bodies = [{k: v for k, v in b.items() if v is not None} for b in bodies]
    solo = [events(http, b) for b in bodies]

    async def one(client: httpx.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            lines = [x[6:] async for x in answer.aiter_lines() if x.startswith("data: {")]
        return [json.loads(x) for x in lines]

    async def together() -> list[list[dict[str, Any]]]:
        async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
            return await asyncio.gather(*(one(client, b) for b in bodies))

    for body, alone, crowd in zip(bodies, solo, asyncio.run(together()), strict=True):
        words = ["".join(c["choices"][0]["text"] for c in found if c["choices"]) for found in (alone, crowd)]
        assert words[0] == words[1], body
        assert alone[-1].get("steering_applied") == crowd[-1].get("steering_applied")
        if "readout" in body:
            assert np.allclose(joined(alone)["values"], joined(crowd)["values"], rtol=1e-4, atol=1e-3)
    assert settled(http) == (0, 0)


@pytest.mark.check
def test_plain_answers_are_those_of_a_server_without_trimtab(server, http, tmp_path):
    """A second server, to which nothing of ours is known."""
    asked = [
        chat(), chat(seed=1, temperature=1.0, n=2, logprobs=True, top_logprobs=2), text(logprobs=3, stop=["the"]),
        text(prompt=["In the", "The dog"], max_tokens=30),
    ]  # fmt: skip

    def both(client: httpx.Client, a: dict[str, Any]) -> str:
        """The whole answer, and the stream put together: which of two prompts comes first in it, and whether two tokens
        come in one chunk, is a matter of chance."""
        about: Any = {}
        streams: dict[int, Any] = {}
        for chunk in events(client, a):
            for choice in chunk.pop("choices"):
                streams[choice["index"]] = merged(streams.get(choice["index"], {}), choice)
            about = merged(about, bare(chunk))
        return json.dumps([bare(ask(client, a)), about, *(streams[i] for i in sorted(streams))])

    def merged(one: Any, other: Any, name: str = "") -> Any:
        """Texts and lists joined, in whatever they lie; of anything else the later one."""
        if isinstance(one, dict) and isinstance(other, dict):
            return {k: merged(one.get(k), other.get(k), k) for k in sorted({*one, *other})}
        if isinstance(one, list) and isinstance(other, list):
            return one + other
        if name in ("text", "content") and isinstance(one, str) and isinstance(other, str):
            return one + other
        return one if other is None else other

    ours = [both(http, a) for a in asked]
    stock = Server(tmp_path, {**os.environ, "VLLM_PLUGINS": ""}, FLAGS, plugins=False)
    with stock, httpx.Client(base_url=stock.url, timeout=600) as client:
        assert client.get("/v1/vectors").status_code == 404
        for a, mine in zip(asked, ours, strict=True):
            assert both(client, a) == mine


@pytest.mark.check
def test_a_server_that_nobody_told_of_trimtab_steers_or_refuses(http, tmp_path, monkeypatch):
    """As whoever has trimtab installed starts vLLM: `VLLM_PLUGINS` is not set, and our routes are not loaded."""
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    vectors().save(tmp_path / "feelings.safetensors")
    found = {"TRIMTAB_READOUT_VECTORS": str(tmp_path / "feelings.safetensors")}
    stock = Server(tmp_path, found, FLAGS, plugins=False)
    wanted = {"steering": PLAN, "readout": {"layers": [2]}}
    with stock, httpx.Client(base_url=stock.url, timeout=600) as client:
        assert client.get("/v1/vectors").status_code == 404
        for body in (chat, text):
            mine, theirs = (ask(c, body(**wanted)) for c in (client, http))
            assert mine["steering_applied"] == theirs["steering_applied"]
            (one,), (other,) = mine["choices"], theirs["choices"]
            assert one.get("text") == other.get("text") and one.get("message") == other.get("message")
            assert np.allclose(one["readout"]["values"], other["readout"]["values"], rtol=1e-4, atol=1e-3)
            refused = client.post(f"/v1/{'chat/' if body is chat else ''}completions", json=body(capture=ALL))
            assert refused.status_code == 400 and "VLLM_PLUGINS" in refused.text
        wrong = {"placements": [{**PLAN["placements"][0], "vector": "hapy"}]}
        assert client.post("/v1/completions", json=text(steering=wrong)).status_code == 400
        hello = {"model": "embedded", "input": "hi", "max_output_tokens": 3}
        for field in ({"steering": PLAN}, {"readout": True}, {"capture": ALL}):
            assert client.post("/v1/responses", json={**hello, **field}).status_code == 400, field
        assert client.post("/v1/responses", json=hello).status_code == 200
