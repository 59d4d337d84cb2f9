"""Arrays that the workers hold, as the front end knows it: sent once, kept while requests use them, and longer."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np

from trimtab.readouts import Readout

#: Bytes of arrays that nobody uses and that stay for the next request.
IDLE = 256 << 20


class Shelf:
    """`call(method, *args)` is the workers' RPC. Thread-safe; whoever holds a name releases it once."""

    def __init__(self, call: Callable[..., object], idle: int = IDLE) -> None:
        self._call, self._idle = call, idle
        self._lock = threading.RLock()
        self._uses: dict[str, int] = {}
        self._size: OrderedDict[str, int] = OrderedDict()  # in the order of the last use

    def hold(self, vectors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """See that the workers have these arrays."""
        from safetensors.numpy import save

        with self._lock:
            new = {n: np.ascontiguousarray(v, np.float32) for n, v in vectors.items() if n not in self._size}
            if new:
                self._call("trimtab_put", save(new))
            for name, array in vectors.items():
                self._use(name, array.nbytes)
            return tuple(vectors)

    def hold_readout(self, readout: Readout) -> str:
        """See that the workers have the rows of a readout; its name."""
        from safetensors.numpy import save

        rows = {str(s.layer): np.ascontiguousarray(r, np.float32) for s, r in readout.rows.items()}
        blob = save(rows)
        name = "readout " + hashlib.sha256(blob).hexdigest()[:32]
        with self._lock:
            if name not in self._size:
                self._call("trimtab_put_readout", name, blob)
            self._use(name, len(blob))
            return name

    def release(self, names: tuple[str, ...]) -> None:
        """The requests that held these are done; the longest unused go when there are too many."""
        with self._lock:
            for name in names:
                self._uses[name] -= 1
            idle = [n for n in self._size if not self._uses[n]]
            excess = sum(self._size[n] for n in idle) - self._idle
            dropped = []
            for name in idle:
                if excess <= 0:
                    break
                excess -= self._size.pop(name)
                del self._uses[name]
                dropped.append(name)
            if dropped:
                self._call("trimtab_drop", dropped)

    def forget(self) -> None:
        """Trust nothing: send what is needed again. A worker that lost a request may have lost more."""
        with self._lock:
            self._size.clear()

    def _use(self, name: str, size: int) -> None:
        self._uses[name] = self._uses.get(name, 0) + 1
        self._size[name] = size
        self._size.move_to_end(name)
