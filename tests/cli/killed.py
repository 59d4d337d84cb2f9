"""A driver for tests: run a command line, and kill the process in the middle of writing a row of its run folder.

Reads lines of {"argv", "rows", "share"} on stdin. Each runs in a child of its own, which is killed with SIGKILL after
`rows` more rows, when `share` of the next one's bytes are on disk. Prints the signal that ended each child.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from evaluation.planted_answers import PlantedEngine
from evaluation.small_dilemmas import logits
from trimtab.cli import main, models
from trimtab.cli.output import json_line
from trimtab.cli.runs import Run

REPLY = "No<|endoftext|>"


def die_in_row(rows: int, share: float) -> None:
    """Let `rows` rows through, tear the next one, and die."""
    whole, left = Run._append, rows

    def append(self, record):
        nonlocal left
        if left:
            left -= 1
            return whole(self, record)
        line = (json_line(record) + "\n").encode()
        self._samples.write(line[: int(share * len(line))])
        self._samples.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    Run._append = append


def load(model, *args, _load=models.load_engine, **options):
    """Any model, and one called "planted" whose answers are those of the small dilemmas."""
    if model == "planted":
        engine = PlantedEngine(logits, reply=lambda text, moved: REPLY)
        engine.encode(
            REPLY, bare=True
        )  # words are numbered as they come, and a resumed run meets them otherwise
        return engine
    return _load(model, *args, **options)


if __name__ == "__main__":
    models.load_engine = load
    for task in map(json.loads, sys.stdin):
        child = os.fork()
        if child == 0:
            die_in_row(task["rows"], task["share"])
            os._exit(main(task["argv"]))
        _, status = os.waitpid(child, 0)
        print(-os.waitstatus_to_exitcode(status), flush=True)
