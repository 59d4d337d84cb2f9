"""The parts of vLLM's door by themselves: nothing goes out before its receipt, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import json
from types import SimpleNamespace
from typing import Any

import pytest

from trimtab.errors import InputError, SteeringLost
from trimtab.server.busy import Busy

pytest.importorskip("torch", reason="the worker's side needs torch")
pytest.importorskip("zmq", reason="results come over a local socket: pip install 'trimtab[vllm]'")

from server.doors import PLAN, admitted, door, event, given, output, report, soon
from trimtab.engines.vllm.ticket import KEY, Ticket
from trimtab.server.vllm import guard
from trimtab.server.vllm.answers import Chunks

pytestmark = pytest.mark.engine


def test_a_token_waits_for_its_receipt():
    async def run() -> None:
        d = door()
        a = await admitted(d, steering=PLAN)
        ticket = Ticket.from_text(a.params.extra_args[KEY])  # type: ignore[attr-defined]
        assert ticket.fingerprint == a.fingerprints() and ticket.first == 0
        stream = a.follow(given(output(0, [1]), output(0, [2], "stop")))
        first = asyncio.ensure_future(anext(stream))
        assert not await soon(first)
        report(d, ticket.key, 0, 3)
        assert not await soon(first), "the last token of the prompt was not reported"
        report(d, ticket.key, 3, 1)
        assert await soon(first)
        second = asyncio.ensure_future(anext(stream))
        assert not await soon(second)
        report(d, ticket.key, 4, 1)
        assert (await second).outputs[0].finish_reason == "stop"
        assert a.journeys[0].processed() == [5]
        a.close()
        await d.hold(lambda: None)
        assert d.shelf.held == [] and len(d.results) == 0 and not d._rows

    asyncio.run(run())


def test_a_cached_beginning_needs_no_receipt_and_a_gap_does():
    async def run() -> None:
        d = door()
        a = await admitted(d, steering=PLAN)
        key = a.journeys[0].key
        stream = a.follow(given(output(0, [1]), output(0, [2, 3], "length")))
        report(d, key, 2, 2)
        assert await anext(stream)
        report(d, key, 5, 1)
        late = asyncio.ensure_future(anext(stream))
        assert not await soon(late), "position 4 was never reported"
        report(d, key, 4, 1)
        assert await late
        a.close()

    asyncio.run(run())


def test_a_lost_request_is_withheld():
    async def run() -> None:
        d = door()
        a = await admitted(d, steering=PLAN)
        stream = a.follow(given(output(0, [1], "stop")))
        report(d, a.journeys[0].key, 0, 4, lost="layer 2: broken")
        with pytest.raises(SteeringLost, match="layer 2: broken"):
            await anext(stream)
        assert d.epoch == 1
        await d.hold(lambda: None)
        assert "forgotten" in d.shelf.held
        a.close()

    asyncio.run(run())


def test_samples_are_told_apart_by_their_ids():
    async def run() -> None:
        d = door()
        a = await admitted(d, n=2, readout={"layers": [3]})
        key = a.journeys[0].key
        stream = a.follow(given(output(1, [1], "stop"), output(0, [1], "stop")))
        report(d, key, 0, 4, id="1_cmpl-0_x", layer_3_3=[1.0, 2.0, 3.0])
        report(d, key, 0, 4, id="0_cmpl-1_x", layer_3_3=[4.0, 5.0, 6.0])
        report(d, key, 0, 4, id="7_cmpl", layer_3_3=[9.0, 9.0, 9.0])
        async for _ in stream:
            pass
        rows = [part.waiting[0][1][0].tolist() for part in a.journeys[0].parts]
        assert rows == [[[4.0, 5.0, 6.0]], [[1.0, 2.0, 3.0]]]
        a.close()

    asyncio.run(run())


def test_readings_ride_in_the_chunk_of_their_token_and_the_receipt_in_the_last():
    async def run() -> None:
        d = door()
        a = await admitted(d, readout={"layers": [3]}, steering=PLAN)
        key, stream = a.journeys[0].key, None
        report(d, key, 0, 6, layer_3_3=[1.0, 2.0, 3.0], layer_3_4=[4.0, 5.0, 6.0], layer_3_5=[7.0, 8.0, 9.0])
        stream = a.follow(given(output(0, [1]), output(0, [2, 3], "stop")))

        async def server() -> Any:
            yield event(delta={"role": "assistant", "content": ""})
            async for out in stream:
                yield event(delta={"content": "t"}, finish_reason=out.outputs[0].finish_reason)
            yield "data: [DONE]\n\n"

        chunks = [c async for c in Chunks(a, server(), usage=False)]
        speaker, one, two = (json.loads(c[6:]) for c in chunks[:-1])
        assert chunks[-1] == "data: [DONE]\n\n" and chunks[0] == event(
            delta={"role": "assistant", "content": ""}
        )
        assert "readout" not in speaker["choices"][0] and "steering_applied" not in one
        assert one["choices"][0]["readout"]["values"] == [[[1.0, 2.0, 3.0]]]
        later = {"start": 1, "position": 4, "values": [[[4.0, 5.0, 6.0]], [[7.0, 8.0, 9.0]]]}
        assert two["choices"][0]["readout"] == later
        assert two["steering_applied"]["tokens_steered"] == 6
        await d.hold(lambda: None)
        assert d.shelf.held == [] and len(d.results) == 0

    asyncio.run(run())


def test_rules_are_judged_beside_the_readout_and_ride_in_the_chunk_of_their_token():
    async def run() -> None:
        d = door()
        d.counter.library.default = "feelings"
        rule = {"name": "low", "when": {"concept": "sad", "layer": 2, "below": -1.0}, "then": {"tag": "down"}}
        for more in ({}, {"readout": {"layers": [3], "concepts": ["calm"]}}):
            a = await admitted(d, rules=[rule], **more)
            joint = a.journeys[0].joint
            assert joint is not None and [s.layer for s in joint.readout.sites] == ([2, 3] if more else [2])
            width = len(joint.readout.concepts)
            column = width - 1  # the rule's own part comes last
            rows = {p: [9.0] * width for p in (3, 4, 5)}
            rows[4][column] = -4.0  # z = (-4 - .25) / 2
            layers = [s.layer for s in joint.readout.sites]
            report(
                d, a.journeys[0].key, 0, 6, **{f"layer_{n}_{p}": r for n in layers for p, r in rows.items()}
            )
            stream = a.follow(given(output(0, [1]), output(0, [2, 3], "stop")))

            async def server(stream: Any = stream) -> Any:
                async for out in stream:
                    yield event(delta={"content": "t"}, finish_reason=out.outputs[0].finish_reason)

            one, two = [json.loads(c[6:]) async for c in Chunks(a, server(), usage=False)]
            want = {"rule": "low", "position": 4, "value": -2.125, "then": [{"tag": "down"}]}
            assert "rules" not in one["choices"][0] and two["choices"][0]["rules"] == [want]
            assert two["rules"] == [{"index": 0, **want}]
            if more:
                assert one["choices"][0]["readout"]["values"] == [[[9.0]]]
            else:
                assert "readout" not in one["choices"][0]
        await d.hold(lambda: None)
        assert d.shelf.held == [] and len(d.results) == 0

    asyncio.run(run())


def test_a_stream_that_is_never_begun_leaves_nothing():
    async def run() -> None:
        d = door()

        async def server() -> Any:
            yield event()

        chunks = Chunks(await admitted(d, steering=PLAN, capture={"layers": [1]}), server(), usage=False)
        assert d.shelf.held and len(d.results) == 1 and d.counter.captures._promised
        del chunks
        gc.collect()
        await d.hold(lambda: None)
        assert d.shelf.held == [] and len(d.results) == 0 and d.counter.captures._promised == 0

    asyncio.run(run())


def test_a_full_bank_is_busy_before_anything_runs():
    async def run() -> None:
        d = door()
        d.capacity = 1
        first = await admitted(d, steering=PLAN)
        await admitted(d, steering=PLAN)  # the same vector takes no more room
        with pytest.raises(Busy, match="different vectors"):
            await admitted(d, steering={"placements": [{**PLAN["placements"][0], "vector": "sad"}]})
        with pytest.raises(InputError, match="embeddings"):
            await first.prepare([None])

    asyncio.run(run())


def test_a_shutdown_tells_those_whom_vllm_left_waiting():
    """What a request held is let go of without a word: there are no workers any more."""
    pytest.importorskip("vllm", reason="the error is vllm's own")
    told: list[Exception] = []

    async def run() -> None:
        d = door()
        a = await admitted(d, steering=PLAN)
        d.client.output_processor = SimpleNamespace(propagate_error=told.append)
        d.receiver = SimpleNamespace(close=lambda: None)  # type: ignore[assignment]
        d.close()
        assert not told, "queues of the loop are filled by the loop alone"
        await asyncio.sleep(0)
        a.close()
        d.distrust()
        d.close()

    asyncio.run(run())
    assert type(told[0]).__name__ == "EngineDeadError"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"steering": {"placements": []}, "x": 1}', ["steering"]),
        (b'{"messages": [{"readout": 1}]}', []),
        (b'{"readout": null}', []),
        (b'{"capture": ', []),
        (b"[]", []),
        (b'"steering"', []),
        (b"\xff\xfe", []),
    ],
)
def test_our_fields_in_a_body(body, found):
    assert guard.fields_in(body) == found


def test_the_guard_hands_the_body_on_or_refuses():
    async def through(path: str, body: bytes) -> list[Any]:
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            got = b""
            while True:
                message = await receive()
                got += message["body"]
                if not message["more_body"]:
                    break
            scope["state"] = {"trimtab_fingerprint": "abc"}
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": got})

        parts = [
            {"type": "http.request", "body": body[:3], "more_body": True},
            {"type": "http.request", "body": body[3:], "more_body": False},
        ]

        async def receive() -> Any:
            return parts.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await guard.Guard(app)({"type": "http", "method": "POST", "path": path}, receive, send)
        return sent

    start, body = asyncio.run(through("/v1/messages", b'{"model": "m"}'))
    assert body["body"] == b'{"model": "m"}' and start["headers"] == [(b"x-trimtab-fingerprint", b"abc")]
    start, body = asyncio.run(through("/v1/messages", b'{"steering": {}}'))
    assert start["status"] == 400 and b"/v1/chat/completions" in body["body"]
    start, _ = asyncio.run(through("/v1/completions", b'{"steering": {}}'))
    assert start["status"] == 200


def test_a_server_that_ends_takes_nothing_new_and_says_so():
    """vLLM finishes what runs, and would answer what comes with a fault of its own."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append("taken")

    async def run() -> None:
        d = door()
        state = SimpleNamespace(state=SimpleNamespace(trimtab=d))
        for method in ("POST", "GET", "POST"):
            scope = {"type": "http", "method": method, "path": "/v1/completions", "app": state}
            await guard.Guard(app)(scope, None, collect)
            d.dismiss()

    async def collect(message: Any) -> None:
        sent.append(message)

    asyncio.run(run())
    assert sent[:2] == ["taken", "taken"] and sent[2]["status"] == 503 and len(sent) == 4
    assert (b"retry-after", b"1") in sent[2]["headers"]
    assert "shutting down" in json.loads(sent[3]["body"])["error"]["message"]


def test_all_routes_are_limited_where_vllm_is_told_to_load_trimtab_and_else_as_variables_say(monkeypatch):
    fastapi = pytest.importorskip("fastapi", reason="vLLM's server is a FastAPI app")
    from fastapi.testclient import TestClient

    def served(plugins: str, **environment: str) -> Any:
        for name, value in {"VLLM_PLUGINS": plugins, **environment}.items():
            monkeypatch.setenv(name, value)
        app = fastapi.FastAPI()

        async def length(raw):
            return len(await raw.body())

        length.__annotations__ = {"raw": fastapi.Request}
        for path in ("/v1/steering/preview", "/v1/messages"):
            app.post(path)(length)

        @app.get("/busy")
        async def busy():
            return fastapi.Response(status_code=503)

        guard.attach(app)
        return TestClient(app)

    monkeypatch.delenv("TRIMTAB_MAX_BODY_BYTES", raising=False)
    nine, wide = b" " * (9 << 20), b" " * ((64 << 20) + 1)
    with served("other,trimtab") as client:
        assert client.post("/v1/messages", content=nine).json() == 9 << 20
        assert client.post("/v1/messages", content=wide).status_code == 413
        assert client.post("/v1/steering/preview", content=nine).status_code == 413
        assert client.get("/busy").headers["retry-after"] == "1"
    with served("") as client:
        assert client.post("/v1/messages", content=wide).json() == (64 << 20) + 1
    for plugins in ("", "trimtab"):
        with served(plugins, TRIMTAB_MAX_BODY_BYTES="100") as client:
            assert client.post("/v1/messages", content=iter([b" " * 60] * 9)).status_code == 413
            assert client.post("/v1/messages", content=b" " * 100).json() == 100


def test_our_fields_and_routes_are_in_the_document_of_a_foreign_server():
    fastapi = pytest.importorskip("fastapi", reason="vLLM's server is a FastAPI app")
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionResponse
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    from trimtab.server.vllm.plugin import Routes

    for _ in range(2):  # the second document is not poorer than the first
        app = fastapi.FastAPI()

        async def chat(request): ...

        async def completions(request): ...

        chat.__annotations__ = {"request": ChatCompletionRequest}
        completions.__annotations__ = {"request": CompletionRequest}
        app.post("/v1/chat/completions", response_model=ChatCompletionResponse)(chat)
        app.post("/v1/completions")(completions)
        Routes().attach_router(app)
        found = json.loads(json.dumps(app.openapi()))
        forms = found["components"]["schemas"]
        for name in ("ChatCompletionRequest", "CompletionRequest"):
            fields = forms[name]["properties"]
            assert {"steering", "readout", "capture", "rules", "temperature"} <= set(fields)
            assert fields["steering"]["anyOf"][0] == {"$ref": "#/components/schemas/SteeringPlan"}
        assert "steering_applied" in forms["ChatCompletionResponse"]["properties"]
        assert "422" in found["paths"]["/v1/completions"]["post"]["responses"], (
            "vLLM's routes stay as they are"
        )
        preview = found["paths"]["/v1/steering/preview"]["post"]["responses"]
        assert "413" in preview and "422" not in preview
        score = found["paths"]["/v1/engine/score"]["post"]["responses"]
        assert "413" in score and "422" not in score
        names = {r.rsplit("/", 1)[1] for r in _references(found)}
        assert names <= set(forms), names - set(forms)


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for part in node.values() for r in _references(part)]
    return [r for part in node for r in _references(part)] if isinstance(node, list) else []
