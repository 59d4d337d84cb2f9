"""Where captured states lie on the reader's side: in memory, and in files where they are large or many.

The files have no name, and go away with the last array or handle that looks at them. They are written as files are, and
shown as memory only when somebody fetches: a full disk is then an error of one request, and not the end of the process.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np

#: Bytes of one request's captures of one layer from which on they lie in a file.
LARGE = 1 << 27
#: Bytes of a file that smaller ones share.
SHARED = 1 << 30
#: Pieces of a file begin at multiples of so many bytes.
PAGE = 4096


class Memory:
    """How many bytes of captures lie in memory, fetched or not; once they are `limit`, new captures lie in files.
    Thread-safe; what is given back may come from the garbage collector, at any moment."""

    def __init__(self, limit: int) -> None:
        self.limit, self._taken = limit, 0
        self._lock, self._back = threading.Lock(), deque[int]()

    @property
    def taken(self) -> int:
        """Bytes in use."""
        with self._lock:
            while self._back:
                self._taken -= self._back.popleft()
            return self._taken

    def take(self, size: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._taken += size

    def give(self, count: list[int]) -> None:
        """The bytes that were counted in `count` are free again."""
        self._back.append(count[0])


#: A quarter of the machine's memory.
MEMORY = Memory(max(1 << 30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4))


class Captured:
    """States of one layer in their places, as they come: whoever asks for neighbours gets them without a copy.

    What was computed again, after a preemption, replaces the first. Memory, or disk, is taken where rows are written
    only.
    """

    def __init__(self, total: int, width: int) -> None:
        self.width = width
        self.there = np.zeros(total, dtype=bool)
        self._memory: np.ndarray | None = None
        self._piece: Piece | None = None
        if 4 * total * width < LARGE and MEMORY.taken < MEMORY.limit:
            self._count = [0]
            self._memory = np.empty((total, width), np.float32)
            # Views keep the array alive, also when this is gone.
            weakref.finalize(self._memory, MEMORY.give, self._count).atexit = False
        else:
            self._piece = Piece.of(4 * total * width)

    @property
    def in_file(self) -> bool:
        """Whether the states lie in a file."""
        return self._piece is not None

    def keep(self, positions: Sequence[tuple[int, int]], rows: np.ndarray) -> None:
        """Rows [n, width] of the half-open ranges `positions`. `OSError` where a file finds no room."""
        done = 0
        for a, b in positions:
            there = self.there[a:b]
            part = rows[done : done + len(there)]
            if self._memory is not None:
                self._memory[a:b] = part
                fresh = 4 * self.width * int(len(there) - there.sum())
                self._count[0] += fresh
                MEMORY.take(fresh)
            elif self._piece is not None:
                self._piece.write(4 * self.width * a, np.ascontiguousarray(part, np.float32))
            there[:] = True
            done += b - a

    def at(self, positions: np.ndarray) -> np.ndarray:
        """States [n, width]."""
        rows = self._memory
        if rows is None:
            assert self._piece is not None
            rows = self._piece.show((len(self.there), self.width))
        first, n = (int(positions[0]), len(positions)) if len(positions) else (0, 0)
        if not n or (int(positions[-1]) - first == n - 1 and bool((np.diff(positions) == 1).all())):
            return rows[first : first + n]
        return rows[positions]


class Pages:
    """A file without a name, of `size` bytes, handed out from the front."""

    def __init__(self, size: int) -> None:
        self.file = tempfile.TemporaryFile(prefix="trimtab-")  # noqa: SIM115 (it lives as long as its pieces)
        os.ftruncate(self.file.fileno(), size)
        self.size, self.used = size, 0
        self._shown: weakref.ref[np.memmap] | None = None

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()

    def show(self) -> np.ndarray:
        """The bytes, as memory; the system reads what is looked at."""
        shown = None if self._shown is None else self._shown()
        if shown is None:
            shown = np.memmap(self.file, np.uint8, "r+", shape=(self.size,))
            self._shown = weakref.ref(shown)
        return shown


class Piece:
    """Part of a file. The file is there while one of its pieces is, or an array that shows it."""

    _open: weakref.ref[Pages] | None = None
    _lock = threading.Lock()

    def __init__(self, pages: Pages, size: int) -> None:
        self.pages, self.start, self.size = pages, pages.used, size
        pages.used += -(-size // PAGE) * PAGE

    @classmethod
    def of(cls, size: int) -> Piece:
        """A piece of a file that others share, or, if it is large, a file of its own."""
        if size >= LARGE:
            return cls(Pages(size), size)
        with cls._lock:
            pages = None if cls._open is None else cls._open()
            if pages is None or pages.used + size > pages.size:
                pages = Pages(max(SHARED, size))
                cls._open = weakref.ref(pages)
            return cls(pages, size)

    def write(self, offset: int, rows: np.ndarray) -> None:
        """Put rows there."""
        data = rows.data.cast("B") if rows.size else memoryview(b"")
        while data:
            done = os.pwrite(self.pages.file.fileno(), data, self.start + offset)
            data, offset = data[done:], offset + done

    def show(self, shape: tuple[int, int]) -> np.ndarray:
        """The rows, without a copy."""
        if not self.size:
            return np.empty(shape, np.float32)
        found = self.pages.show()[self.start : self.start + self.size]
        return np.asarray(found.view(np.float32).reshape(shape))
