"""The operator's limits on any request, before an app that notes what reaches it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from trimtab.errors import InputError
from trimtab.server.bounds import Bounds
from trimtab.server.settings import Settings


class App:
    """Reads a body, answers with its length; streams when asked to; waits for `gate` in between."""

    def __init__(self, kind: bytes = b"application/json") -> None:
        self.gate, self.kind, self.read, self.cancelled = asyncio.Event(), kind, b"", False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            self.read += message.get("body", b"")
            if not message.get("more_body"):
                break
        try:
            if self.kind != b"application/json":
                await send(
                    {"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.kind)]}
                )
                await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.kind == b"application/json":
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.kind)]}
            )
        await send({"type": "http.response.body", "body": str(len(self.read)).encode()})


async def ask(bounds: Bounds, *pieces: bytes, length: int | None = None, method: str = "POST") -> list[Any]:
    parts = [
        {"type": "http.request", "body": p, "more_body": i + 1 < len(pieces)} for i, p in enumerate(pieces)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    await bounds({"type": "http", "method": method, "path": "/v1/x", "headers": headers}, receive, send)
    return sent


def error(sent: list[Any]) -> tuple[int, str]:
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]["message"]


def test_a_long_body_is_refused_before_it_is_read():
    async def run() -> None:
        app = App()
        app.gate.set()
        bounds = Bounds(app, Settings(max_body_bytes=10))
        status, text = error(await ask(bounds, b"x" * 11, length=11))
        assert status == 413 and "10 bytes" in text and app.read == b""
        assert error(await ask(bounds, b"x" * 6, b"x" * 6))[0] == 413 and app.read == b""
        assert (await ask(bounds, b"x" * 6, b"x" * 4))[1]["body"] == b"10" and bounds.running == 0
        assert (await ask(bounds, b"x", length=1))[0]["status"] == 200

    asyncio.run(run())


def test_no_more_run_at_once_than_are_allowed():
    async def run() -> None:
        app = App()
        bounds = Bounds(app, Settings(max_requests=2))
        first = [asyncio.ensure_future(ask(bounds, b"a", length=1)) for _ in range(2)]
        await asyncio.sleep(0)
        sent = await ask(bounds, b"a", length=1)
        assert error(sent)[0] == 503 and (b"retry-after", b"1") in sent[0]["headers"]
        looking = asyncio.ensure_future(ask(bounds, b"", method="GET"))  # a feed does not count
        await asyncio.sleep(0)
        app.gate.set()
        assert [s[0]["status"] for s in await asyncio.gather(*first, looking)] == [200] * 3
        assert bounds.running == 0 and (await ask(bounds, b"a", length=1))[0]["status"] == 200

    asyncio.run(run())


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream", b"application/octet-stream"])
def test_what_takes_too_long_is_cancelled_and_the_client_is_told(kind):
    async def run() -> None:
        app = App(kind)
        bounds = Bounds(app, Settings(max_seconds=0.05))
        if kind == b"application/octet-stream":
            with pytest.raises(TimeoutError):
                await ask(bounds, b"a", length=1)
        else:
            sent = await ask(bounds, b"a", length=1)
            if kind == b"application/json":
                assert error(sent)[0] == 504
            else:
                assert b'"code": 504' in sent[-1]["body"] and not sent[-1].get("more_body")
        assert app.cancelled and bounds.running == 0

    asyncio.run(run())


def test_the_limits_come_from_the_environment():
    given = {"TRIMTAB_MAX_BODY_BYTES": "9", "TRIMTAB_MAX_REQUESTS": "3", "TRIMTAB_MAX_SECONDS": "60"}
    found = Settings.from_environment(given)
    assert (found.max_body_bytes, found.max_requests, found.max_seconds) == (9, 3, 60.0)
    with pytest.raises(InputError, match="TRIMTAB_MAX_REQUESTS"):
        Settings.from_environment({"TRIMTAB_MAX_REQUESTS": "none"})
