"""`trimtab compare`: vectors against vectors, runs against runs, as many as are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import FormatError, InputError
from trimtab.records import finite

from .frame import Desk, verb
from .library import library_option

if TYPE_CHECKING:
    from trimtab.evaluation.rollouts.compare import Cosine

_ROWS = (".jsonl", ".ndjson", ".json")
MEASURES = ("mark", "tokens", "repetition")


@verb("compare")
@click.argument("things", nargs=-1, required=True, metavar="A [B]...")
@click.option("--by", type=click.Choice(MEASURES), default="mark", help="Runs: what replies are compared by.")
@click.option("--layers", default=None, help="Vectors: only these layers.")
@library_option
def compare(desk: Desk, things: tuple[str, ...], by: str, layers: str | None) -> None:
    """Vectors with vectors (cosine per layer), or runs with runs (paired differences), N-way.

    A, B, … are vector files (FILE[:concept], or names in the library), or runs: folders, or files of replies that
    `trimtab generate --dataset` or `trimtab eval … -o` wrote. Every condition of every run is compared with every
    other, paired by question.
    """
    runs = [_is_run(t) for t in things]
    if any(runs) and not all(runs):
        vector = things[runs.index(False)]
        raise InputError(f"runs and vectors cannot be compared with each other: {vector} is a vector file")
    if all(runs):
        if layers is not None:
            raise InputError("--layers belongs to vectors; runs have none")
        _runs(desk, things, by)
    else:
        _vectors(desk, things, layers)


def _is_run(thing: str) -> bool:
    path = Path(thing)
    return path.is_dir() or path.suffix in _ROWS


def _vectors(desk: Desk, things: Sequence[str], layers: str | None) -> None:
    from trimtab.evaluation.rollouts.compare import cosines

    from . import steering

    loaded = {t: steering.load_reference(t) for t in things}
    if layers is not None:
        for name, v in loaded.items():
            depth = v.origin.n_layers or max(s.layer for s in v.sites) + 1
            stream = "resid_post" if v.layers() else v.sites[0].stream
            chosen = v.choose_layers(layers, depth, stream)
            loaded[name] = v.only(sites=[s for s in v.sites if s.layer in chosen])
    found = cosines(loaded)
    rows = [{**finite(c), "site": c.site.key} for c in found]
    desk.result({"cosines": rows, "files": {n: v.hash for n, v in loaded.items()}}, text=_cosine_table(found))


def _cosine_table(found: Sequence[Cosine]) -> Any:
    from rich.table import Table

    table = Table("one", "other", "site", "cosine", "chance ±", "norm ratio", box=None, pad_edge=False)
    for c in found:
        ratio = "–" if c.norm_ratio is None else f"{c.norm_ratio:.3g}"
        table.add_row(c.one, c.other, str(c.site), f"{c.cosine:+.3f}", f"{c.chance:.3f}", ratio)
    return table


def _runs(desk: Desk, things: Sequence[str], by: str) -> None:
    from rich.table import Table

    from trimtab.evaluation.rollouts.compare import by_condition, check_one_scorer, differences

    conditions: dict[str, dict[str, float]] = {}
    replies = {thing: _replies(Path(thing)) for thing in things}
    if by == "mark":
        check_one_scorer([r for rows in replies.values() for r in rows])
    for thing, rows in replies.items():
        prefix = f"{_short(thing)}: " if len(things) > 1 else ""
        for name, items in by_condition(rows, by, prefix).items():
            if name in conditions:
                raise InputError(f"two of the runs are called {name!r}; rename one of the files")
            conditions[name] = items
    found = differences(conditions)
    table = Table(
        "one", "other", f"other − one ({by})", "p", "p (Holm)", "items", "unpaired", box=None, pad_edge=False
    )
    for d in found:
        e = d.difference
        bounds = "" if e.n == 1 else f" [{e.low:+.3g}, {e.high:+.3g}]"
        unpaired = d.only_one + d.only_other
        table.add_row(
            d.one, d.other, f"{e.mean:+.3g}{bounds}", f"{d.p:.3g}", f"{d.p_holm:.3g}", str(e.n), str(unpaired)
        )
    means = {n: sum(i.values()) / len(i) for n, i in conditions.items()}
    desk.result({"by": by, "means": means, "differences": finite(found)}, text=table)


def _short(thing: str) -> str:
    path = Path(thing)
    return path.name if path.is_dir() else path.stem


def _replies(path: Path) -> list[Mapping[str, Any]]:
    """Records with an item; of a run folder its samples, without those that failed."""
    from trimtab.data.reading import records_of, rows_of_run

    file = path / "samples.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise FormatError(f"{path} is no run: there is no {file.name}")
    records = rows_of_run(path) if path.is_dir() else records_of(file)
    rows = [row for _, row in records if isinstance(row, Mapping) and "error" not in row]
    if not rows or not all("item" in r for r in rows):
        raise FormatError(f"{file} holds no replies: each needs an item, a condition and an answer")
    return rows
