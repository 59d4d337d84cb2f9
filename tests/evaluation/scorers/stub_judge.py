"""A real HTTP server that answers like an OpenAI-compatible endpoint, as it is told to."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Reply = dict[str, Any] | tuple[int, str] | tuple[int, str, dict[str, str]]


def chat(text: str, *tokens: tuple[str, dict[str, float]]) -> dict[str, Any]:
    """A response; each token comes with {alternative: probability}."""
    content = [
        {
            "token": token,
            "logprob": math.log(alternatives.get(token, 1e-9)),
            "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in alternatives.items()],
        }
        for token, alternatives in tokens
    ]
    logprobs = {"content": content} if content else None
    return {"choices": [{"message": {"role": "assistant", "content": text}, "logprobs": logprobs}]}


class Stub:
    """`reply(body, n)` answers the n-th request; `seen` holds the bodies in order of arrival."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply]) -> None:
        self.reply, self.seen, self.headers = reply, [], []
        self.url = ""
        self._lock = threading.Lock()

    def app(self) -> Any:
        from fastapi import FastAPI
        from starlette.responses import JSONResponse, PlainTextResponse, Response

        app = FastAPI()

        async def answer(request: Any) -> Response:
            body = await request.json()
            with self._lock:
                self.seen.append(body)
                self.headers.append(dict(request.headers))
                n = len(self.seen)
            reply = self.reply(body, n)
            if isinstance(reply, tuple):
                return PlainTextResponse(reply[1], reply[0], headers=reply[2] if len(reply) > 2 else None)
            return JSONResponse(reply)

        app.add_route("/v1/chat/completions", answer, methods=["POST"])
        return app


@contextmanager
def serving(reply: Callable[[dict[str, Any], int], Reply]) -> Iterator[Stub]:
    """Serve on a free port of this machine until the block ends."""
    import uvicorn

    stub = Stub(reply)
    server = uvicorn.Server(uvicorn.Config(stub.app(), port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert time.monotonic() < deadline, "the stub did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    stub.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield stub
    finally:
        server.should_exit = True
        thread.join(timeout=60)
