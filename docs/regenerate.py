"""Regenerate the command output shown in the docs: `make docs`.

A block that starts with `<!-- command: trimtab --help -->` and ends with `<!-- end -->` holds what that
command prints. `--check` changes nothing and exits 1 when a block is out of date.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- command: (?P<command>.+?) -->\n.*?<!-- end -->", re.DOTALL)


def refreshed(text: str) -> str:
    """The page with every block filled anew."""
    return BLOCK.sub(_fill, text)


def _fill(block: re.Match[str]) -> str:
    command = block["command"]
    program, *flags = shlex.split(command)
    if program != "trimtab":
        raise SystemExit(f"a block may only run trimtab, not {program!r}")
    code = "import sys; from trimtab.cli import main; sys.exit(main())"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIMTAB_")} | {"COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True, env=environment
    )
    shown = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
    return f"<!-- command: {command} -->\n```console\n$ {command}\n{shown}\n```\n<!-- end -->"


def main() -> int:
    stale = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        old = page.read_text(encoding="utf-8")
        new = refreshed(old)
        if new != old:
            stale.append(str(page.relative_to(ROOT)))
            if "--check" not in sys.argv:
                page.write_text(new, encoding="utf-8")
    if stale:
        print(("out of date: " if "--check" in sys.argv else "rewritten: ") + ", ".join(stale))
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
