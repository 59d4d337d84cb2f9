"""What a verb may say, and where: results on stdout, everything else on stderr.

With `--json` stdout carries exactly one line, and every number in it is finite: NaN and infinities become
null, because strict JSON parsers refuse them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from trimtab.records import finite, json_line

__all__ = ["Output", "children_on_stderr", "finite", "json_line"]


class Output:
    """The voice of one command.

    It takes hold of the real streams when it is made, because the frame then points `sys.stdout` at stderr:
    a library that prints can no longer spoil the results.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.spoken = False
        self._stdout: TextIO = sys.stdout
        self._stderr: TextIO = sys.stderr

    def result(self, record: Mapping[str, Any], text: Any = None) -> None:
        """Give the result, once: `record` under `--json`, else `text` (a string or a rich renderable)."""
        if self.as_json:
            if self.spoken:
                raise RuntimeError("a verb gave two results; --json promises exactly one line")
            self._write(json_line(record) + "\n")
        elif text is not None:
            self.print(text)
        self.spoken = True

    def print(self, text: Any = "", *, end: str = "\n") -> None:
        """A part of the result for a reader; silent under `--json`. Use `end=""` to stream tokens."""
        if self.as_json:
            return
        if isinstance(text, str):
            self._write(text + end)
        else:
            from rich.console import Console

            # Away from a terminal rich assumes 80 columns, which folds tables that a file could hold.
            width = None if self._stdout.isatty() else 120
            Console(file=self._stdout, width=width).print(text, end=end)

    def note(self, message: str) -> None:
        """Say what is going on; `--quiet` silences it."""
        if not self.quiet:
            print(message, file=self._stderr, flush=True)

    def warn(self, message: str) -> None:
        """Say what the reader must know; nothing silences it."""
        print(f"warning: {message}", file=self._stderr, flush=True)

    def _write(self, text: str) -> None:
        self._stdout.write(text)
        self._stdout.flush()


@contextlib.contextmanager
def children_on_stderr() -> Iterator[None]:
    """Standard output of processes that start meanwhile is stderr, for as long as they live: what vLLM's workers say
    would stand beside the result. They say no more than warnings, unless VLLM_LOGGING_LEVEL asks for it."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
