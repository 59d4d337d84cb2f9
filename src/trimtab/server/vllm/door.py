"""One engine client of vLLM and what stands behind it: vectors that its workers hold, results that come back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from trimtab.engines.tokens import PromptEncoder
from trimtab.engines.vllm.channel import Receiver, Take
from trimtab.engines.vllm.engine import describe
from trimtab.engines.vllm.kernel import Address, Report
from trimtab.engines.vllm.shelf import Shelf
from trimtab.engines.vllm.ticket import new_keys
from trimtab.engines.vllm.worker import BANK, OPTION
from trimtab.errors import Unsupported
from trimtab.server import counter as counters
from trimtab.server import metrics
from trimtab.server.busy import Busy
from trimtab.server.settings import Settings
from trimtab.server.surface import Surface
from trimtab.server.vllm import judging
from trimtab.server.vllm.results import Results

T = TypeVar("T")
#: By engine client; a server has one.
_DOORS: dict[int, Door] = {}


class Door:
    """Opened by the first request that needs it, or when the server starts with the endpoint plugin."""

    counter: counters.Counter
    encoder: PromptEncoder
    results: Results
    #: What the workers found of the model.
    found: dict[str, Any]

    def __init__(self, client: Any) -> None:
        self.client = client
        self.epoch = 0
        #: Whether the routes of the endpoint plugin are there, and captures can be fetched.
        self.routes = False
        #: The routes of the remote engine, where they are there.
        self.surface: Surface | None = None
        #: Whether the server ends, and takes no more requests.
        self.ending = False
        #: Why no rule may act on this server; "" where they may.
        self.inexact = ""
        self.new_key = new_keys()
        # One thread: calls to the workers wait for this loop, so that the loop must not wait for them.
        self._calls = ThreadPoolExecutor(1, "trimtab-door")
        self._opening = asyncio.Lock()
        self.receiver: Receiver | None = None
        #: Who is told of every step of the workers, by the receiver's thread; each knows its own requests.
        self.listeners: list[Take] = []
        #: How many requests use each vector, and how many vectors the workers can use at once.
        self._rows: Counter[str] = Counter()
        self._counting = threading.Lock()
        self.capacity = BANK

    @classmethod
    def of(cls, client: Any) -> Door:
        """The door of an engine client."""
        if id(client) not in _DOORS:
            _DOORS[id(client)] = cls(client)
        return _DOORS[id(client)]

    @classmethod
    def known(cls, client: Any) -> Door | None:
        """The door of an engine client that was asked for one."""
        return _DOORS.get(id(client))

    @property
    def binds(self) -> str:
        """What holds for requests that ask for nothing, in words; "" for nothing."""
        if self.receiver is None:
            return ""
        if self.counter.rules:
            return "judges rules on all that is generated (TRIMTAB_RULES)"
        return "steers by default (PUT /v1/steering)" if self.counter.default is not None else ""

    @property
    def watched(self) -> bool:
        """Whether anybody looks at the readings of all traffic."""
        return self.receiver is not None and self.counter.feed is not None and self.counter.feed.watched

    async def open(self, settings: Settings | None = None) -> Door:
        """Attach to the workers and load the operator's vectors, once. A server that cannot steer says so."""
        async with self._opening:
            if self.receiver is None:
                await self._open(settings or Settings.from_environment())
        return self

    async def _open(self, settings: Settings) -> None:
        if getattr(self.client, "_client_count", 1) > 1:
            raise Unsupported("steering runs with one API server: start vLLM with --api-server-count 1")
        loop = asyncio.get_running_loop()
        self.results = Results(loop, lambda: getattr(self.client, "errored", False))
        self.listeners.append(self.results.take)
        receiver = Receiver(self._take)
        try:
            workers = await self.client.collective_rpc("trimtab_attach", args=(receiver.address,))
            refused = next((w["refused"] for w in workers if "refused" in w), "")
            if refused:
                raise Unsupported(refused)
            if not await asyncio.to_thread(receiver.settle):
                raise Unsupported(
                    "vLLM's workers are not all heard: they have to run on this machine, as this user"
                )
            self.found = found = workers[0]
            model = self.client.model_config
            name = model.served_model_name or model.model
            name = name[0] if isinstance(name, list) else name
            self.encoder = PromptEncoder(self.client.renderer.tokenizer, name)
            extra = self.client.vllm_config.additional_config
            options = extra.get(OPTION) if isinstance(extra, dict) else None
            self.capacity = int((options or {}).get("bank", BANK))
            info = describe(self.client.vllm_config, self.encoder, found, name)
            self.counter = counters.Counter(info, settings)
            self.inexact = judging.inexact(self.client.vllm_config)
            judging.check(self.counter.rules, self.inexact)
        except BaseException as error:
            receiver.close()
            if isinstance(error, (AttributeError, NotImplementedError)):
                raise Unsupported(
                    "vLLM's workers do not hold trimtab's plugin. Install trimtab in vLLM's environment, and name "
                    "it in VLLM_PLUGINS where that variable is set"
                ) from error
            raise

        def call(method: str, *args: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(
                self.client.collective_rpc(method, args=args), loop
            ).result()

        self.shelf = Shelf(call)
        self.receiver = receiver
        metrics.watch(
            lambda: len(self.results), lambda: self.counter.captures.held, lambda: len(self.counter.library)
        )

    def _take(self, reports: list[Report], results: list[tuple[Address, np.ndarray]]) -> None:
        for listener in self.listeners:
            listener(reports, results)

    def take_rows(self, names: Iterable[str]) -> tuple[str, ...]:
        """Count vectors as used; refused where the workers' bank would not hold them. Give them back, once."""
        taken = tuple(names)
        with self._counting:
            if len(self._rows.keys() | set(taken)) > self.capacity:
                raise Busy(
                    f"requests under way use {len(self._rows)} different vectors, and the workers hold "
                    f"{self.capacity}: try again later"
                )
            self._rows.update(taken)
        return taken

    def give_rows(self, names: Iterable[str]) -> None:
        """Requests that used these are done."""
        with self._counting:
            self._rows.subtract(names)
            self._rows = +self._rows

    async def hold(self, work: Callable[..., T], *args: Any) -> T:
        """Something of the shelf's that may call the workers."""
        return await asyncio.get_running_loop().run_in_executor(self._calls, work, *args)

    def release(self, names: tuple[str, ...]) -> None:
        """Requests that held these are done; nobody waits for it."""
        if names:
            self._later(self.shelf.release, names)

    def distrust(self) -> None:
        """A request was lost: what it wrote to the prefix cache is not what its plan would have written."""
        metrics.count("lost")
        self.epoch += 1
        self._later(self.shelf.forget)

    def _later(self, work: Callable[..., Any], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # closed: there are no workers any more that hold anything
            self._calls.submit(work, *args)

    def dismiss(self) -> None:
        """The server is about to end: a feed has no end of its own, and would keep it. From any thread."""
        self.ending = True
        if self.receiver is not None and self.counter.feed is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self.results.loop.call_soon_threadsafe(self.counter.feed.close)

    def close(self) -> None:
        """Let go of the channel to the workers, which are gone. From any thread."""
        if self.surface is not None:
            self.surface.batcher.refuse()
            self.surface.close()
        _DOORS.pop(id(self.client), None)
        if self.receiver is not None:
            self.receiver.close()
            self._tell_who_waits()
        self._calls.shutdown(wait=False, cancel_futures=True)

    def _tell_who_waits(self) -> None:
        """vLLM forgets the requests that its shutdown did not finish: their clients would wait for ever, and the server
        for them."""
        with contextlib.suppress(AttributeError, ImportError, RuntimeError):  # the loop is closed already
            from vllm.v1.engine.exceptions import EngineDeadError

            tell = self.client.output_processor.propagate_error
            self.results.loop.call_soon_threadsafe(tell, EngineDeadError(suppress_context=True))
