"""A queue in front of an engine: requests run together, each in its own stream of events.

Where the engine has open batches, a request joins those that run at the next token and leaves when it is done
(`trimtab.engines.joining` says who joins when). Where it has none, requests that wait together run together, and those
that come meanwhile wait for their end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from trimtab.engines.base import Engine
from trimtab.engines.joining import Failure, OpenBatch
from trimtab.engines.requests import Event, Request
from trimtab.errors import TrimtabError, Unsupported
from trimtab.records import json_line
from trimtab.server.busy import Busy

log = logging.getLogger("trimtab.server")
#: Seconds that a request waits for company where nothing runs, and requests that run at once.
PATIENCE, GROUP = 0.01, 16


@dataclass(eq=False)
class Job:
    """One request, and where its events go."""

    request: Request
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Event | BaseException | None] = field(default_factory=asyncio.Queue)
    gone: bool = False

    def tell(self, what: Event | BaseException | None) -> None:
        """From the engine's thread to the event loop."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, what)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.gone = True

    def fail(self, error: Exception) -> None:
        """End with an error."""
        known = isinstance(error, TrimtabError)
        self.tell(error if known else TrimtabError(f"{type(error).__name__}: {error}"))


class Batcher:
    """One thread runs the engine. `rows` is how many samples run at once (in fixed groups: requests), `waiting` how
    many requests may wait. A request whose client went away is not waited for. `fixed` says why requests run in fixed
    groups, where they do."""

    def __init__(self, engine: Engine, rows: int = GROUP, waiting: int = 256) -> None:
        self.engine, self.rows = engine, rows
        self._jobs: queue.Queue[Job | None] = queue.Queue(waiting)
        self._open, self._door = True, threading.Lock()
        self.running = 0
        self.fixed: str | None = None
        try:
            engine.open_batch(rows)
        except Unsupported as why:
            self.fixed = str(why)
            log.warning(json_line({"event": "batching", "mode": "fixed groups", "why": self.fixed}))
        self._thread = threading.Thread(target=self._run, name="trimtab-batches", daemon=True)
        self._thread.start()

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        """The events of one request; what is wrong with it raises before the first one."""
        prepared = await asyncio.to_thread(self.engine.prepare, request)
        job = Job(prepared, asyncio.get_running_loop())
        with self._door:
            if not self._open:
                raise Busy("the server is shutting down")
            try:
                self._jobs.put_nowait(job)
            except queue.Full:
                raise Busy("too many requests wait; try again later") from None
        try:
            while (found := await job.events.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            job.gone = True

    def refuse(self) -> None:
        """Finish what runs, refuse the rest; nobody waits for it."""
        with self._door:
            self._open = False
        with contextlib.suppress(queue.Full):  # then there is nobody to wake
            self._jobs.put_nowait(None)

    def close(self) -> None:
        """The same, and wait."""
        self.refuse()
        self._thread.join(timeout=30)

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._open and self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return self._jobs.qsize()

    def _run(self) -> None:
        if self.fixed is None:
            while self._open:
                self._run_open(self.engine.open_batch(self.rows))
        else:
            while self._open and (jobs := self._gather()):
                self.running = len(jobs)
                self._serve([j for j in jobs if not j.gone])
                self.running = 0
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None:
                job.tell(Busy("the server is shutting down"))

    # --- an open batch --------------------------------------------------------------------------------------

    def _run_open(self, batch: OpenBatch) -> None:
        """Serve until the end is called, or until the batch itself is broken."""
        serving: dict[int, Job] = {}
        numbers = itertools.count()
        try:
            while self._open or serving:
                self._welcome(batch, serving, numbers)
                for key in [k for k, job in serving.items() if job.gone]:
                    batch.leave(key)
                    del serving[key]
                self.running = len(serving)
                for found in batch.step():
                    job, ended = serving[found.request], not batch.holds(found.request)
                    if ended:
                        del serving[found.request]
                        self.running = len(serving)
                    if isinstance(found, Failure):
                        job.fail(found.error)
                        continue
                    job.tell(found)
                    if ended:
                        job.tell(None)
        except Exception as error:
            log.exception("the batch is begun anew")
            for job in serving.values():
                job.fail(error)
        self.running = 0

    def _welcome(self, batch: OpenBatch, serving: dict[int, Job], numbers: itertools.count[int]) -> None:
        """Let in whom there is room for; waits where there is nothing else to do, and then a moment for company."""
        idle = batch.idle
        while self._open and not batch.full:
            try:
                job = self._jobs.get(block=idle, timeout=None if batch.idle else PATIENCE)
            except queue.Empty:
                return
            if job is None:
                return
            if not self._open:
                job.tell(Busy("the server is shutting down"))
            elif not job.gone:
                key = next(numbers)
                serving[key] = job
                batch.join(key, job.request)

    # --- fixed groups ---------------------------------------------------------------------------------------

    def _gather(self) -> list[Job]:
        """Who runs together; nobody, when the end is called."""
        first = self._jobs.get()
        jobs = [] if first is None else [first]
        while jobs and len(jobs) < self.rows:
            try:
                job = self._jobs.get(timeout=PATIENCE)
            except queue.Empty:
                break
            if job is None:
                break
            jobs.append(job)
        return jobs

    def _serve(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        stream: Any = self.engine.stream([j.request for j in jobs])
        try:
            for event in stream:
                jobs[event.request].tell(event)
                if all(j.gone for j in jobs):
                    break
            for job in jobs:
                job.tell(None)
        except Exception as error:
            for job in jobs:
                job.fail(error)
        finally:
            stream.close()
