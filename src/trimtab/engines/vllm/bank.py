"""Plan vectors on the device: one buffer of unit rows that never moves, and tables of displacements.

Rows are keyed by content hash and counted: a sweep of one vector over a hundred strengths holds one row.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from trimtab.errors import InputError


class Bank:
    """`rows` [capacity + 1, width] float32; row 0 is zeros. The buffer is allocated once, so that a captured CUDA graph
    reads whatever it holds when it is replayed.
    """

    def __init__(self, capacity: int, width: int, device: torch.device | str = "cpu") -> None:
        self.rows = torch.zeros(capacity + 1, width, dtype=torch.float32, device=device)
        self.tables: dict[str, torch.Tensor] = {}
        self._index: dict[str, int] = {}
        self._count: dict[str, int] = {}
        self._free = list(range(capacity, 0, -1))

    def __len__(self) -> int:
        return len(self._count)

    def acquire(self, name: str, vectors: Mapping[str, np.ndarray]) -> int:
        """The row of a vector (0 for a table, which is kept beside the rows); every call is owed one `release`."""
        if name not in self._count:
            array = torch.from_numpy(np.array(vectors[name], dtype=np.float32))
            if array.ndim == 2:
                self.tables[name] = array.to(self.rows.device)
            else:
                if not self._free:
                    raise InputError(
                        f"the bank holds {len(self._index)} vectors and is full; wait for requests to finish, "
                        "or load the engine with a larger `bank`"
                    )
                row = self._free.pop()
                self.rows[row].copy_(array)
                self._index[name] = row
        self._count[name] = self._count.get(name, 0) + 1
        return self._index.get(name, 0)

    def release(self, name: str) -> None:
        """One use less; the last one frees the row."""
        self._count[name] -= 1
        if self._count[name]:
            return
        del self._count[name]
        if name in self._index:
            self._free.append(self._index.pop(name))
        else:
            del self.tables[name]
