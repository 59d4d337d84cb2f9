"""In front of all routes: our fields on a route that does not take them are refused, and the fingerprint is stamped.

vLLM's other request models (Anthropic's messages, tokens in and out) drop unknown fields while they parse, so that only
the body itself still shows them.
"""

from __future__ import annotations

import json
import os
from typing import Any

from trimtab.server.limits import Answer, Limits
from trimtab.server.receipts import HEADER
from trimtab.server.settings import Settings
from trimtab.server.vllm.plugin import told
from trimtab.server.wire import FIELDS

ADMITTING = ("/v1/chat/completions", "/v1/completions")
OURS = ("/v1/steering", "/v1/steering/preview", "/v1/vectors/load", "/v1/vectors/unload")
#: Bodies of the remote engine are mostly no JSON; none of them is read here.
ENGINE = "/v1/engine/"
WORDS = (ENGINE + "encode", ENGINE + "decode")

#: By the variable that sets it, what all routes are limited in.
STATED = {
    "TRIMTAB_MAX_BODY_BYTES": "body_bytes",
    "TRIMTAB_MAX_REQUESTS": "requests",
    "TRIMTAB_MAX_SECONDS": "seconds",
}
#: Where nothing sets it. Wider than our own server's: bodies may carry images, and vLLM has a queue of its own.
WIDE = {"body_bytes": 64 << 20, "requests": 1024, "seconds": 3600.0}


def attach(app: Any) -> None:
    """Stand in front of an app's routes. Who only has trimtab installed keeps vLLM's routes as vLLM has them, but for
    what a variable limits; who names it in VLLM_PLUGINS has all routes limited, and ours to shorter bodies."""
    limits = Limits.of(Settings.from_environment())
    app.add_middleware(Guard)
    found = {name: limits[name] for variable, name in STATED.items() if os.environ.get(variable)}
    if told():
        app.add_middleware(Limits, body_bytes=limits["body_bytes"], only=(*OURS, *WORDS))
        found = WIDE | found
    if found:
        app.add_middleware(Limits, **found)


class Guard:
    """ASGI middleware."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def stamped(message: Any) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 503 and b"retry-after" not in dict(message.get("headers", ())):
                    message = {**message, "headers": [*message.get("headers", ()), (b"retry-after", b"1")]}
                fingerprint = (scope.get("state") or {}).get("trimtab_fingerprint")
                if fingerprint:
                    headers = [*message.get("headers", ()), (HEADER.lower().encode(), fingerprint.encode())]
                    message = {**message, "headers": headers}
            await send(message)

        if scope["method"] == "POST" and _ends(scope):
            await Answer(send).refuse(503, "ServiceUnavailableError", "the server is shutting down")
            return
        takes = scope["path"].endswith((*ADMITTING, *OURS)) or ENGINE in scope["path"]
        if scope["method"] == "POST" and not takes:
            body, receive = await _read(receive)
            ours = fields_in(body)
            if ours:
                await _refuse(send, scope["path"], ours)
                return
        await self.app(scope, receive, stamped)


def _ends(scope: Any) -> bool:
    """Whether vLLM finishes what runs, and has no room for more: its own answer would be an error without sense."""
    state = getattr(scope.get("app"), "state", None)
    return bool(getattr(getattr(state, "trimtab", None), "ending", False))


def fields_in(body: bytes) -> list[str]:
    """Our fields at the top of a JSON body."""
    if not any(f'"{field}"'.encode() in body for field in FIELDS):
        return []
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return []
    return [field for field in FIELDS if isinstance(data, dict) and data.get(field) is not None]


async def _read(receive: Any) -> tuple[bytes, Any]:
    """The body, and a `receive` that gives it again."""
    messages: list[Any] = []
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request" or not message.get("more_body"):
            break

    async def again() -> Any:
        return messages.pop(0) if messages else await receive()

    return b"".join(m.get("body", b"") for m in messages), again


async def _refuse(send: Any, path: str, fields: list[str]) -> None:
    text = f"{', '.join(fields)}: {path} takes no such fields; send them to {' or '.join(ADMITTING)}"
    error = {"message": text, "type": "BadRequestError", "param": fields[0], "code": 400}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
