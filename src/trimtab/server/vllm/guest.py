"""The engine contract on vLLM's own server: an engine of ours that borrows the server's `AsyncLLM`, so that the remote
engine's routes run beside everybody else's requests, in the same batches.

It shares the door's channel from the workers, its arrays, its count of the workers' bank, and its distrust after a
loss. What it does not share is the default plan: a remote engine's request without a plan is plain.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

import numpy as np

from trimtab.engines.vllm.engine import VllmEngine
from trimtab.engines.vllm.loop import Borrowed
from trimtab.readouts import Readout
from trimtab.server.vllm.door import Door


class Guest(VllmEngine):
    """Called by threads of its own, never by the server's event loop. Closing it leaves the server as it is."""

    def __init__(self, door: Door) -> None:
        self.door = door
        # A fast tokenizer must not be used by two threads at once, and the server's own is in use.
        tokenizer = copy.deepcopy(door.encoder.tokenizer)
        borrowed = Borrowed(door.results.loop, Client(door.client))
        super().__init__(borrowed, tokenizer, id=door.counter.info.id)

    def _attach(self) -> dict[str, Any]:
        self.shelf = Counted(self.door)
        self.door.listeners.append(self.ledger.take)
        return self.door.found

    @property
    def epoch(self) -> int:
        """The door's: what either of them lost, neither reads again."""
        return self.door.epoch

    @epoch.setter
    def epoch(self, value: int) -> None:
        self.door.epoch = value

    def sampling(self, **options: Any) -> Any:
        """Clients of OpenAI's routes get as many log-probabilities as the operator allows (`--max-logprobs`); what an
        engine scores is bounded by the size of its answer instead."""
        return _unbounded()(**options)

    def close(self) -> None:
        """Nothing here is its own."""


class Client:
    """The engine client, without the hooks that stand between it and the server's own clients."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def generate(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        """vLLM's own."""
        original = type(self._client).generate
        return getattr(original, "__wrapped__", original)(self._client, *args, **kwargs)


class Counted:
    """The door's shelf, with every vector counted as one that the workers' bank must hold."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def hold(self, vectors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """As the shelf; busy where the bank is full."""
        rows = self._door.take_rows(vectors)
        try:
            return self._door.shelf.hold(vectors)
        except BaseException:
            self._door.give_rows(rows)
            raise

    def hold_readout(self, readout: Readout) -> str:
        """As the shelf."""
        return self._door.shelf.hold_readout(readout)

    def release(self, names: Iterable[str]) -> None:
        """As the shelf."""
        names = tuple(names)
        self._door.shelf.release(names)
        self._door.give_rows(n for n in names if not n.startswith("readout "))

    def forget(self) -> None:
        """As the shelf."""
        self._door.shelf.forget()


class Late:
    """The surface of an engine that is there only when the server has started: its routes are hung in before."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app.state.trimtab.surface, name)


@functools.cache
def _unbounded() -> type[Any]:
    from vllm import SamplingParams

    class Unbounded(SamplingParams):
        def _validate_logprobs(self, model_config: Any) -> None:
            pass

    return Unbounded
