"""From the workers to whoever waits: one message per step and worker, as soon as it is done, over a local socket.

Captures leave the worker as they are made and are never collected there, so its memory does not grow; a reader that
falls behind by `BEHIND` steps makes the worker wait. Nothing is pickled.

The socket has a name in a folder of its own, which only this user may open, until every worker has come: then the name
is taken away, so that nothing is left on the disk however this process ends.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq

from trimtab.engines.vllm.kernel import Address, Report

BEHIND = 128
#: Seconds that a worker may take to be heard for the first time.
GREETING = 60.0
#: What a receiver does with a step: the reports, and the rows [n, width] of each address.
Take = Callable[[list[Report], list[tuple[Address, np.ndarray]]], None]


class Sender:
    """The end of one worker, the `part`-th of `parts`. Until somebody is attached there is nobody to tell, and nothing
    is kept."""

    def __init__(self, part: int = 0, parts: int = 1) -> None:
        self._part = (part, parts)
        self._socket: zmq.Socket[bytes] | None = None

    def attach(self, address: str) -> None:
        """Send to `address` from now on."""
        self.close()
        socket: Any = zmq.Context.instance().socket(zmq.PUSH)
        socket.setsockopt(zmq.LINGER, 0)
        socket.set_hwm(BEHIND)
        socket.connect(address)
        self._socket = socket
        self([], [])  # a word, so that the reader knows that it is heard

    def close(self) -> None:
        """Let the socket go."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __call__(self, reports: list[Report], results: list[tuple[Address, np.ndarray]]) -> None:
        if self._socket is None:
            return
        header = msgspec.msgpack.encode((*self._part, reports, [(a, rows.shape) for a, rows in results]))
        arrays: list[Any] = [np.ascontiguousarray(rows, dtype=np.float32) for _, rows in results]
        self._socket.send_multipart([header, *(memoryview(a).cast("B") if a.size else b"" for a in arrays)])


class Quorum:
    """A request's tokens went through the model when every worker says so; one that lost it is enough for a loss."""

    def __init__(self) -> None:
        self._said: dict[tuple[object, ...], list[int]] = {}

    def __len__(self) -> int:
        return len(self._said)

    def of(self, part: int, parts: int, reports: list[Report]) -> list[Report]:
        """What is certain now that worker `part` has made these reports. All workers make the same, in one order, and
        some of them more than once: what a preemption threw away is computed again."""
        if parts == 1:
            return reports
        found: list[Report] = []
        for report in reports:
            *what, lost = report
            said = self._said.setdefault(tuple(what), [0] * parts)
            said[part] += 1
            complete = min(said) > 0
            if complete:
                said[:] = [n - 1 for n in said]
                if not any(said):
                    del self._said[tuple(what)]
            if complete or lost:
                found.append(report)
        return found


class Receiver:
    """The reader's end: a thread that hands every step to `take`, and its reports once all workers have made them."""

    def __init__(self, take: Take) -> None:
        self._folder = tempfile.mkdtemp(prefix="trimtab-")
        self.address = f"ipc://{self._folder}/steps"
        self._socket = zmq.Context.instance().socket(zmq.PULL)
        self._socket.set_hwm(BEHIND)
        self._socket.bind(self.address)
        self._take, self._open, self._quorum = take, True, Quorum()
        self._silent: set[int] | None = None
        self._heard = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trimtab-steps", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._open:
            if not self._socket.poll(200):
                continue
            header, *buffers = self._socket.recv_multipart(copy=True)
            part, parts, reports, addresses = msgspec.msgpack.decode(header)
            self._hear(part, parts)
            results = [
                (_address(a), np.frombuffer(b, dtype=np.float32).reshape(shape))
                for (a, shape), b in zip(addresses, buffers, strict=True)
            ]
            self._take(self._quorum.of(part, parts, [tuple(r) for r in reports]), results)

    def _hear(self, part: int, parts: int) -> None:
        if self._silent is None:
            self._silent = set(range(parts))
        self._silent.discard(part)
        if not self._silent:
            self._heard.set()

    def settle(self) -> bool:
        """Wait for all workers that were told the address, and take the socket's name away; False where one is
        silent."""
        if not self._heard.wait(GREETING):
            return False
        self._hide()
        return True

    def _hide(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(Path(self._folder) / "steps")
        with contextlib.suppress(OSError):
            os.rmdir(self._folder)

    def close(self) -> None:
        """Stop the thread and remove the socket."""
        self._open = False
        self._thread.join(timeout=5)
        self._socket.close(linger=0)
        self._hide()


def _address(data: list) -> Address:
    key, id, layer, readout, positions = data
    return key, id, layer, readout, tuple((a, b) for a, b in positions)
