"""Regenerate what the docs show of the program: `make docs`.

A block that starts with `<!-- command: trimtab --help -->` and ends with `<!-- end -->` holds what that
command prints; `<!-- table: methods -->`, `layouts` and `checks` hold the registries, and `peers` what the kit found on
other people's engines.
`--check` changes nothing and exits 1 when a block is out of date.
"""

import dataclasses
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- (?P<kind>command|table): (?P<what>.+?) -->\n.*?<!-- end -->", re.DOTALL)


def refreshed(text: str) -> str:
    """The page with every block filled anew."""
    return BLOCK.sub(_fill, text)


def _fill(block: re.Match[str]) -> str:
    content = _output(block["what"]) if block["kind"] == "command" else _table(block["what"])
    return f"<!-- {block['kind']}: {block['what']} -->\n{content}\n<!-- end -->"


def _output(command: str) -> str:
    program, *flags = shlex.split(command)
    if program != "trimtab":
        raise SystemExit(f"a block may only run trimtab, not {program!r}")
    code = "import sys; from trimtab.cli import main; sys.exit(main())"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIMTAB_")} | {"COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True, env=environment
    )
    shown = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
    return f"```console\n$ {command}\n{shown}\n```"


def _table(name: str) -> str:
    if name not in TABLES:
        raise SystemExit(f"there is no table {name!r}; there are: {', '.join(TABLES)}")
    return TABLES[name]()


def _layouts() -> str:
    """Every corpus layout: what the table of layouts and its module say of it."""
    from trimtab.data.layouts import LAYOUTS, module_of

    return "\n\n".join(
        f"## `{name}`\n\n{what[0].upper()}{what[1:]}.\n\n```text\n{inspect.getdoc(module_of(name))}\n```"
        for name, (_, what) in LAYOUTS.items()
    )


def _methods() -> str:
    """Every extraction method: what the registry, its class and its module say of it."""
    from trimtab.extraction import METHODS, method_class
    from trimtab.extraction.names import aliases_of, resolve

    lines = ["| method | what it is | needs | pairs | knobs | also called |", "|---|---|---|---|---|---|"]
    for method in sorted(METHODS):
        cls = method_class(method)
        about = inspect.getdoc(inspect.getmodule(cls)) or ""
        first = re.split(r"(?<=\.)\s", about.replace("\n", " ").replace("`", ""), maxsplit=1)[0]
        knobs = [f"`{f.name}={_plain(f.default)}`" for f in dataclasses.fields(cls)]
        cells = [
            f"`{method}`",
            first,
            ", ".join(sorted(cls.needs)),
            "needed" if cls.paired else "not needed",
            ", ".join(knobs) or "none",
            ", ".join(_alias(alias, resolve(alias)[1]) for alias in aliases_of(method)) or "–",
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _checks() -> str:
    """Every check of the conformance kit, and the engines on whose list it is."""
    from trimtab.conformance.registry import FEATURES, load, names_of

    lists = {engine: names_of(engine) for engine in FEATURES}
    lines = ["| check | what must hold | engines |", "|---|---|---|"]
    for name, check in load().items():
        engines = [e for e, names in lists.items() if name in names]
        shown = "all" if len(engines) == len(lists) else ", ".join(engines)
        lines.append(f"| `{name}` | {check.line.replace('|', chr(92) + '|')} | {shown} |")
    counts = ", ".join(f"{engine} {len(names)}" for engine, names in lists.items())
    return "\n".join([f"Checks by engine: {counts}.", "", *lines])


def _peers() -> str:
    """What the kit found on other people's engines (conformance/results), and on trimtab's beside them."""
    records = [
        json.loads(f.read_text("utf-8")) for f in sorted((ROOT / "conformance" / "results").glob("*.json"))
    ]
    found = [{c["name"]: c["status"] for c in r["checks"]} for r in records]
    names = dict.fromkeys(name for statuses in found for name in statuses)
    heads = [r["summary"]["engine"] for r in records]
    lines = ["| check | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    lines += [f"| `{n}` | " + " | ".join(statuses.get(n, "–") for statuses in found) + " |" for n in names]
    return "\n".join(lines)


def _alias(name: str, knobs: dict[str, object]) -> str:
    brought = ", ".join(f"{knob}={_plain(value)}" for knob, value in knobs.items())
    return f"`{name}` ({brought})" if brought else f"`{name}`"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else repr(value).lower()


TABLES = {"checks": _checks, "layouts": _layouts, "methods": _methods, "peers": _peers}


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
