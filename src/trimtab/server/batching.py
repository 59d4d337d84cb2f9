"""A queue in front of an engine: requests that wait together run together, each in its own stream of events."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from trimtab.engines.base import Engine
from trimtab.engines.requests import Event, Request
from trimtab.errors import TrimtabError
from trimtab.server.busy import Busy

#: Seconds that the first request waits for company, and requests that run at once.
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
        self.loop.call_soon_threadsafe(self.events.put_nowait, what)


class Batcher:
    """One thread runs the engine. A request whose client went away is not waited for, and a group of which all are
    gone is stopped."""

    def __init__(self, engine: Engine, group: int = GROUP, waiting: int = 256) -> None:
        self.engine, self.group = engine, group
        self._jobs: queue.Queue[Job | None] = queue.Queue(waiting)
        self._open = True
        self.running = 0
        self._thread = threading.Thread(target=self._run, name="trimtab-batches", daemon=True)
        self._thread.start()

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        """The events of one request; what is wrong with it raises before the first one."""
        prepared = await asyncio.to_thread(self.engine.prepare, request)
        job = Job(prepared, asyncio.get_running_loop())
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
        self._open = False
        self._jobs.put(None)

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
        while True:
            first = self._jobs.get()
            if first is None:
                break
            jobs, last = self._gather(first)
            self.running = len(jobs)
            self._serve([j for j in jobs if not j.gone])
            self.running = 0
            if last:
                break
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None:
                job.tell(Busy("the server is shutting down"))

    def _gather(self, first: Job) -> tuple[list[Job], bool]:
        """Who runs together, and whether the end was called."""
        jobs = [first]
        while len(jobs) < self.group:
            try:
                job = self._jobs.get(timeout=PATIENCE)
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

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
            told = (
                error if isinstance(error, TrimtabError) else TrimtabError(f"{type(error).__name__}: {error}")
            )
            for job in jobs:
                job.tell(told)
        finally:
            stream.close()
