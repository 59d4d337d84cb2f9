"""Captured states that wait to be fetched: bounded, freed by the fetch or after their time."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from trimtab.engines.remote.packing import unpack
from trimtab.errors import InputError
from trimtab.server.busy import Busy
from trimtab.server.settings import Settings


class Captures:
    """Bodies by handle. A handle cannot be guessed, and is good for one fetch."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._promised = 0

    def reserve(self, size: int) -> None:
        """Promise room for a capture that is about to be made; `release` it, always."""
        if size > self.settings.max_capture_bytes:
            raise InputError(
                f"the capture may take {size} bytes, and this server takes {self.settings.max_capture_bytes} a "
                "request: capture fewer layers or positions, or lower max_tokens"
            )
        with self._lock:
            self._expire()
            if self.held + self._promised + size > self.settings.max_held_bytes:
                raise Busy(
                    f"captures that wait to be fetched take {self.held + self._promised} of "
                    f"{self.settings.max_held_bytes} bytes: fetch them, or wait until they expire"
                )
            self._promised += size

    def release(self, size: int) -> None:
        """The promise is kept or not needed any more."""
        with self._lock:
            self._promised -= size

    def put(
        self, states: Mapping[int, np.ndarray], positions: np.ndarray, about: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Keep states [n, width] of each layer, each the own state of the token at its position; what the answer says
        of them."""
        from safetensors.numpy import save

        about = {"align": "own", **about}
        tensors: dict[str, np.ndarray] = {
            f"layer_{layer}.states": np.ascontiguousarray(v, np.float32) for layer, v in states.items()
        }
        tensors["positions"] = np.ascontiguousarray(positions, np.int64)
        body = save(tensors, metadata={"trimtab": json.dumps(dict(about))})
        handle = secrets.token_urlsafe(24)
        with self._lock:
            self._expire()
            self._held[handle] = (self._clock() + self.settings.capture_seconds, body)
        return {
            "handle": handle,
            "url": f"/v1/captures/{handle}",
            "layers": sorted(states),
            "rows": len(positions),
            "bytes": len(body),
            "expires_in": self.settings.capture_seconds,
            **about,
        }

    def fetch(self, handle: str) -> bytes | None:
        """The body (safetensors), once; None for a handle that is unknown, fetched or expired."""
        with self._lock:
            self._expire()
            found = self._held.pop(handle, None)
        return None if found is None else found[1]

    def fetch_all(self, handles: Iterable[str]) -> bytes | None:
        """One body with all of them, each tensor named after its handle, `<handle>.layer_<i>.states`; None, and nothing
        is fetched, where one of them is not there."""
        from safetensors.numpy import save

        handles = tuple(dict.fromkeys(handles))
        with self._lock:
            self._expire()
            if not all(h in self._held for h in handles):
                return None
            bodies = {h: self._held.pop(h)[1] for h in handles}
        read = {h: unpack(body) for h, body in bodies.items()}
        tensors = {f"{h}.{name}": array for h, (_, own) in read.items() for name, array in own.items()}
        return save(tensors, metadata={h: json.dumps(about) for h, (about, _) in read.items()})

    def __len__(self) -> int:
        with self._lock:
            self._expire()
            return len(self._held)

    @property
    def held(self) -> int:
        """Bytes that wait."""
        return sum(len(body) for _, body in list(self._held.values()))

    def _expire(self) -> None:
        now = self._clock()
        for handle in [h for h, (until, _) in self._held.items() if until <= now]:
            del self._held[handle]
