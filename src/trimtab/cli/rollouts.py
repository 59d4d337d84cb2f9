"""`trimtab generate --dataset`: questions × vectors × scales × samples, with one loaded model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError, MissingDependency
from trimtab.records import finite

from . import run_reports
from .evaluating import continue_option
from .frame import Desk
from .models import Glance, glance, open_engine, spoken_warnings
from .places import check_writable

if TYPE_CHECKING:
    from rich.table import Table

    from trimtab.directions import ConceptVectors
    from trimtab.evaluation.rollouts.page import About
    from trimtab.evaluation.rollouts.summary import Summary
    from trimtab.sites import ModelInfo

#: Flags of a single generation that a data set has no use for.
_SINGLE = ("prompt", "messages", "dose", "scale", "plan", "read")


def rollout_options(function: Any) -> Any:
    """The flags of `--dataset`, beside those of a single generation."""
    for option in (
        click.option("--batch", type=click.IntRange(1), default=64, help="With --dataset: replies made at a time."),
        continue_option,
        click.option("--limit", type=click.IntRange(1), default=None, help="With --dataset: first N questions."),
        click.option(
            "--match-norm", default="learned", metavar="learned|unit|NAME",
            help="Whose norm a scale multiplies: the vector's own, 1, or that of the vector NAME.",
        ),
        click.option(
            "--scales", multiple=True, metavar="[NAME=]0,1,2",
            help="Scales of all vectors of --steer, or of NAME (its concept); may be repeated. 0 is the plain model.",
        ),
        click.option(
            "--dataset", type=click.Path(path_type=Path), default=None,
            help="Questions (.txt lines, JSON lines): one reply per question, vector, scale and sample.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def rollouts(
    desk: Desk, model: str, engine: str, output: Path | None, dry_run: bool, flags: dict[str, Any]
) -> None:
    """All replies into a run folder and, with -o, into one JSONL or parquet file; summaries of both kinds."""
    from trimtab.engines.requests import Sampling
    from trimtab.evaluation.rollouts.grid import conditions, parse_scales
    from trimtab.evaluation.rollouts.page import report
    from trimtab.evaluation.rollouts.questions import load_questions
    from trimtab.evaluation.rollouts.run import grid
    from trimtab.evaluation.rollouts.summary import cut_warning, summarise

    from . import steering

    _check(flags, output)
    if flags["continue_to"] is not None and flags["continue_to"] <= flags["max_tokens"]:
        raise InputError(
            f"--continue-to is more than --max-tokens ({flags['max_tokens']}), got {flags['continue_to']}"
        )
    questions = load_questions(flags["dataset"])[: flags["limit"]]
    seen = glance(model, engine)
    vectors = _vectors(flags["steer"], model, seen, flags["layers"])
    scales = parse_scales(flags["scales"], list(vectors)) if vectors else {}
    if not vectors and flags["scales"]:
        raise InputError("--scales need a vector: give --steer FILE")
    placement = {
        "layers": flags["layers"], "stream": flags["stream"], "per_layer": flags["per_layer"],
        "positions": steering.parse_positions(flags["positions"]),
    }  # fmt: skip
    found = conditions(vectors, scales, flags["match_norm"], **placement)
    todo = grid(questions, found, flags["samples"])
    about = f"{len(questions)} questions × {len(found)} conditions × {flags['samples']} samples = {len(todo)} replies"
    if dry_run:
        names = [c.name for c in found]
        desk.result(
            {"dry_run": True, "replies": len(todo), "conditions": names}, text="\n".join([about, *names])
        )
        return
    desk.note(about)
    sampling = Sampling(
        flags["max_tokens"], flags["temperature"], flags["top_p"], flags["top_k"], desk.seed, 1, flags["stop"]
    )
    options = {k: flags[k] for k in ("dtype", "device")}
    with spoken_warnings(desk) as said, open_engine(desk, model, engine, **options) as runner:
        for name, v in vectors.items():
            v.check_model(runner.info)
            steering.check_source(desk, name, v, runner.info)
        rows, folder = _make(desk, runner, todo, sampling, vectors, flags)
    by_condition, by_item = summarise(rows, "condition"), summarise(rows, "item")
    if (warning := cut_warning(by_condition)) is not None:
        desk.warn(warning)
    target = output or folder / "rollouts.jsonl"
    write(rows, target)
    notes = () if warning is None else (warning,)
    about = _about(desk, runner.info, seen.name, vectors, placement, flags, notes)
    figures = {"conditions": finite(by_condition), "items": finite(by_item), "notes": notes}
    page = run_reports.keep(desk, desk.runs[-1], figures, report(rows, found, by_condition, about))
    record = {
        "model": model, "engine": engine, "file": str(target), "run": str(folder), "report": page,
        "replies": len(rows),
        "match_norm": flags["match_norm"],
        "conditions": finite(by_condition), "items": finite(by_item), "warnings": list(said),
    }  # fmt: skip
    desk.print(_table(by_condition))
    desk.note(f"wrote {target}")
    desk.result(record)


def _about(
    desk: Desk,
    info: ModelInfo,
    model: str,
    vectors: Mapping[str, ConceptVectors],
    placement: Mapping[str, Any],
    flags: Mapping[str, Any],
    notes: tuple[str, ...],
) -> About:
    """What the report says of the run; safe ranges are those of the norms that the scales multiply."""
    from trimtab.evaluation.reporting.card import vector_words
    from trimtab.evaluation.reporting.ship import ship_of
    from trimtab.evaluation.rollouts.grid import match_norm
    from trimtab.evaluation.rollouts.page import About

    layers = {n: v.choose_layers(flags["layers"], info.n_layers, flags["stream"]) for n, v in vectors.items()}
    ships = {}
    pushed = {} if placement["per_layer"] or not vectors else match_norm(vectors, flags["match_norm"])
    for name, v in pushed.items():
        found = ship_of(v, v.concepts[0], run_reports.sites(layers[name], flags["stream"]), "scale")
        if found is not None:
            ships[name] = found
    return About(
        model, info.revision, desk.command,
        (("a scale multiplies", f"norms: {flags['match_norm']}"), ("seed", str(desk.seed))),
        {n: vector_words(n, v.hash) for n, v in vectors.items()},
        {n: run_reports.where(at, info.n_layers, flags["stream"]) for n, at in layers.items()},
        {n: run_reports.made_by(v) for n, v in vectors.items()}, ships, notes,
    )  # fmt: skip


def _check(flags: Mapping[str, Any], output: Path | None) -> None:
    """What a data set and a single generation do not share, and where the result goes."""
    extra = [f"--{k}" for k in _SINGLE if flags[k] is not None]
    if extra:
        mend = (
            " (a data set is steered by --steer with --scales)"
            if {"--dose", "--scale", "--plan"} & set(extra)
            else ""
        )
        raise InputError(f"{', '.join(extra)} and --dataset exclude each other{mend}")
    if output is not None:
        check_writable(output)
        if output.suffix not in (".jsonl", ".parquet"):
            raise InputError(f"rollouts are written as .jsonl or .parquet, got {output.name}")
        if output.suffix == ".parquet":
            _parquet()


def _parquet() -> Any:
    try:
        from pyarrow import Table, parquet  # type: ignore[import-not-found]
    except ImportError:
        raise MissingDependency.of("pyarrow", "datasets", "writing parquet") from None
    return Table, parquet


def write(rows: Sequence[Mapping[str, Any]], target: Path) -> None:
    """One record per reply, as JSON lines or parquet."""
    plain = [finite({k: v for k, v in r.items() if k not in ("key", "ids")}) for r in rows]
    if target.suffix == ".parquet":
        table, parquet = _parquet()
        parquet.write_table(table.from_pylist(plain), target)
    else:
        target.write_text("".join(json.dumps(r, allow_nan=False) + "\n" for r in plain), encoding="utf-8")


def _vectors(steer: Sequence[str], model: str, seen: Glance, layers: str | None) -> dict[str, ConceptVectors]:
    """One-concept vectors by concept, or by reference where two files hold one of that name."""
    from . import steering

    loaded = {r: steering.one_concept(r, steering.load_reference(r)) for r in steer}
    for reference, v in loaded.items():
        steering.check_fit(reference, v, seen, model)
        if seen.n_layers:
            v.choose_layers(layers, seen.n_layers)
    names = [v.concepts[0] for v in loaded.values()]
    return {(v.concepts[0] if names.count(v.concepts[0]) == 1 else r): v for r, v in loaded.items()}


def _make(
    desk: Desk,
    runner: Any,
    todo: Sequence[Any],
    sampling: Any,
    vectors: Mapping[str, ConceptVectors],
    flags: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], Path]:
    """Every reply, from the run folder where it is already there."""
    from trimtab.evaluation.continuation import warn_of_mixed_limits
    from trimtab.evaluation.rollouts.run import Asking, longer, replies

    from .runs import unit_key

    data = unit_key([[r.question.id, [dict(m) for m in r.question.messages]] for r in todo])
    identity = {
        "questions": data,
        "vectors": {n: [v.hash, _layers(v, runner, flags)] for n, v in vectors.items()},
        "model": runner.info.id,
    }
    slug = f"{runner.info.id}-{Path(flags['dataset']).stem}"
    run = desk.run(slug, identity=identity, model=runner.info)
    chat = True if flags["chat"] or flags["system"] is not None else None
    with run, desk.progress("rollouts", len(todo)) as bar:
        missing = [r for r in todo if unit_key(r.unit()) not in run.done]
        bar.advance(len(todo) - len(missing))
        asking = Asking(sampling, chat, flags["system"], flags["batch"])
        for rollout, record in replies(runner, missing, asking):
            run.finish(rollout.unit(), record)
            bar.advance()
        if flags["continue_to"] is not None:
            made = [(r, run.done[unit_key(r.unit())]) for r in todo]
            for rollout, record in longer(runner, made, asking, flags["continue_to"]):
                run.finish(rollout.unit(), record)
        rows = [run.done[unit_key(r.unit())] for r in todo]
    warn_of_mixed_limits(rows)
    return rows, run.folder


def _layers(vectors: ConceptVectors, runner: Any, flags: Mapping[str, Any]) -> list[int]:
    """Where a file is steered: a new recommendation in its calibration is another run."""
    return list(vectors.choose_layers(flags["layers"], runner.info.n_layers, flags["stream"]))


def _table(found: Sequence[Summary]) -> Table:
    from rich.table import Table

    table = Table("condition", "replies", "questions", "tokens", "cut", "empty", "distinct-2", "repeated",
                  box=None, pad_edge=False)  # fmt: skip
    for s in found:
        e = s.tokens
        shares = ("–" if x is None else f"{x:.2f}" for x in (s.distinct_2, s.repeated))
        table.add_row(
            s.name,
            str(s.replies),
            str(s.items),
            e.words(".1f"),
            f"{s.cut:.0%}",
            f"{s.empty:.0%}",
            *shares,
        )
    return table
