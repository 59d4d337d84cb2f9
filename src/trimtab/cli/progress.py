"""Progress on stderr: a bar with rate and ETA on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

EVERY = 5.0  # seconds between plain lines: a log stays readable and shows that the run lives


class Progress:
    """Counts finished units; `with Progress("extract", 900) as bar: ... bar.advance()`."""

    def __init__(
        self, label: str, total: int | None, *, quiet: bool = False, stream: TextIO | None = None
    ) -> None:
        self.label, self.total, self.done = label, total, 0
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self._start = self._last = time.monotonic()
        if not self._quiet and self._stream.isatty():
            self._bar = _rich_bar(self._stream)
            self._task = self._bar.add_task(self.label, total=self.total)
            self._bar.start()
        return self

    def advance(self, n: int = 1) -> None:
        """Count `n` more finished units."""
        self.done += n
        if self._bar is not None:
            self._bar.advance(self._task, n)
        elif not self._quiet and time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            print(self.line(), file=self._stream, flush=True)

    def line(self) -> str:
        """The plain line: `extract 120/900 13% 4.2/s eta 3:05`."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = self.done / elapsed
        if not self.total:
            return f"{self.label} {self.done} {rate:.1f}/s"
        left = (self.total - self.done) / rate if rate else 0.0
        eta = f" eta {_clock(left)}" if rate else ""
        return f"{self.label} {self.done}/{self.total} {self.done / self.total:.0%} {rate:.1f}/s{eta}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif not self._quiet and time.monotonic() - self._start >= EVERY:
            print(self.line(), file=self._stream, flush=True)


def counter(bar: Progress) -> Callable[[int, int], None]:
    """Turn a study's "done of total" into steps of a bar; each pass over the data starts at 0 again."""
    last = 0

    def count(done: int, total: int) -> None:
        nonlocal last
        bar.advance(done - last if done >= last else done)
        last = done

    return count


def _rich_bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _rate_column(),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )


def _rate_column() -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units per second; rich has it only for bytes."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    return Rate()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
