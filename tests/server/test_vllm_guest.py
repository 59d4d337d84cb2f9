"""The engine routes in vLLM's server, by their seams: what is borrowed is counted, shared and given back."""

from __future__ import annotations

import asyncio
import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import trimtab

pytest.importorskip("torch", reason="the worker's side needs torch")
pytest.importorskip("zmq", reason="results come over a local socket: pip install 'trimtab[vllm]'")

from server.doors import PLAN, Shelf, admitted, door
from trimtab.server.busy import Busy
from trimtab.server.vllm.guard import Guard
from trimtab.server.vllm.guest import Client, Counted, Guest, Late

pytestmark = pytest.mark.engine


def test_a_guest_goes_round_the_hooks_that_refuse_tickets():
    class Theirs:
        model = "m"

        def generate(self, prompt: str) -> str:
            return f"{self.model} says {prompt}"

    @functools.wraps(Theirs.generate)
    def refusing(self: Any, prompt: str) -> str:
        raise AssertionError("not for clients")

    client = Client(Theirs())
    assert client.generate("hi") == "m says hi" and client.model == "m"
    Theirs.generate = refusing  # type: ignore[method-assign]
    assert client.generate("hi") == "m says hi"


def test_vectors_of_a_guest_are_counted_with_everybody_elses():
    async def run() -> None:
        d = door()
        d.capacity = 2
        counted, shelf = Counted(d), d.shelf
        assert isinstance(shelf, Shelf)
        held = counted.hold({"a": np.zeros(2), "b": np.zeros(2)})
        with pytest.raises(Busy, match="different vectors"):
            await admitted(d, steering=PLAN)
        with pytest.raises(Busy):
            counted.hold({"c": np.zeros(2)})
        counted.release(held)
        counted.release((counted.hold_readout(None),))  # type: ignore[arg-type]
        await admitted(d, steering=PLAN)
        with pytest.raises(Busy):
            counted.hold({"a": np.zeros(2), "b": np.zeros(2)})
        shelf.hold = lambda arrays: (_ for _ in ()).throw(OSError("gone"))  # type: ignore[method-assign]
        with pytest.raises(OSError, match="gone"):
            counted.hold({"a": np.zeros(2)})
        assert len(d._rows) == 1

    asyncio.run(run())


def test_what_either_loses_neither_reads_again():
    d = SimpleNamespace(epoch=3)
    guest = Guest.__new__(Guest)
    guest.door = d  # type: ignore[assignment]
    guest.epoch += 1
    assert d.epoch == guest.epoch == 4


def test_routes_are_hung_in_before_there_is_an_engine():
    fastapi = pytest.importorskip("fastapi", reason="the server needs fastapi: pip install 'trimtab[serve]'")
    from fastapi.testclient import TestClient

    from trimtab.server.batching import Batcher
    from trimtab.server.counter import Counter
    from trimtab.server.settings import Settings
    from trimtab.server.surface import Surface, routes

    app: Any = fastapi.FastAPI()
    app.include_router(routes(Late(app)))  # type: ignore[arg-type]
    engine = trimtab.load_engine("tiny", "reference")
    surface = Surface(engine, Batcher(engine), Counter(engine.info, Settings()))
    app.state.trimtab = SimpleNamespace(surface=surface)
    client = TestClient(app)
    assert client.get("/v1/engine").json()["engine"] == "reference"
    tokens = client.post("/v1/engine/encode", json={"text": "I feel"}).json()["tokens"]
    assert tokens == list(engine.encode("I feel", bare=True).tokens)
    surface.batcher.refuse()
    assert client.post("/v1/engine/score", content=b"").status_code == 400
    surface.batcher.close()


def test_the_guard_leaves_the_bodies_of_engines_alone():
    async def run() -> None:
        read = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            read.append(await receive())

        async def receive() -> Any:
            return {"type": "http.request", "body": b'{"steering": 1}', "more_body": True}

        async def send(message: Any) -> None:
            raise AssertionError(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/engine/score"}
        await Guard(app)(scope, receive, send)
        assert read[0]["more_body"], "it was read to its end before the route could bound it"

    asyncio.run(run())
