"""Command lines in a process that has no torch: a JSON list of argument lists comes in, a list of results goes out.

`python torch_free.py < lines.json`. The neutral texts are cut to a few: what is tested does not depend on their number.
"""

import contextlib
import importlib.util
import io
import json
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import Any

#: Modules that measure on the neutral texts.
NEUTRAL = ("trimtab.recipes.neutral", "trimtab.evaluation.limits", "trimtab.evaluation.transfer.measurement")


def few_neutral_texts(put: Callable[[Any, str, Any], None], count: int = 2) -> None:
    """Let `put(module, name, value)` replace what each module reads."""
    from trimtab.data.neutral import neutral_texts

    few = neutral_texts()[:count]
    for name in NEUTRAL:
        put(importlib.import_module(name), "neutral_texts", lambda: few)


class NoTorch(PathFinder):
    """Finds every installed package but torch."""

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        return None if fullname.partition(".")[0] == "torch" else super().find_spec(fullname, path, target)


def run(argv: list[str]) -> dict[str, Any]:
    """One command line: its exit code, what it printed, and its record where that was JSON."""
    from trimtab.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    text = out.getvalue()
    return {
        "code": code, "out": text, "err": err.getvalue(),
        "record": json.loads(text) if code == 0 and "--json" in argv else None,
    }  # fmt: skip


if __name__ == "__main__":
    sys.meta_path = [NoTorch if f is PathFinder else f for f in sys.meta_path]
    assert importlib.util.find_spec("torch") is None
    few_neutral_texts(setattr)
    results = [run(argv) for argv in json.load(sys.stdin)]
    engines = sorted(m for m in sys.modules if m.startswith(("torch.", "trimtab.engines.transformers")))
    json.dump({"results": results, "torch": engines}, sys.stdout)
