"""Calls spread over several servers that give the same answers: the one with the most room gets the next, and what one
leaves unanswered another gets."""

from __future__ import annotations

import queue
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trimtab.engines.remote.connection import Connection, Unanswered
from trimtab.errors import TrimtabError

#: Calls that a server gets of one piece of work, at least: the next one waits there already while one runs.
AHEAD = 2
T = TypeVar("T")
#: Places of requests or items that travel in one call.
Job = Sequence[int]


@dataclass(frozen=True)
class _End:
    """A call is over, with its error."""

    error: BaseException | None


class Spread:
    """Who is there, and how much each has to do. `line.concurrency` calls of one caller are under way at once at each
    server. One that goes away is named in a warning, and not asked again before all are gone."""

    def __init__(self, lines: Sequence[Connection]) -> None:
        self.lines = tuple(lines)
        self._guard = threading.Lock()
        self._gone: set[Connection] = set()
        self._under_way: Counter[Connection] = Counter()  # of all callers

    def jobs(self, count: int, most: int) -> list[Job]:
        """Places 0 to count - 1 in calls of about the same size, at most `most`, as many for each server."""
        servers = len(self.lines)
        calls = servers * max(AHEAD, -(-count // (most * servers)))
        size = max(1, -(-count // calls))
        return [range(i, min(i + size, count)) for i in range(0, count, size)]

    def run(
        self,
        jobs: Sequence[Job],
        ask: Callable[[Connection, Job], Iterator[T]],
        rest: Callable[[Job, Unanswered], list[Job]],
    ) -> Iterator[T]:
        """All that `ask` yields for every job, as it comes. `rest(job, error)` is what is still to be asked of a job
        whose server left it unanswered; where it raises, and for every other error, all ends."""
        waiting, left = deque(jobs), threading.Event()
        told: queue.Queue[tuple[Connection, Job, T | _End]] = queue.Queue()
        mine: Counter[Connection] = Counter()
        out: dict[Connection, Unanswered] = {}

        def work(line: Connection, job: Job) -> None:
            end = _End(None)
            try:
                for found in ask(line, job):
                    told.put((line, job, found))
                    if left.is_set():
                        break
            except BaseException as error:
                end = _End(error)
            with self._guard:
                self._under_way[line] -= 1
            told.put((line, job, end))

        try:
            while waiting or mine.total():
                while waiting and (line := self._free(out, mine)) is not None:
                    mine[line] += 1
                    args = (line, waiting.popleft())
                    threading.Thread(target=work, args=args, name="trimtab-spread", daemon=True).start()
                if not mine.total():
                    raise TrimtabError(f"no server is left to ask: {'; '.join(map(str, out.values()))}")
                line, job, found = told.get()
                if not isinstance(found, _End):
                    yield found
                    continue
                mine[line] -= 1
                if found.error is None:
                    self._gone.discard(line)
                    continue
                error = _unanswered(line, found.error)
                if not error.full:  # one that is only full is asked again by the next caller
                    self._gone.add(line)
                waiting.extend(rest(job, error))
                if line not in out:
                    out[line] = error
                    self._warn(error, out)
        finally:
            left.set()  # a call that is under way hangs up at its next event

    def _free(self, out: Collection[Connection], mine: Mapping[Connection, int]) -> Connection | None:
        """The server with the fewest calls among those that take another one of this caller."""
        with self._guard:
            there = [line for line in self.lines if line not in self._gone] or self.lines
            free = [line for line in there if line not in out and mine[line] < line.concurrency]
            if not free:
                return None
            found = min(free, key=lambda line: (self._under_way[line], mine[line]))
            self._under_way[found] += 1
        return found

    def _warn(self, error: Unanswered, out: Collection[Connection]) -> None:
        others = [line.url for line in self.lines if line not in out and line not in self._gone]
        if others:
            warnings.warn(f"{error}; what it left unanswered goes to {', '.join(others)}", stacklevel=2)


def _unanswered(line: Connection, error: BaseException) -> Unanswered:
    """The error of a server that went away or is full; any other is raised, and says whose it is."""
    words = str(error) if line.url in str(error) else f"{line.url}: {error}"
    if isinstance(error, Unanswered):
        return Unanswered(words, began=error.began, full=error.full)
    # A server whose engine died may stand for a while, and answers with that engine's last words.
    if type(error) is TrimtabError and not line.well():
        return Unanswered(words)
    if isinstance(error, TrimtabError):
        error.args = (words,)
    raise error
