"""`trimtab data new | validate | stats`: begin a corpus, and judge one before any model loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from trimtab.data import LAYOUTS
from trimtab.errors import InputError

from .corpora import corpus_options
from .frame import OK, USAGE, Desk, verb
from .places import check_writable

ACTIONS = ("new", "validate", "stats")


@verb("data")
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("args", nargs=-1, required=True, metavar="[KIND] PATH")
@click.option("--layout", type=click.Choice(list(LAYOUTS)), default=None, help="Layout [default: seen].")
@click.option("--negatives", default=None, help="Second file, for layouts of one concept per file.")
@click.option("--from-notes", default=None, help="new: scored notes (JSON lines) to label by thresholds.")
@click.option(
    "--threshold",
    multiple=True,
    help="new: CONCEPT=HIGH or CONCEPT=LOW:HIGH; positive from HIGH, negative below LOW.",
)
@corpus_options
def data(desk: Desk, action: str, args: tuple[str, ...], **options: Any) -> int:
    """Begin, check or count a corpus.

    \b
    new KIND DIR                   a small, correct beginning of a layout, with its rules
    new --from-notes NOTES FILE    labelled texts from scored notes
    validate PATH                  what would mislead a direction; exit code 2 if anything is wrong
    stats PATH                     counts, words and shared prefixes, per concept
    """
    notes, thresholds = options.pop("from_notes"), options.pop("threshold")
    if action != "new" and (notes or thresholds):
        raise InputError(f"--from-notes and --threshold belong to `data new`, not to `data {action}`")
    if action == "new":
        return _label(desk, args, notes, thresholds) if notes else _new(desk, args, thresholds)
    (path,) = _count(args, 1, f"data {action} PATH")
    act: Callable[..., int] = _validate if action == "validate" else _stats
    return act(desk, path, options)


def _new(desk: Desk, args: tuple[str, ...], thresholds: tuple[str, ...]) -> int:
    from trimtab.data.skeletons import SKELETONS, write_skeleton

    if thresholds:
        raise InputError("--threshold needs --from-notes NOTES")
    kind, folder = _count(args, 2, f"data new KIND DIR, with KIND one of {', '.join(SKELETONS)}")
    files = [str(f) for f in write_skeleton(kind, Path(folder))]
    desk.result({"kind": kind, "folder": folder, "files": files}, text="\n".join(f"wrote {f}" for f in files))
    desk.note(f"next: trimtab data validate {folder}")
    return OK


def _label(desk: Desk, args: tuple[str, ...], notes: str, thresholds: tuple[str, ...]) -> int:
    from trimtab.data.notes import Threshold, label_notes, write_rows

    (name,) = _count(args, 1, "data new --from-notes NOTES --threshold CONCEPT=0.7 FILE.jsonl")
    target = Path(name)
    if target.suffix != ".jsonl":
        raise InputError(f"labelled texts are JSON lines, FILE.jsonl; got {name}")
    if target.exists():
        raise InputError(f"{name} exists; name a new file")
    rows, counts = label_notes(Path(notes), [Threshold.of(t) for t in thresholds])
    write_rows(rows, check_writable(target))
    lines = [f"{c}: " + ", ".join(f"{n} {k}" for k, n in found.items()) for c, found in counts.items()]
    desk.result(
        {"file": name, "rows": len(rows), "concepts": counts}, text="\n".join([f"wrote {name}", *lines])
    )
    return OK


def _validate(desk: Desk, path: str, options: dict[str, Any]) -> int:
    from trimtab.data.checks import SEVERITIES
    from trimtab.data.validation import validate

    findings = validate(path, **options)
    counts = {s: sum(f.severity == s for f in findings) for s in SEVERITIES}
    bad = counts["error"] or (options["strict"] and counts["warning"])
    said = [f"{f.severity}: {f.concept + ': ' if f.concept else ''}{f.message}" for f in findings]
    total = ", ".join(f"{n} {s}{'' if n == 1 else 's'}" for s, n in counts.items())
    record = {"path": path, "ok": not bad, **counts, "findings": [asdict(f) for f in findings]}
    desk.result(record, text="\n".join([*said, f"{path}: {total}"]))
    return USAGE if bad else OK


def _stats(desk: Desk, path: str, options: dict[str, Any]) -> int:
    from trimtab.data.validation import stats

    record = stats(path, **options)
    desk.result(record, text=_table(record))
    return OK


def _table(record: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "concept", "positive", "negative", "words +", "words -", "unique", "groups", "read at", box=None
    )
    for name, row in record["concepts"].items():
        words = row["words"]
        cells = (row["positive"], row["negative"], f"{words['positive']:g}", f"{words['negative']:g}")
        paired = " (pairs)" if row["paired"] else ""
        table.add_row(
            Text(name), *map(str, cells), f"{row['unique']:.0%}", str(row["groups"]), row["pooling"] + paired
        )
    head = (
        f"{record['path']}: {record['layout']}, {len(record['concepts'])} concepts, "
        f"{record['distinct_texts']} distinct texts of {record['texts']}"
    )
    foot = (
        f"{record['words']} words; {record['prefix_tree_words']} when each shared prefix runs once "
        f"({record['shared_by_prefix']:.0%} saved)"
    )
    return Group(Text(head), table, Text(foot))


def _count(args: tuple[str, ...], n: int, form: str) -> tuple[str, ...]:
    if len(args) != n:
        raise InputError(f"usage: trimtab {form}; got {len(args)} argument{'' if len(args) == 1 else 's'}")
    return args
