"""What a request may send, how long it may take and how many run at once; and what stands in the log."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import Any

import pytest

import trimtab
from trimtab.engines.joining import OpenBatch
from trimtab.server import journal, limits
from trimtab.server.limits import Limits
from trimtab.server.settings import Settings

testclient = pytest.importorskip(
    "fastapi.testclient", reason="the server needs fastapi: pip install 'trimtab[serve]'"
)
JSON = {"content-type": "application/json"}


async def reads_all(scope: Any, receive: Any, send: Any) -> None:
    """An app that reads its body and says how long it was."""
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return  # the client is gone
        size += len(message["body"])
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


class Client:
    """One request to an ASGI app: pieces of a body, each only when it is asked for."""

    def __init__(
        self,
        *pieces: bytes,
        headers: dict[str, str] | None = None,
        path: str = "/v1/x",
        method: str = "POST",
    ) -> None:
        self.pieces, self.sent = list(pieces), []
        self.asked = 0
        self.scope = {
            "type": "http", "method": method, "path": path,
            "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()],
        }  # fmt: skip

    async def receive(self) -> Any:
        self.asked += 1
        if not self.pieces:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": self.pieces.pop(0), "more_body": bool(self.pieces)}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    async def to(self, app: Any) -> Client:
        await app(self.scope, self.receive, self.send)
        return self


def test_a_body_that_is_too_long_is_refused_before_it_is_read():
    async def run() -> None:
        app = Limits(reads_all, body_bytes=10)
        assert (await Client(b"x" * 10, headers={"content-length": "10"}).to(app)).body == b"10"
        declared = await Client(b"x" * 11, headers={"content-length": "11"}).to(app)
        assert declared.status == 413 and declared.asked == 0
        assert (
            json.loads(declared.body)["error"]["code"] == 413 and declared.headers[b"connection"] == b"close"
        )
        chunked = await Client(*[b"x" * 4] * 100).to(app)
        assert chunked.status == 413 and chunked.asked == 3
        assert len([m for m in chunked.sent if m["type"] == "http.response.start"]) == 1
        lying = await Client(*[b"x" * 4] * 100, headers={"content-length": "4"}).to(app)
        assert lying.status == 413 and app.running == 0

    asyncio.run(run())


def test_arrays_have_a_limit_of_their_own_and_other_paths_none():
    async def run() -> None:
        app = Limits(reads_all, body_bytes=10, only=("/v1/x", *limits.ARRAYS))
        assert (await Client(b"x" * 99, path="/v1/engine/capture").to(app)).body == b"99"
        over = {"content-length": str((64 << 20) + 1)}
        assert (await Client(headers=over, path="/v1/engine/capture").to(app)).status == 413
        assert (await Client(b"x" * 99, path="/v1/messages").to(app)).body == b"99"

    asyncio.run(run())


def test_a_body_that_does_not_arrive_is_given_up(monkeypatch):
    monkeypatch.setattr(limits, "ARRIVAL", 0.02)

    async def run() -> None:
        app = Limits(reads_all)
        client = Client(b"x", b"")
        client.pieces.pop()
        client.pieces = [b"x"]

        async def receive() -> Any:
            client.asked += 1
            if client.asked > 1:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": b"x", "more_body": True}

        await app(client.scope, receive, client.send)
        assert client.status == 408 and app.running == 0

    asyncio.run(run())


def test_a_full_server_says_when_to_come_again():
    async def run() -> None:
        app = Limits(reads_all, requests=2)
        waiting = [asyncio.ensure_future(Client().to(app)) for _ in range(2)]
        await asyncio.sleep(0)
        third = await Client(b"x").to(app)
        assert third.status == 503 and third.headers[b"retry-after"] == b"1" and third.asked == 0
        for path in ("/health", "/v1/readings"):  # no work, and a feed has no end
            assert (await Client(b"x", path=path, method="GET").to(app)).status == 200
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert app.running == 0 and (await Client(b"x").to(app)).status == 200

    asyncio.run(run())


def slow(kind: str, begin: bool, ended: list[str] | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begin:
            headers = [(b"content-type", kind.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if ended is not None:
                ended.append(kind)
            raise

    return app


def test_a_request_that_takes_too_long_is_ended_with_an_error():
    async def run() -> None:
        ended: list[str] = []
        before = await Client(b"x").to(Limits(slow("", False, ended), seconds=0.02))
        assert before.status == 504 and b"longer than 0.02 s" in before.body
        app = Limits(slow("text/event-stream; charset=utf-8", True, ended), seconds=0.02)
        stream = await Client(b"x").to(app)
        assert len(ended) == 2 and app.running == 0, "what nobody waits for still runs"
        events = stream.body.decode().split("\n\n")
        assert events[0] == "data: 1" and events[2] == "data: [DONE]" and not stream.sent[-1].get("more_body")
        assert json.loads(events[1][6:])["error"]["code"] == 504
        with pytest.raises(TimeoutError):  # nobody takes half of it for whole: the connection breaks
            await Client(b"x").to(Limits(slow("application/octet-stream", True), seconds=0.02))
        client = Client(b"x")
        task = asyncio.ensure_future(client.to(Limits(slow("text/event-stream", True), seconds=60)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert b"shutting down" in client.body and client.body.endswith(b"data: [DONE]\n\n")

    asyncio.run(run())


# --- on the whole server ------------------------------------------------------------------------------------------


def served(key: str | None = None, **settings: Any) -> Any:
    from trimtab.server.app import build

    return testclient.TestClient(build(trimtab.load_engine("tiny", "reference"), Settings(**settings), key))


def asked(**more: Any) -> dict[str, Any]:
    return {"prompt": "I feel SECRETWORD", "max_tokens": 4, "temperature": 0, **more}


def test_the_server_refuses_long_bodies_in_openais_form():
    with served(key="secret", max_body_bytes=200) as client:
        key = {"Authorization": "Bearer secret"}
        assert client.post("/v1/completions", json=asked(), headers=key).status_code == 200
        for content in (b"x" * 201, iter([b"x" * 150] * 3)):
            answer = client.post("/v1/completions", content=content, headers={**JSON, **key})
            assert answer.status_code == 413 and "200 bytes" in answer.json()["error"]["message"]
        assert client.post("/v1/completions", content=b"x" * 999).status_code == 401, "the key comes first"
        assert client.post("/v1/engine/score", content=b"x" * 999, headers=key).status_code == 400


def test_what_is_ended_leaves_the_engine_free(monkeypatch):
    engine = trimtab.load_engine("tiny", "reference")
    from trimtab.server.app import build

    free, step = threading.Event(), OpenBatch.step

    def held(batch: OpenBatch) -> Any:
        free.wait(60)
        return step(batch)

    app = build(engine, Settings(max_seconds=0.2, max_capture_bytes=1 << 20))
    with testclient.TestClient(app) as client:
        monkeypatch.setattr(OpenBatch, "step", held)
        for stream in (False, True):
            answer = client.post("/v1/completions", json=asked(stream=stream, capture={"layers": [1]}))
            assert answer.status_code == 504 and "0.2 s" in answer.json()["error"]["message"]
        counter = app.state.trimtab.counter
        assert counter.captures._promised == 0 and len(counter.captures) == 0
        free.set()
        monkeypatch.undo()
        # The limit is short: a busy machine may need a second try.
        codes = (client.post("/v1/completions", json=asked()).status_code for _ in range(100))
        assert next(code for code in codes if code != 504) == 200


class Memory(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines():
    memory, logger = Memory(), logging.getLogger(journal.LOGGER)
    memory.setFormatter(journal.Lines())
    before = logger.level
    logger.addHandler(memory)
    logger.setLevel(logging.INFO)
    yield memory.lines
    logger.removeHandler(memory)
    logger.setLevel(before)


@pytest.mark.parametrize("prompts", [False, True])
def test_the_log_has_a_line_for_each_request_and_text_only_where_it_is_wanted(lines, prompts):
    with served(key="secret", log_prompts=prompts) as client:
        key = {"Authorization": "Bearer secret"}
        whole = client.post("/v1/completions", json=asked(), headers=key).json()
        client.post("/v1/completions", json=asked(stream=True, n=2), headers=key)
        chat = {"messages": [{"role": "user", "content": "SECRETWORD"}], "max_tokens": 4}
        client.post("/v1/chat/completions", json=chat, headers=key)
        client.post("/v1/completions", json=asked(steering={"placements": 3}), headers=key)
        client.post("/v1/completions", json=asked())
        client.get("/health")
    found = [json.loads(line) for line in lines]
    assert [(f["event"], f["status"]) for f in found] == [("request", s) for s in (200, 200, 200, 400, 401)]
    assert found[0] | {"id": whole["id"], "prompt_tokens": whole["usage"]["prompt_tokens"]} == found[0]
    assert found[0]["completion_tokens"] == 4 and found[1]["completion_tokens"] == 8
    assert found[1]["stream"] and found[1]["finish"] == ["length", "length"] and found[1]["seconds"] > 0
    assert all({"time", "level", "path", "method", "seconds"} <= set(f) for f in found)
    assert "secret" not in "".join(lines).replace("SECRETWORD", "")
    assert ("SECRETWORD" in "".join(lines)) == prompts
    if prompts:
        assert found[0]["prompt"] == "I feel SECRETWORD" and found[0]["answers"] == [
            whole["choices"][0]["text"]
        ]
        assert found[2]["prompt"][0]["content"] == "SECRETWORD"


def test_a_fault_is_logged_with_its_place_and_not_with_its_words():
    def line(prompts: bool) -> dict[str, Any]:
        try:
            raise ValueError("cannot read SECRETWORD")
        except ValueError as error:
            fault = (type(error), error, error.__traceback__)
        record = logging.LogRecord("uvicorn.error", logging.ERROR, __file__, 1, "Exception", None, fault)
        return json.loads(journal.Lines(prompts).format(record))

    assert line(False)["error"] == "ValueError" and "test_limits.py" in line(False)["where"][0]
    assert "SECRETWORD" not in json.dumps(line(False)) and line(True)["words"] == "cannot read SECRETWORD"


def test_settings_say_what_is_wrong_with_a_limit():
    found = Settings.from_environment({"TRIMTAB_MAX_BODY_BYTES": "9", "TRIMTAB_MAX_SECONDS": "5"})
    assert (found.max_body_bytes, found.max_seconds, found.max_requests) == (9, 5.0, 256)
    with pytest.raises(trimtab.InputError, match="TRIMTAB_MAX_REQUESTS"):
        Settings.from_environment({"TRIMTAB_MAX_REQUESTS": "0"})
    with pytest.raises(trimtab.InputError, match="TRIMTAB_MAX_REQUESTS"):
        Settings.from_environment({"TRIMTAB_MAX_REQUESTS": "none"})
