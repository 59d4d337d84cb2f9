"""In front of all routes: how much a request may send, how long it may take, and how many run at once.

It is ASGI middleware, so that a body that is too long is refused while it still arrives, whatever would read it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from trimtab.server.orders import BODY_BYTES
from trimtab.server.settings import Settings

#: Seconds in which a body has to arrive, and after which a full server may be asked again.
ARRIVAL, AGAIN = 60.0, 1
#: Routes whose bodies carry arrays; they have a limit of their own.
ARRAYS = ("/v1/engine/generate", "/v1/engine/capture", "/v1/engine/score")
#: What is limited. The other methods do no work and answer also when the server is full, and a feed has no end.
METHODS = ("POST", "PUT")


class Limits:
    """`body_bytes`, `requests` at once and `seconds` per request; None for no limit. `only` are the paths that are
    limited, all where it is None."""

    def __init__(
        self,
        app: Any,
        body_bytes: int | None = None,
        requests: int | None = None,
        seconds: float | None = None,
        only: tuple[str, ...] | None = None,
    ) -> None:
        self.app, self.body_bytes, self.requests = app, body_bytes, requests
        self.seconds, self.only = seconds, only
        self.running = 0

    @staticmethod
    def of(settings: Settings) -> dict[str, Any]:
        """What the operator set."""
        return {
            "body_bytes": settings.max_body_bytes,
            "requests": settings.max_requests,
            "seconds": settings.max_seconds,
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        free = scope["type"] != "http" or scope["method"] not in METHODS
        if free or (self.only is not None and path not in self.only):
            await self.app(scope, receive, send)
            return
        answer = Answer(send)
        if self.requests is not None and self.running >= self.requests:
            text = (
                f"{self.running} requests run or wait, and this server takes {self.requests}; try again later"
            )
            await answer.refuse(503, "ServiceUnavailableError", text)
            return
        most = self.body_bytes
        if most is not None and path in ARRAYS:
            most = max(most, BODY_BYTES)
        body = Arrival(receive, answer, most)
        if await body.declared_too_long(scope["headers"]):
            return
        self.running += 1
        try:
            await self._run(scope, body, answer)
        finally:
            self.running -= 1

    async def _run(self, scope: Any, body: Arrival, answer: Answer) -> None:
        try:
            async with asyncio.timeout(self.seconds) as clock:
                await self.app(scope, body, answer)
        except TimeoutError:
            if not clock.expired():
                raise
            text = (
                f"the request took longer than {self.seconds:g} s, which is this server's limit; it was ended"
            )
            await answer.end(504, "TimeoutError", text)
        except asyncio.CancelledError:  # the server ends, and this request did not within its grace
            if answer.events or not answer.begun:
                text = "the server is shutting down; the request was ended"
                await answer.end(503, "ServiceUnavailableError", text)
            raise
        except Exception:
            if not answer.over:  # else it is what a route does whose client was sent away
                raise


class Answer:
    """A `send` that knows whether the answer has begun, and drops what comes after its end."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self.begun = self.over = self.events = False

    async def __call__(self, message: Any) -> None:
        if self.over:
            return
        if message["type"] == "http.response.start":
            self.begun = True
            kinds = [v for k, v in message.get("headers", ()) if k.lower() == b"content-type"]
            self.events = any(k.startswith(b"text/event-stream") for k in kinds)
        await self._send(message)

    async def refuse(self, status: int, kind: str, text: str) -> None:
        """The whole answer: an error in OpenAI's form. The connection ends with it, since its body was not read."""
        body = error_body(status, kind, text)
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
        }
        if status == 503:
            headers["retry-after"] = str(AGAIN)
        await self({"type": "http.response.start", "status": status, "headers": _pairs(headers)})
        await self({"type": "http.response.body", "body": body})
        self.over = True

    async def end(self, status: int, kind: str, text: str) -> None:
        """An error, also after the answer has begun: in a stream of events as one of them. Any other answer breaks
        off, so that nobody takes it for whole."""
        if not self.begun:
            await self.refuse(status, kind, text)
        elif self.events:
            told = b"data: " + error_body(status, kind, text) + b"\n\ndata: [DONE]\n\n"
            await self({"type": "http.response.body", "body": told})
            self.over = True
        else:
            raise TimeoutError(text)


class Arrival:
    """A `receive` that counts. What is too long, or too slow, is refused; whoever reads it sees the client leave."""

    def __init__(self, receive: Any, answer: Answer, most: int | None) -> None:
        self._receive, self._answer, self._most = receive, answer, most
        self._held, self._whole = 0, False
        self._until = asyncio.get_running_loop().time() + ARRIVAL

    async def declared_too_long(self, headers: Any) -> bool:
        """Whether the length in the header is refused, before a byte of the body is read."""
        declared = dict(headers).get(b"content-length", b"")
        if self._most is None or not declared.isdigit() or int(declared) <= self._most:
            return False
        await self._too_long()
        return True

    async def __call__(self) -> Any:
        if self._answer.over:
            return {"type": "http.disconnect"}
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until) as clock:
                message = await self._receive()
        except TimeoutError:
            if not clock.expired():
                raise
            await self._answer.refuse(
                408, "RequestTimeoutError", f"the body did not arrive in {ARRIVAL:.0f} s"
            )
            return {"type": "http.disconnect"}
        if message["type"] == "http.request":
            self._held += len(message.get("body", b""))
            self._whole = not message.get("more_body")
            if self._most is not None and self._held > self._most:
                await self._too_long()
                return {"type": "http.disconnect"}
        return message

    async def _too_long(self) -> None:
        text = f"the body is longer than the {self._most} bytes that this server takes; send less at once"
        await self._answer.refuse(413, "RequestTooLargeError", text)


def error_body(status: int, kind: str, text: str) -> bytes:
    """OpenAI's error form."""
    return json.dumps({"error": {"message": text, "type": kind, "param": None, "code": status}}).encode()


def _pairs(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(k.encode(), v.encode()) for k, v in headers.items()]
