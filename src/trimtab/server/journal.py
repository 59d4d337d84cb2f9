"""The server's log: one JSON object a line, without text of any request or answer unless the operator asks for it."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

LOGGER = "trimtab.server"
log = logging.getLogger(LOGGER)
#: Routes that are asked all day, and whose lines would hide the others.
QUIET = ("/health", "/metrics")
_STATE = "trimtab_entry"


class Entry(dict[str, Any]):
    """What a route adds to its request's line; `later` is asked when the answer is over."""

    later: Callable[[], dict[str, Any]] | None = None

    @classmethod
    def of(cls, request: Any) -> Entry:
        """The entry of a request; one that nobody writes where there is no journal."""
        found = getattr(request.state, _STATE, None)
        return cls() if found is None else found


class Journal:
    """ASGI middleware: a line for every request that is over, however it ended."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self.app(scope, receive, send)
            return
        entry = Entry(event="request", method=scope["method"], path=scope["path"])
        scope.setdefault("state", {})[_STATE] = entry
        start = time.perf_counter()

        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                entry["status"] = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except BaseException as error:
            entry["broke"] = type(error).__name__
            raise
        finally:
            entry["seconds"] = round(time.perf_counter() - start, 4)
            if entry.later is not None:
                entry.update(entry.later())
            log.info(json.dumps(entry, ensure_ascii=False, default=str))


class Lines(logging.Formatter):
    """Every record as one JSON object: `time`, `level`, and what it says. Of an exception it tells the kind and the
    place; its words, which may quote a request, only with `prompts`."""

    def __init__(self, prompts: bool = False) -> None:
        super().__init__()
        self.prompts = prompts

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        out: dict[str, Any] = {"time": when, "level": record.levelname.lower()}
        out |= _said(record)
        if record.exc_info and record.exc_info[1] is not None:
            out |= self._broken(record.exc_info[1])
        return json.dumps(out, ensure_ascii=False, default=str)

    def _broken(self, error: BaseException) -> dict[str, Any]:
        frames = traceback.extract_tb(error.__traceback__)[-8:]
        out: dict[str, Any] = {"error": type(error).__name__}
        if self.prompts:
            out["words"] = str(error)
        return {**out, "where": [f"{f.filename}:{f.lineno} {f.name}" for f in frames]}


def _said(record: logging.LogRecord) -> dict[str, Any]:
    text = record.getMessage()
    if record.name == LOGGER:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
    return {"event": "message", "logger": record.name, "message": text}


def write(stream: TextIO | None = None, prompts: bool = False) -> logging.Handler:
    """Write our log and uvicorn's to `stream` (stderr); the handler, which whoever is done may remove."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines(prompts))
    for name, level in ((LOGGER, logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
    return handler
