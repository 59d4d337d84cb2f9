"""vLLM's asynchronous engine behind a thread of its own, so that any number of threads may use it at once."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from trimtab.errors import InputError, Unsupported

T = TypeVar("T")
#: How long the engine may take to give up a request.
GOODBYE = 10.0


class Loop:
    """An event loop in a thread, with one `AsyncLLM` in it."""

    #: Whether outputs are whole whatever their parameters say.
    whole = False

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="trimtab-vllm", daemon=True)
        self._thread.start()
        self.llm: Any = None

    def start(self, arguments: dict[str, Any], check: Callable[[Any], None]) -> None:
        """Load the engine. `check` is shown vLLM's configuration first, and may raise before anything is loaded."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        given = AsyncEngineArgs(**arguments)
        config = given.create_engine_config(UsageContext.ENGINE_CONTEXT)
        check(config)
        # Not in the loop's thread: loading takes minutes, and installs signal handlers that want the main thread.
        self.llm = AsyncLLM.from_vllm_config(
            config, enable_log_requests=given.enable_log_requests, disable_log_stats=given.disable_log_stats
        )

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, method: str, *args: Any) -> list[Any]:
        """An RPC to every worker."""
        return self.submit(self.llm.collective_rpc(method, args=args)).result()

    def close(self) -> None:
        """Shut the engine down and end the thread."""
        if self.llm is not None:
            with contextlib.suppress(TimeoutError):
                self.submit(_end_reading(self.llm)).result(timeout=GOODBYE)
            self.llm.shutdown()
            self.llm = None
        with contextlib.suppress(TimeoutError):
            self.submit(_end_tasks()).result(timeout=GOODBYE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=GOODBYE)
        if not self._thread.is_alive():
            self._loop.close()


class Borrowed(Loop):
    """Somebody else's event loop, with his `AsyncLLM` in it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, llm: Any) -> None:
        self._loop: asyncio.AbstractEventLoop = loop
        self.llm = llm

    def call(self, method: str, *args: Any) -> list[Any]:
        """As `Loop`; not from the loop itself, which would wait for itself."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            raise InputError("this blocks the event loop that vLLM runs in: await aboard, or agenerate")
        return super().call(method, *args)

    def close(self) -> None:
        """It is not ours; its workers stop to tell us anything."""
        if not self._loop.is_closed():
            self.submit(self.llm.collective_rpc("trimtab_detach"))


class Called(Loop):
    """Somebody else's `LLM`, which runs only while he calls it."""

    whole = True

    def __init__(self, llm: Any) -> None:
        self.llm = llm.llm_engine

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Nobody can run anything beside him."""
        work.close()
        raise Unsupported(
            "an LLM of vLLM runs only while you call it: board the request, and give its prompt and params to your own "
            "llm.generate; or attach to an AsyncLLM"
        )

    def call(self, method: str, *args: Any) -> list[Any]:
        """An RPC to every worker."""
        return self.llm.collective_rpc(method, args=args)

    def close(self) -> None:
        """It is not ours; its workers stop to tell us anything."""
        self.call("trimtab_detach")


async def _end_reading(llm: Any) -> None:
    """Cancel vLLM's task that reads outputs: it takes the end of an idle engine for a crash, and logs an error. Where
    requests are under way it stays, because it tells them.
    """
    if llm.output_handler is not None and not llm.get_num_unfinished_requests():
        llm.output_handler.cancel()


async def _end_tasks() -> None:
    """Cancel what vLLM leaves running in the loop, and wait for it."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Flight:
    """Requests that are under way together: their outputs, in the order in which they come, from any thread."""

    def __init__(self, loop: Loop, requests: Sequence[tuple[str, Sequence[int], Any]]) -> None:
        self.outputs: queue.Queue[tuple[int, Any]] = queue.Queue()
        self._loop = loop
        self._tasks = [loop.submit(self._follow(i, *request)) for i, request in enumerate(requests)]

    async def _follow(self, index: int, id: str, tokens: Sequence[int], params: Any) -> None:
        try:
            prompt = {"prompt_token_ids": list(tokens)}
            async for output in self._loop.llm.generate(prompt, params, id):
                self.outputs.put((index, output))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.outputs.put((index, error))

    def next(self) -> tuple[int, Any]:
        """(index, output); an error of the engine is raised."""
        index, output = self.outputs.get()
        if isinstance(output, BaseException):
            raise output
        return index, output

    def drop(self, index: int) -> None:
        """Abort one request, if it still runs."""
        self._tasks[index].cancel()

    def close(self) -> None:
        """Abort what still runs."""
        for task in self._tasks:
            task.cancel()
