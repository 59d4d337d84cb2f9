"""In front of all routes: our fields on a route that does not take them are refused, and the fingerprint is stamped.

vLLM's other request models (Anthropic's messages, tokens in and out) drop unknown fields while they parse, so that only
the body itself still shows them.
"""

from __future__ import annotations

import json
from typing import Any

from trimtab.server.receipts import HEADER
from trimtab.server.wire import FIELDS

ADMITTING = ("/v1/chat/completions", "/v1/completions")
OURS = ("/v1/steering", "/v1/steering/preview", "/v1/vectors/load", "/v1/vectors/unload")
#: Bodies of the remote engine are no JSON, and are bounded where they are read.
ENGINE = "/v1/engine/"


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
                fingerprint = (scope.get("state") or {}).get("trimtab_fingerprint")
                if fingerprint:
                    headers = [*message.get("headers", ()), (HEADER.lower().encode(), fingerprint.encode())]
                    message = {**message, "headers": headers}
            await send(message)

        takes = scope["path"].endswith((*ADMITTING, *OURS)) or ENGINE in scope["path"]
        if scope["method"] == "POST" and not takes:
            body, receive = await _read(receive)
            ours = fields_in(body)
            if ours:
                await _refuse(send, scope["path"], ours)
                return
        await self.app(scope, receive, stamped)


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
    messages, body = [], b""
    while True:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            break

    async def again() -> Any:
        return messages.pop(0) if messages else await receive()

    return body, again


async def _refuse(send: Any, path: str, fields: list[str]) -> None:
    text = f"{', '.join(fields)}: {path} takes no such fields; send them to {' or '.join(ADMITTING)}"
    error = {"message": text, "type": "BadRequestError", "param": fields[0], "code": 400}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
