"""`trimtab compare`: vectors against vectors, runs against runs, as many as are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import FormatError, InputError
from trimtab.records import finite

from .compare_behaviour import check
from .evaluating import continue_option
from .frame import Desk, verb
from .library import library_option
from .models import model_options

if TYPE_CHECKING:
    from trimtab.evaluation.rollouts.compare import Cosine

_ROWS = (".jsonl", ".ndjson", ".json")
MEASURES = ("mark", "tokens", "repetition", "nll")
#: So many conditions make 780 pairs, each with its interval: more must be chosen from.
MOST = 40


@verb("compare", runs=True)
@click.argument("things", nargs=-1, required=True, metavar="A [B]...")
@click.option(
    "--by", default="mark", metavar="WHAT", help=f"Runs: {', '.join(MEASURES)}, or a score of their rows."
)
@click.option(
    "--condition",
    multiple=True,
    help="Runs: conditions to compare [default: all but random]; may be repeated.",
)
@click.option("--concept", default=None, help="Runs: the concept of a score that has several.")
@click.option("--layers", default=None, help="Vectors: only these layers.")
@click.option("--model", default=None, help="Vectors: try them on this model, too.")
@click.option(
    "--prompts", type=click.Path(path_type=Path), default=None, help="With --model: questions to try them on."
)
@click.option(
    "--dose", type=float, default=0.5, help="With --model: strength, a fraction of the typical residual norm."
)
@click.option(
    "--steer-layer", default=None, help="With --model: where to steer [default: the first file's layer]."
)
@click.option(
    "--read-layer",
    default=None,
    help="With --model: where to read [default: where the first file reads best].",
)
@click.option("--max-tokens", type=click.IntRange(1), default=24, help="With --model: tokens of a reply.")
@continue_option
@click.option("--temperature", type=float, default=0.0, help="With --model: 0 is greedy.")
@click.option(
    "--random", type=click.IntRange(0), default=5, help="With --model: random directions of the same dose."
)
@click.option(
    "--prefix", multiple=True, metavar="CONCEPT=WORDS", help="With --model: words of the prompt baseline."
)
@click.option("--limit", type=click.IntRange(1), default=None, help="With --model: only the first N prompts.")
@library_option
@model_options
def compare(desk: Desk, things: tuple[str, ...], by: str, layers: str | None, **flags: Any) -> None:
    """Vectors with vectors, or runs with runs (paired differences), N-way.

    A, B, … are vector files (FILE[:concept], or names in the library): their cosines at every layer and, with --model
    and --prompts, what each does to the readings of all, and to the perplexity of the replies. Or they are runs:
    folders, or files of replies that `trimtab generate --dataset` or `trimtab eval … -o` wrote; every condition of
    every run is compared with every other, paired by question.
    """
    runs = [_is_run(t) for t in things]
    if any(runs) and not all(runs):
        vector = things[runs.index(False)]
        raise InputError(f"runs and vectors cannot be compared with each other: {vector} is a vector file")
    check(flags, all(runs))
    if all(runs):
        if layers is not None:
            raise InputError("--layers belongs to vectors; runs have none")
        _runs(desk, things, by, flags)
        return
    for flag in ("condition", "concept"):
        if flags[flag]:
            raise InputError(f"--{flag} belongs to runs; name a concept of a vector file as FILE:concept")
    _vectors(desk, things, layers, flags)


def _is_run(thing: str) -> bool:
    path = Path(thing)
    return path.is_dir() or path.suffix in _ROWS


def _vectors(desk: Desk, things: Sequence[str], layers: str | None, flags: Mapping[str, Any]) -> None:
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
    record, tables = (
        {"cosines": rows, "files": {n: v.hash for n, v in loaded.items()}},
        [_cosine_table(found)],
    )
    if flags["model"] is not None:
        from .compare_behaviour import behaviour

        more, told = behaviour(desk, loaded, flags)
        record, tables = record | more, tables + told
    desk.result(record, text=_joined(tables))


def _joined(tables: Sequence[Any]) -> Any:
    """Tables under each other, with a line between them."""
    from rich.console import Group

    return Group(*(part for i, t in enumerate(tables) for part in ([t] if i == 0 else ["", t])))


def _cosine_table(found: Sequence[Cosine]) -> Any:
    from rich.table import Table

    table = Table("one", "other", "site", "cosine", "chance ±", "norm ratio", box=None, pad_edge=False)
    for c in found:
        ratio = "–" if c.norm_ratio is None else f"{c.norm_ratio:.3g}"
        table.add_row(c.one, c.other, str(c.site), f"{c.cosine:+.3f}", f"{c.chance:.3f}", ratio)
    return table


def _runs(desk: Desk, things: Sequence[str], by: str, flags: Mapping[str, Any]) -> None:
    from rich.table import Table

    from trimtab.evaluation.rollouts.compare import by_condition, check_one_scorer, differences, measure_of

    conditions: dict[str, dict[str, float]] = {}
    replies = {thing: _replies(Path(thing)) for thing in things}
    if by == "mark":
        check_one_scorer([r for rows in replies.values() for r in rows])
    read = measure_of(by, [r for rows in replies.values() for r in rows], flags["concept"])
    chosen = _chosen(replies, flags["condition"])
    for thing, rows in chosen.items():
        prefix = f"{_short(thing)}: " if len(things) > 1 else ""
        for name, items in by_condition(rows, by, prefix, read).items():
            if name in conditions:
                raise InputError(f"two of the runs are called {name!r}; rename one of the files")
            conditions[name] = items
    if len(conditions) > MOST:
        raise InputError(
            f"{len(conditions)} conditions make {len(conditions) * (len(conditions) - 1) // 2} pairs; choose some with "
            f"--condition: {', '.join(list(conditions)[:6])}, …"
        )
    found = differences(conditions)
    table = Table(
        "one", "other", f"other − one ({by})", "p", "p (Holm)", "items", "unpaired", box=None, pad_edge=False
    )
    for d in found:
        e = d.difference
        unpaired = d.only_one + d.only_other
        table.add_row(
            d.one, d.other, e.words("+.3g"), f"{d.p:.3g}", f"{d.p_holm:.3g}", str(e.n), str(unpaired)
        )
    means = {n: sum(i.values()) / len(i) for n, i in conditions.items()}
    desk.result({"by": by, "means": means, "differences": finite(found)}, text=table)


def _chosen(
    replies: Mapping[str, list[Mapping[str, Any]]], wanted: Sequence[str]
) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of the conditions that are compared: those asked for, else all but random directions."""
    from trimtab.errors import UnknownName

    names = {str(r.get("condition") or "all") for rows in replies.values() for r in rows}
    for name in wanted:
        if name not in names:
            raise UnknownName.of("condition", name, names)
    return {
        thing: [
            r
            for r in rows
            if (str(r.get("condition") or "all") in wanted if wanted else r.get("kind") != "random")
        ]
        for thing, rows in replies.items()
    }


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
