"""A lock that is given in the order in which it was asked for."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A re-entrant lock whose waiters take turns. With `threading.RLock` a thread that lets go and asks again at once,
    as a batch does between two tokens, gets it nearly every time: a capture would wait for the end of the batch.
    """

    def __init__(self) -> None:
        self._inner = threading.Lock()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> Turns:
        me, turn = threading.get_ident(), threading.Lock()
        with self._inner:
            if self._owner in (None, me):
                self._owner = me
                self._depth += 1
                return self
            turn.acquire()
            self._waiting.append((me, turn))
        try:
            turn.acquire()
        except BaseException:  # interrupted while waiting: nobody may hand the lock to a waiter that is gone
            with self._inner:
                if (me, turn) in self._waiting:
                    self._waiting.remove((me, turn))
                else:
                    self._pass_on()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        with self._inner:
            if self._owner != threading.get_ident():
                raise RuntimeError("this thread does not hold the lock")
            self._depth -= 1
            if not self._depth:
                self._pass_on()

    def _pass_on(self) -> None:
        self._owner, self._depth = None, 0
        if self._waiting:
            self._owner, turn = self._waiting.popleft()
            self._depth = 1
            turn.release()
