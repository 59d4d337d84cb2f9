"""The operator's limits on any request: the size of its body, how many run at once, and for how long one may.

They stand in front of every route, ours or vLLM's, so that nothing has to be read before it is refused.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from trimtab.server.settings import Settings


class Bounds:
    """ASGI middleware. Only what is posted counts: a feed has no end, and the other routes do no work."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self.running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT"):
            await self.app(scope, receive, send)
            return
        most = self.settings.max_requests
        if self.running >= most:
            text = f"{self.running} requests are under way, and this server takes {most}; try again later"
            await refuse(send, 503, "ServiceUnavailableError", text, ((b"retry-after", b"1"),))
            return
        self.running += 1
        try:
            body = await bounded(scope, receive, self.settings.max_body_bytes)
            if body is None:
                text = (
                    f"the body is longer than the {self.settings.max_body_bytes} bytes that this server takes"
                )
                await refuse(send, 413, "BadRequestError", text)
            else:
                await self._timed(scope, body, send)
        finally:
            self.running -= 1

    async def _timed(self, scope: Any, receive: Any, send: Any) -> None:
        """Cancel what takes too long: the client gets an error, also in a stream that has begun."""
        begun, streams, ended = False, False, False

        async def noting(message: Any) -> None:
            nonlocal begun, streams, ended
            if message["type"] == "http.response.start":
                begun = True
                kind = dict(message.get("headers", ())).get(b"content-type", b"")
                streams = kind.startswith(b"text/event-stream")
            ended = ended or (message["type"] == "http.response.body" and not message.get("more_body"))
            await send(message)

        try:
            async with asyncio.timeout(self.settings.max_seconds):
                await self.app(scope, receive, noting)
        except TimeoutError:
            text = (
                f"the request took longer than the {self.settings.max_seconds:g} s that this server gives one"
            )
            if not begun:
                await refuse(send, 504, "TimeoutError", text)
            elif streams and not ended:
                body = b"data: " + told(504, "TimeoutError", text) + b"\n\n"
                await send({"type": "http.response.body", "body": body})
            elif not ended:
                raise  # the connection breaks off, which no client takes for an end


async def bounded(scope: Any, receive: Any, most: int) -> Any:
    """A `receive` that gives the body, read as far as is needed to know its size; None where it is too long."""
    length = dict(scope["headers"]).get(b"content-length")
    if length is not None:
        # The server itself sees to it that no more than this comes.
        return receive if length.isdigit() and int(length) <= most else None
    messages: list[Any] = []
    size = 0
    while True:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > most:
            return None
        if message["type"] != "http.request" or not message.get("more_body"):
            break

    async def again() -> Any:
        return messages.pop(0) if messages else await receive()

    return again


def told(status: int, kind: str, text: str) -> bytes:
    """OpenAI's error form."""
    return json.dumps({"error": {"message": text, "type": kind, "param": None, "code": status}}).encode()


async def refuse(send: Any, status: int, kind: str, text: str, more: Any = ()) -> None:
    """An answer that is an error."""
    body = told(status, kind, text)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
