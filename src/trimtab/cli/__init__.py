"""The command line: `trimtab <verb> MODEL-or-FILE [--flags]`.

`verbs` is the table of what exists, `frame` turns a function into a verb and errors into exit codes, and
one module per verb holds its flags and calls one public function. Nothing here computes.
"""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code (0 ok, 1 failed, 2 usage, 3 partial, 130 interrupted)."""
    from .frame import run

    return run(argv)
