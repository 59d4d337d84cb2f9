"""Servers that fail in one way each, and a remote engine that does not really wait between its tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engines.served import Served
from trimtab.directions import Direction
from trimtab.engines.remote.connection import Connection
from trimtab.engines.remote.packing import frame, frames
from trimtab.engines.requests import Sampling
from trimtab.plans import SteeringPlan
from trimtab.server.settings import Settings
from trimtab.sites import Site

SITE = Site(1)
LONG = Sampling(max_tokens=40, ignore_eos=True)


def plan(engine: Any, amount: float = -6.0) -> SteeringPlan:
    unit = np.random.default_rng(3).standard_normal(engine.info.width(SITE))
    return SteeringPlan.add(Direction.from_raw("d", SITE, unit), amount=amount)


def impatient(url: str, slept: list[float] | None = None, **options: Any) -> Any:
    """A remote engine that does not really wait between its tries."""
    from trimtab.engines.remote import RemoteEngine

    waits = [] if slept is None else slept
    return RemoteEngine(Connection(url, sleep=waits.append, timeout=20, **options))


class Between:
    """ASGI middleware that hands the calls of one path to `meddle(calls so far, app, scope, receive, send)`."""

    def __init__(self, app: Any, path: str, meddle: Callable[..., Any]) -> None:
        self.app, self.path, self.meddle, self.calls = app, path, meddle, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == self.path:
            self.calls += 1
            await self.meddle(self.calls, self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)


def meddled(local: Any, path: str, meddle: Callable[..., Any]) -> tuple[Served, Between]:
    from trimtab.server.app import build

    between = Between(build(local, Settings(inline=True)), path, meddle)
    return Served.of(between), between


async def busy(send: Any, after: bytes | None = None) -> None:
    headers = [(b"content-type", b"application/json")] + ([(b"retry-after", after)] if after else [])
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"error": {"message": "full"}}'})


async def dies(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Every answer breaks off after its beginning."""
    sent = 0

    async def some(message: Any) -> None:
        nonlocal sent
        sent += 1
        if sent > 6:
            raise RuntimeError("the server dies")
        await send(message)

    await app(scope, receive, some)


def rewriting(change: Callable[[list[tuple[dict[str, Any], Any]]], list[Any]]) -> Callable[..., Any]:
    """Rewrites the frames of a stream."""

    async def meddle(calls: int, app: Any, scope: Any, receive: Any, send: Any) -> None:
        held = bytearray()

        async def keep(message: Any) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                return
            held.extend(message.get("body", b""))
            if not message.get("more_body"):
                body = b"".join(frame(*pair) for pair in change(list(frames([bytes(held)]))))
                await send({"type": "http.response.body", "body": body})

        await app(scope, receive, keep)

    return meddle
