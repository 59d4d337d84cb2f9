"""The thread around vLLM's engine: without vLLM."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trimtab.engines.vllm.loop import Loop


class Stub:
    """An engine whose reader of outputs takes its end for a crash, as vLLM's does."""

    def __init__(self, loop: Loop, running: int) -> None:
        self.running, self.found = running, ""
        self.dead = asyncio.Event()
        self.output_handler: Any = None
        loop.submit(self._start()).result()

    async def _start(self) -> None:
        self.output_handler = asyncio.ensure_future(self._read())
        await asyncio.sleep(0)

    async def _read(self) -> None:
        try:
            await self.dead.wait()
            self.found = "crashed"
        except asyncio.CancelledError:
            self.found = "cancelled"
            raise

    def get_num_unfinished_requests(self) -> int:
        return self.running

    def shutdown(self) -> None:
        self.output_handler.get_loop().call_soon_threadsafe(self.dead.set)


@pytest.mark.parametrize(("running", "found"), [(0, "cancelled"), (1, "crashed")])
def test_the_end_of_an_idle_engine_is_no_crash(running, found):
    """But requests that are under way are told."""
    loop = Loop()
    stub = loop.llm = Stub(loop, running)
    loop.close()
    assert stub.found == found
