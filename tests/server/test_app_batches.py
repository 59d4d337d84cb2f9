"""Requests to the server that run together: who joins, who waits, who is refused, who leaves."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import pytest

import trimtab
from server.tiny_app import TestClient, ask, build, text
from trimtab.engines.base import Engine
from trimtab.server.settings import Settings


@pytest.fixture
def engine():
    return trimtab.load_engine("tiny", "reference")


def until(condition: Any) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_newcomer_joins_those_who_run_and_does_not_wait_for_them(engine, monkeypatch):
    forward, rows = engine._forward, []
    app = build(engine, Settings())

    def held(tracks: Any, *args: Any) -> Any:
        rows.append(len(tracks))
        if len(rows) == 4:  # the second request arrives while the first one generates
            until(lambda: app.state.trimtab.batcher.waiting)
        return forward(tracks, *args)

    with TestClient(app) as client, ThreadPoolExecutor(2) as pool:
        bodies = [text(max_tokens=n, seed=n, temperature=1.0) for n in (30, 5)]
        alone = [ask(client, b)["choices"] for b in bodies]
        monkeypatch.setattr(engine, "_forward", held)
        first = pool.submit(ask, client, bodies[0])
        until(lambda: len(rows) == 4)
        assert ask(client, bodies[1])["choices"] == alone[1]
        assert first.result(30)["choices"] == alone[0]
        assert rows == [1] * 4 + [2] * 5 + [1] * 21
        assert client.get("/health").json() == {"status": "ok", "batching": "continuous"}


def test_an_engine_without_open_batches_serves_fixed_groups_and_says_so(caplog):
    class Plain(trimtab.engines.engine_class("reference")):
        _opening = Engine._opening

    with TestClient(build(Plain.load("tiny"), Settings())) as client, ThreadPoolExecutor(6) as pool:
        said = client.get("/health").json()
        assert said["batching"] == "fixed groups" and "reference engine" in said["why"]
        assert any(said["why"] in r.getMessage() for r in caplog.records)
        bodies = [text(seed=i, temperature=1.0, n=2) for i in range(6)]
        alone = [ask(client, b)["choices"] for b in bodies]
        assert [a["choices"] for a in pool.map(lambda b: ask(client, b), bodies)] == alone


def test_who_finds_no_room_is_told_to_come_again(engine, monkeypatch):
    forward, go = engine._forward, threading.Event()
    monkeypatch.setattr(engine, "_forward", lambda *a, **k: (go.wait(20), forward(*a, **k))[1])
    settings = Settings(max_rows=2, max_waiting=1)
    with TestClient(build(engine, settings)) as client, ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(client.post, "/v1/completions", json=text(n=2)) for _ in range(9)]
        refused = next(f for f in as_completed(asked)).result()
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert "too many requests wait" in refused.json()["error"]["message"]
        go.set()
        codes = [f.result().status_code for f in asked]
        assert set(codes) == {200, 503} and codes.count(200) >= 1


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_leaves_the_batch_and_the_others_go_on(engine, monkeypatch, stream):
    """One of two clients closes its connection; its row is gone at the next token, and nothing of it is held."""
    forward, tracks, left = engine._forward, [], threading.Event()

    def watched(running: Any, *args: Any) -> Any:
        tracks.append(len(running))
        if tracks[-1] == 1:  # wait for company
            until(lambda: len(tracks) > 1 or app.state.trimtab.batcher.waiting)
        if tracks.count(2) > 3:  # and then for it to have gone
            assert left.wait(30)
        return forward(running, *args)

    app = build(engine, Settings())
    alone = asyncio.run(_answer_of(app, text(max_tokens=60)))
    monkeypatch.setattr(engine, "_forward", watched)

    async def both() -> Any:
        keeps = asyncio.create_task(_answer_of(app, text(max_tokens=60)))
        leaves = asyncio.create_task(
            _answer_of(app, text(max_tokens=400, stream=stream), lambda: tracks.count(2) > 3)
        )
        await leaves
        left.set()
        return await keeps

    assert asyncio.run(both())["choices"] == alone["choices"]
    batcher = app.state.trimtab.batcher
    batcher.close()
    assert batcher.running == 0 and max(tracks) == 2
    assert tracks.count(2) == 4  # the one who left runs no further


async def _answer_of(app: Any, body: dict[str, Any], hang_up: Any = None) -> Any:
    """What the app sends for a completion, over bare ASGI; the client is gone once `hang_up()` is true."""
    sent = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    got: list[bytes] = []

    async def receive() -> Any:
        if sent:
            return sent.pop()
        while hang_up is None or not hang_up():
            await asyncio.sleep(0.002)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        got.append(message.get("body", b""))

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
             "method": "POST", "path": "/v1/completions", "raw_path": b"/v1/completions", "root_path": "",
             "scheme": "http", "query_string": b"", "headers": headers, "client": None, "server": None}  # fmt: skip
    await app(scope, receive, send)
    return json.loads(b"".join(got)) if hang_up is None else None
