"""Answers of a real vLLM server, asked as its users ask: httpx and openai."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from server.asking import (
    ALL,
    MESSAGES,
    PLAN,
    STACK,
    ask,
    bare,
    chat,
    check_readings,
    events,
    fetch,
    joined,
    text,
)  # fmt: skip
from server.stock import LAYERS, typical
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt

pytestmark = pytest.mark.engine


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
    two = ["In the morning", "The dog"]
    several = ask(http, text(prompt=two, n=2, temperature=1, ignore_eos=True, steering=PLAN, readout=ALL))
    assert [len(c["readout"]["values"]) for c in several["choices"]] == [12] * 4
    assert len(several["steering_applied"]) == 2


def test_alignment_prompt_rows_and_packing(http):
    plain = ask(http, text(readout=ALL, capture=ALL))
    states = fetch(http, plain["choices"][0]["capture"])
    emitting = plain["choices"][0]["readout"]
    own = ask(http, text(readout={**ALL, "align": "own"}))["choices"][0]["readout"]
    assert own["values"] == emitting["values"][1:] and own["position"] == emitting["position"] + 1
    assert own["start"] == 0 and own["align"] == "own"
    late = events(http, text(readout={**ALL, "align": "own"}, return_token_ids=True))
    assert joined(late) == own
    tokens = read = 0
    for choice in (o for c in late for o in c["choices"]):  # the state of the newest token is yet to come
        tokens += len(choice.get("token_ids") or [])
        read += len(choice.get("readout", {}).get("values", []))
        assert read == max(0, tokens - 1)
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
