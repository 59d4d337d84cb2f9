"""One real vLLM server on loopback, stock but for the installed plugin, asked as its users ask: httpx and openai."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load

import trimtab
from server.malformed import requests
from server.stock import CONCEPTS, LAYERS, Server, typical, vectors
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt
from trimtab.sites import Site

pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")
openai = pytest.importorskip("openai", reason="the official client, to see that it needs no change")
pytestmark = pytest.mark.engine

FLAGS = [
    "--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "32", "--dtype", "float32", "--block-size", "32",
]  # fmt: skip
PLAN = {"placements": [{"op": "add", "vector": "happy", "dose": 1.0, "layers": [2]}]}
STACK = {
    "placements": [
        {"op": "add", "vector": "sad", "dose": 1.5, "layers": "1-3", "positions": "generated"},
        {"op": "ablate", "vector": "calm", "layers": "all"},
        {
            "op": "cap",
            "vector": "happy",
            "low": -1,
            "high": 1,
            "z": True,
            "layers": [4],
            "positions": {"role": "user"},
        },
    ]
}
MESSAGES = [{"role": "user", "content": "How was your day? Tell me about the garden and the old dog."}]
ALL = {"layers": "all"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "vectors").mkdir()
    vectors().save(folder / "vectors" / "feelings.safetensors")
    vectors(7, concepts=("brave",)).save(folder / "vectors" / "more.safetensors")
    vectors(9).save(folder / "secret.safetensors")
    found = Server(
        folder,
        {
            "VLLM_READOUT_VECTORS": str(folder / "vectors" / "feelings.safetensors"),
            "TRIMTAB_VECTOR_DIR": str(folder / "vectors"),
            "TRIMTAB_CAPTURE_SECONDS": "60",
            "VLLM_SERVER_DEV_MODE": "1",  # a route to ask the worker what it holds
        },
        FLAGS,
    )
    try:
        found.wait()
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def official(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none")


@pytest.fixture(scope="module")
def truth():
    """The same model on another engine."""
    engine = trimtab.load_engine("embedded", "transformers", dtype="float32")
    engine.library["feelings"] = vectors()
    yield engine
    engine.close()


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "embedded", "messages": MESSAGES, "max_tokens": 12, "temperature": 0, **more}


def text(**more: Any) -> dict[str, Any]:
    return {"model": "embedded", "prompt": "In the morning", "max_tokens": 12, "temperature": 0, **more}


def ask(http: httpx.Client, body: dict[str, Any], route: str | None = None) -> dict[str, Any]:
    route = route or ("/v1/chat/completions" if "messages" in body else "/v1/completions")
    answer = http.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def bare(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs between two equal requests."""
    return {k: v for k, v in answer.items() if k not in ("id", "created")}


def events(http: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    route = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    with http.stream("POST", route, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def joined(chunks: list[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """The readings of a stream put together, checked to follow one another."""
    found: dict[str, Any] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] == index and "readout" in choice:
                more = choice["readout"]
                assert more["start"] == len(found.get("values", []))
                if found:
                    assert more["position"] == found["position"] + more["start"]
                found = {**more, **found, "values": found.get("values", []) + more["values"]}
    return found


def fetch(http: httpx.Client, capture: dict[str, Any]) -> dict[str, np.ndarray]:
    body = http.get(capture["url"])
    assert body.status_code == 200 and http.get(capture["url"]).status_code == 404
    return load(body.content)


def check_readings(readout: dict[str, Any], states: dict[str, np.ndarray], align: int = 0) -> None:
    """Readings are captures times the rows, at the positions that they state."""
    values, places = np.array(readout["values"]), states["positions"].tolist()
    for n, layer in enumerate(readout["layers"]):
        rows = np.stack([vectors().direction(c, Site(layer)).unit for c in readout["concepts"]])
        for t in range(len(values)):
            at = places.index(readout["position"] + t)
            want = states[f"layer_{layer}.states"][at] @ rows.T
            assert np.abs(values[t, n] - want).max() <= 1e-4 * max(1.0, np.abs(want).max())


def test_the_official_client_streams_a_steered_answer_with_readings(official, http, truth):
    stream = official.chat.completions.create(
        **chat(),
        stream=True,
        extra_body={"steering": PLAN, "readout": ALL, "capture": ALL, "return_token_ids": True},
    )
    chunks = [c.model_dump() for c in stream]
    readout = joined(chunks)
    last = chunks[-1]
    assert last["steering_applied"]["vectors"] == ["happy"] and last["steering_applied"]["layers"] == [2]
    assert last["steering_applied"]["dose"] == {"happy": 1.0}
    assert [c for c in chunks if "steering_applied" in c] == [last]
    # Every token's readings ride in the chunk that carries the token.
    tokens = [t for c in chunks for o in c["choices"] for t in o.get("token_ids") or []]
    for c in chunks:
        for o in c["choices"]:
            assert len(o.get("token_ids") or []) == len(o.get("readout", {}).get("values", []))
    prompt = next(c["prompt_token_ids"] for c in chunks if c.get("prompt_token_ids"))
    assert len(readout["values"]) == len(tokens) == 12
    assert (readout["position"], readout["align"]) == (len(prompt) - 1, "emitting")
    assert last["steering_applied"]["tokens_steered"] == len(prompt) + len(tokens) - 1
    states = fetch(http, last["choices"][0]["capture"])
    assert states["positions"].tolist() == list(range(len(prompt) + len(tokens) - 1))
    check_readings(readout, states)
    # And the states are what another engine makes of the same tokens under the same plan.
    plan = SteeringPlan.from_json(PLAN)
    whole = Prompt(tuple(prompt + tokens[:-1]))
    (want,) = truth.capture([whole], range(LAYERS), plan=plan)
    for layer in range(LAYERS):
        got = states[f"layer_{layer}.states"]
        assert np.abs(got - want[layer]).max() <= 2e-4 * np.abs(want[layer]).max()
    plain = ask(http, chat())
    assert plain["choices"][0]["message"]["content"] != "".join(
        o["delta"].get("content") or "" for c in chunks for o in c["choices"]
    )


def test_whole_answers_say_the_same_as_streams(http):
    for body in (chat, text):
        asked = body(steering=PLAN, readout=ALL, logprobs=True if body is chat else 1)
        whole, chunks = ask(http, asked), events(http, asked)
        assert whole["choices"][0]["readout"] == joined(chunks)
        assert whole["steering_applied"] == chunks[-1]["steering_applied"]
        usage = events(http, {**asked, "stream_options": {"include_usage": True}})
        assert usage[-1]["choices"] == [] and usage[-1]["steering_applied"] == whole["steering_applied"]
        assert sum("steering_applied" in c for c in usage) == 1


def test_the_header_and_the_plan_in_vllm_xargs(http):
    direct = http.post("/v1/chat/completions", json=chat(steering=PLAN))
    xargs = http.post("/v1/chat/completions", json=chat(vllm_xargs={"steering": json.dumps(PLAN)}))
    official = direct.json()["steering_applied"]["fingerprint"]
    assert direct.headers["x-trimtab-fingerprint"] == official == xargs.headers["x-trimtab-fingerprint"]
    assert bare(direct.json()) == bare(xargs.json())
    preview = http.post("/v1/steering/preview", json={"steering": PLAN, "messages": MESSAGES}).json()
    assert preview["fingerprint"] == official and preview["placements"][0]["shift"] == pytest.approx(
        typical(2)
    )
    with http.stream("POST", "/v1/chat/completions", json=chat(steering=PLAN, stream=True)) as answer:
        assert answer.headers["x-trimtab-fingerprint"] == official
        answer.read()


def test_plain_answers_are_vllms_own_before_and_after_steered_ones(http):
    """No field and no header of ours, and the prefix cache holds nothing that a plan wrote."""
    asked = [
        chat(seed=1, temperature=1.0, logprobs=True, top_logprobs=2, n=2),
        text(logprobs=3),
        text(stop=["the"]),
    ]
    before = [bare(ask(http, a)) for a in asked]
    for a in asked:
        assert bare(ask(http, {**a, "steering": PLAN})) != before
        events(http, {**a, "steering": PLAN, "readout": ALL})
    for a, b in zip(asked, before, strict=True):
        answer = http.post("/v1/chat/completions" if "messages" in a else "/v1/completions", json=a)
        assert bare(answer.json()) == b and "x-trimtab-fingerprint" not in answer.headers
        # A plan that does nothing is plain as well, and says so.
        nothing = bare(ask(http, {**a, "steering": {"placements": []}}))
        assert nothing.pop("steering_applied")["fingerprint"] == "plain" and nothing == b
    words = json.dumps(before)
    assert "readout" not in words and "steering_applied" not in words and "capture" not in words


def test_a_stack_by_role_is_the_plan_of_another_engine(http, truth):
    answer = ask(http, chat(steering=STACK, readout=ALL, capture=ALL, return_token_ids=True))
    choice = answer["choices"][0]
    prompt, tokens = answer["prompt_token_ids"], choice["token_ids"]
    encoded = truth.encode(MESSAGES)
    assert list(encoded.tokens) == prompt
    plan = truth.resolve(SteeringPlan.from_json(STACK), encoded)
    assert answer["steering_applied"]["fingerprint"] == plan.fingerprint
    (want,) = truth.capture([Prompt(tuple(prompt + tokens[:-1]))], range(LAYERS), plan=plan)
    states = fetch(http, choice["capture"])
    for layer in range(LAYERS):
        assert np.abs(states[f"layer_{layer}.states"] - want[layer]).max() <= 2e-4 * np.abs(want[layer]).max()
    refused = http.post("/v1/completions", json=text(steering=STACK))
    assert refused.status_code == 400 and "role" in refused.json()["error"]["message"]


def test_several_samples_stop_strings_and_logprobs(http):
    asked = text(
        n=3, temperature=1.0, seed=3, logprobs=1, stop=["ing"], max_tokens=40, readout=ALL, steering=PLAN,
        capture={"layers": "all", "positions": "generated"}, return_token_ids=True,
    )  # fmt: skip
    whole, chunks = ask(http, asked), events(http, asked)
    lengths = []
    for choice in whole["choices"]:
        readout = choice["readout"]
        assert len(readout["values"]) == len(choice["token_ids"]) == len(choice["logprobs"]["tokens"])
        states = fetch(http, choice["capture"])
        length = len(choice["prompt_token_ids"])
        assert states["positions"].tolist() == list(range(length, length + len(choice["token_ids"]) - 1))
        own = {**readout, "values": readout["values"][1:], "position": readout["position"] + 1}
        check_readings(own, states)
        streamed = joined(chunks, choice["index"])
        assert np.allclose(streamed["values"], readout["values"], atol=1e-3)
        lengths.append(length + len(choice["token_ids"]) - 1)
    assert len({tuple(c["token_ids"]) for c in whole["choices"]}) > 1
    assert whole["steering_applied"]["tokens_steered"] == sum(lengths)
    for c in chunks:
        for o in c["choices"]:
            assert len(o.get("token_ids") or []) == len(o.get("readout", {}).get("values", []))
    several = ask(
        http, text(prompt=["In the morning", "The dog"], n=2, temperature=1, steering=PLAN, readout=ALL)
    )
    assert [len(c["readout"]["values"]) for c in several["choices"]] == [12] * 4
    assert len(several["steering_applied"]) == 2


def test_alignment_prompt_rows_and_packing(http):
    plain = ask(http, text(readout=ALL, capture=ALL))
    states = fetch(http, plain["choices"][0]["capture"])
    emitting = plain["choices"][0]["readout"]
    own = ask(http, text(readout={**ALL, "align": "own"}))["choices"][0]["readout"]
    assert own["values"] == emitting["values"][1:] and own["position"] == emitting["position"] + 1
    assert own["start"] == 0 and own["align"] == "own"
    late = events(http, text(readout={**ALL, "align": "own"}))
    assert "readout" not in late[0]["choices"][0] and joined(late) == own
    for _ in range(2):  # the second time the prompt lies in the cache
        long = "In the morning " * 30
        chunks = events(http, text(prompt=long, readout={**ALL, "prompt": True}, return_token_ids=True))
        first = chunks[0]["choices"][0]
        assert len(first["prompt_readout"]["values"]) == len(first["prompt_token_ids"]) > 64
        assert first["prompt_readout"]["values"][-1] == first["readout"]["values"][0]
        assert all("prompt_readout" not in c["choices"][0] for c in chunks[1:])
    rows = ask(http, text(readout={**ALL, "prompt": True}))["choices"][0]["prompt_readout"]
    check_readings({**rows, "position": 0}, states)
    packed = ask(http, text(readout={**ALL, "encoding": "float16"}))["choices"][0]["readout"]
    numbers = np.frombuffer(base64.b64decode(packed["values"]), "<f2").reshape(packed["shape"])
    assert np.abs(numbers - np.array(emitting["values"])).max() <= 2e-3 * np.abs(emitting["values"]).max()
    top = ask(http, text(readout={**ALL, "top_k": 2}))["choices"][0]["readout"]
    assert np.array_equal(np.argsort(-np.array(emitting["values"]))[..., :2], top["indices"])
    z = ask(http, text(readout={**ALL, "z": True, "concepts": ["sad"]}))["choices"][0]["readout"]
    assert np.allclose(z["values"], (np.array(emitting["values"])[..., 1:2] - 0.25) / 2, atol=1e-4)


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
    assert {"/v1/steering", "/v1/vectors/load", "/v1/captures/{handle}", "/v1/completions"} <= set(
        found["paths"]
    )
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        assert {"steering", "readout", "capture"} <= set(found["components"]["schemas"][name]["properties"])
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


def in_flight(http: httpx.Client) -> tuple[int, int]:
    """(requests with a program in the worker, prompts that the front end waits for); the next step tells the worker
    who is gone, so there must be one."""
    ask(http, text(max_tokens=1))
    counts = http.post("/collective_rpc", json={"method": "trimtab_counts"}).json()["results"][0]
    counts = json.loads(counts) if isinstance(counts, str) else counts
    line = next(
        x for x in http.get("/metrics").text.splitlines() if x.startswith("trimtab_prompts_in_flight")
    )
    return int(counts["programs"]), int(float(line.split()[-1]))


def settled(http: httpx.Client) -> tuple[int, int]:
    for _ in range(50):
        found = in_flight(http)
        if found == (0, 0):
            break
        time.sleep(0.1)
    return found


def test_a_client_that_goes_away_leaves_nothing(http, server):
    asked = text(max_tokens=200, ignore_eos=True, steering=PLAN, readout=ALL, capture=ALL)
    for stream in (True, True, False):
        with httpx.Client(base_url=server.url, timeout=0.7) as client:
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
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
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
        """The whole answer, and the stream; which of two prompts comes first in it is a matter of chance."""
        chunks = sorted(events(client, a), key=lambda c: c["choices"][0]["index"])
        return json.dumps([bare(ask(client, a)), *map(bare, chunks)])

    ours = [both(http, a) for a in asked]
    stock = Server(tmp_path, {**os.environ, "VLLM_PLUGINS": ""}, FLAGS, plugins=False)
    try:
        stock.wait()
        with httpx.Client(base_url=stock.url, timeout=120) as client:
            assert client.get("/v1/vectors").status_code == 404
            for a, mine in zip(asked, ours, strict=True):
                assert both(client, a) == mine
    finally:
        stock.close()


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
    for then in ("abort", {"steer": PLAN}):
        refused = http.post("/v1/completions", json=text(rules=[{"name": "x", "when": when, "then": then}]))
        assert refused.status_code == 400 and "only tag and log" in refused.json()["error"]["message"]
