"""An engine behind the HTTP door, on a free port of this machine, in a thread of this process."""

from __future__ import annotations

import threading
import time
from typing import Any

from trimtab.engines.base import Engine
from trimtab.server.settings import Settings


class Served:
    """`url` until `close`. Inline vectors are allowed unless `settings` say otherwise."""

    def __init__(self, engine: Engine, settings: Settings | None = None, key: str | None = None) -> None:
        from trimtab.server.app import build

        self.run(build(engine, settings or Settings(inline=True), key))

    def run(self, app: Any) -> None:
        """Start any ASGI app."""
        import uvicorn

        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=1)
        self.app, self.server = app, uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, name="served", daemon=True)
        self.thread.start()
        until = time.monotonic() + 120
        while not self.server.started:
            assert time.monotonic() < until and self.thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @classmethod
    def of(cls, app: Any) -> Served:
        """Serve an app that stands for a faulty server."""
        found = cls.__new__(cls)
        found.run(app)
        return found

    def close(self) -> None:
        """Stop, and wait for it."""
        self.server.should_exit = True
        self.thread.join(timeout=60)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
