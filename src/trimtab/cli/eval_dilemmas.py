"""`trimtab eval dilemmas`: does a vector move decisions in dilemmas it has never seen?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError
from trimtab.records import finite

from . import dilemma_runs, run_reports
from .evaluating import continue_option, settings_of
from .frame import Desk, verb
from .library import library_option
from .models import Glance, glance, model_options, open_engine, spoken_warnings
from .numbers import numbers
from .places import check_writable
from .transfer_tables import show

if TYPE_CHECKING:
    from trimtab.data.dilemmas import Dilemma
    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Engine
    from trimtab.evaluation.transfer.cells import Cell, Placing
    from trimtab.evaluation.transfer.page import Method
    from trimtab.sites import ModelInfo

PROMPTS = {"plus": "Be honest.", "minus": "Be dishonest."}


@verb(
    "eval dilemmas",
    output="JSON file of the whole result, which `trimtab eval leaderboard` reads.",
    runs=True,
)
@click.argument("model")
@click.argument("dilemmas", required=False, type=click.Path(path_type=Path))
@click.option(
    "--steer", multiple=True, metavar="FILE[:concept]", help="A method to measure; may be repeated."
)
@click.option("--target", default="honesty", help="Value the methods should move, or Theory/name.")
@click.option("--doses", default=None, help="Sizes, both signs of each [default: 0.25,0.5,1].")
@click.option(
    "--scales", default=None, help="Sizes in multiples of the vector's own norm, instead of --doses."
)
@click.option(
    "--layers", default=None, help="Where to steer [default: each file's layer, else near 60 % depth]."
)
@click.option("--positions", default="all", help="all, prompt, generated, last_prompt, role=NAME or JSON.")
@click.option(
    "--random", type=int, default=5, help="Random directions of the same norm (0: none, else 5 or more)."
)
@click.option("--prompt-plus", default=None, help="System message towards the target [honesty: Be honest.].")
@click.option("--prompt-minus", default=None, help="System message against it [honesty: Be dishonest.].")
@click.option(
    "--tuned",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Trained weights to stand beside: a PEFT adapter or a model; may be repeated.",
)
@click.option("--template", default=None, help="The question, with {situation} and {action}.")
@click.option(
    "--thinking/--no-thinking", default=None, help="Reasoning, where the template has a switch for it."
)
@click.option(
    "--slot", default=None, help='What begins the reply before the answer ["My choice:"; "" for nothing].'
)
@click.option(
    "--values", type=click.Path(path_type=Path), default=None, help="Table of values by theory (CSV)."
)
@click.option("--split", default=None, help="Only the dilemmas of this split.")
@click.option(
    "--free",
    type=click.IntRange(0),
    default=0,
    help="Tokens of a free answer beside the forced one; 0: none.",
)
@continue_option
@click.option(
    "--min-items", type=click.IntRange(2), default=20, help="Fewest dilemmas on a value to count it."
)
@click.option(
    "--select-share", type=float, default=0.25, help="Share of dilemmas that only choose the strength."
)
@click.option("--limit", type=click.IntRange(1), default=None, help="Use only the first N dilemmas.")
@click.option("--list-values", is_flag=True, help="Print the values of the file with their counts, and stop.")
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be done, load nothing.")
@library_option
@model_options
def dilemmas(
    desk: Desk,
    model: str,
    dilemmas: Path | None,
    engine: str,
    output: Path | None,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Does a vector move decisions in dilemmas it has never seen?

    DILEMMAS is a file or folder in the schema of DailyDilemmas; for the model "embedded" its own are the default.
    The table opens with one row per method at its own largest coherent strength.
    """
    from trimtab.data.dilemmas import values_of
    from trimtab.evaluation.transfer.asking import SLOT, TEMPLATE, Asking
    from trimtab.evaluation.transfer.cells import tuned_cells
    from trimtab.evaluation.transfer.effects import Items
    from trimtab.evaluation.transfer.measurement import Bench
    from trimtab.evaluation.transfer.study import Setup, choosing

    seen = glance(model, engine)
    found = _dilemmas(seen.name, dilemmas, flags)
    if flags["list_values"]:
        counts = values_of(found)
        desk.result({"values": counts}, text="\n".join(f"{n:5d}  {v}" for v, n in counts.items()))
        return
    methods = _methods(flags["steer"], flags["layers"], model, seen)
    slot = flags["slot"] if flags["slot"] is not None else ("" if found[0].question else SLOT)
    asking = Asking(flags["template"] or TEMPLATE, slot, flags["thinking"])
    setup = Setup(flags["target"].strip() if "/" in flags["target"] else flags["target"].strip().lower(),
                  flags["select_share"], flags["min_items"])  # fmt: skip
    rows = asking.rows(found)
    items = Items.of(found, rows)
    chosen = choosing(items, setup)
    placing, sizes = _placing(flags)
    limit = flags["continue_to"]
    if limit is not None and not 0 < flags["free"] < limit:
        raise InputError(f"--continue-to is more than --free ({flags['free']} tokens), got {limit}")
    if output is not None:
        check_writable(output)
    weights = dilemma_runs.tuned_folders(settings_of(flags["tuned"], "--tuned"), engine, list(methods))
    trained = tuned_cells(weights)
    cells = [*_cells(methods, sizes, placing, flags, desk.seed), *trained]
    about = f"{len(cells)} conditions × {len(rows)} questions of {len(found)} dilemmas"
    about += f"; {int(chosen.sum())} choose the strength"
    if dry_run:
        record = {
            "dry_run": True,
            "model": model,
            "conditions": [c.name for c in cells],
            "questions": len(rows),
        }
        desk.result(record, text="\n".join([about, *(c.name for c in cells)]))
        return
    desk.note(about)
    if methods and not any(v.origin.method == "mean_diff" for v in methods.values()):
        desk.note(
            "no method here is the mean difference: --steer one of that method too, to have it as a baseline"
        )
    options = {k: flags[k] for k in ("dtype", "device")}
    with spoken_warnings(desk) as said, open_engine(desk, model, engine, **options) as runner:
        methods = _with_norms(desk, runner, methods, placing)
        cells = _cells(methods, sizes, placing, flags, desk.seed, runner.info.n_layers)
        bench = Bench.of(runner, rows, asking, free_tokens=flags["free"], seed=desk.seed)
        bench.check_limit(limit)
        run = dilemma_runs.open_run(desk, runner, found, methods, placing, weights)
        with run, desk.progress("dilemmas", len(cells) + len(trained)) as bar:
            measured = dilemma_runs.measure(run, bench, cells, items, setup.target, limit, bar)
            for cell in trained:
                with dilemma_runs.tuned_bench(desk, model, engine, cell, bench, options) as other:
                    measured += dilemma_runs.measure(run, other, [cell], items, setup.target, limit, bar)
    from trimtab.evaluation.transfer.page import Run, beyond
    from trimtab.evaluation.transfer.page import report as page
    from trimtab.evaluation.transfer.study import report

    done = report(items, [*cells, *trained], measured, setup, seen.name)
    described = _described(methods, dict(zip(methods, flags["steer"])), runner.info, placing)
    done = replace(done, notes=(*done.notes, *beyond(done, placing.unit, described)))
    record = {"model": model, "engine": engine, "revision": runner.info.revision, "seed": desk.seed,
              "unit": placing.unit, "run": str(run.folder), "dilemmas": len(found), "questions": len(rows),
              **done.to_json(), "warnings": list(said)}  # fmt: skip
    facts = (("seed", str(desk.seed)), ("command", desk.command))
    about = Run(seen.name, runner.info.revision, placing.unit, desk.command, facts)
    record["report"] = run_reports.keep(desk, run, record, page(done, about, described))
    if output is not None:
        output.write_text(json.dumps(finite(record), allow_nan=False) + "\n", encoding="utf-8")
    for note in done.notes:
        desk.warn(note)
    show(desk, done, placing.unit)
    desk.result(record)


def _dilemmas(model: str, path: Path | None, flags: dict[str, Any]) -> list[Dilemma]:
    from trimtab.data.dilemmas import load_dilemmas

    split = flags["split"]
    if path is None:
        if model != "embedded":
            raise InputError("name a file of dilemmas (only the embedded model brings its own)")
        from trimtab import embedded

        path, split = embedded.data("dilemmas.jsonl"), split or "heldout"
    found = load_dilemmas(path, flags["values"], split)
    return found[: flags["limit"]] if flags["limit"] else found


def _methods(
    steer: tuple[str, ...], layers: str | None, model: str, seen: Glance
) -> dict[str, ConceptVectors]:
    """One-concept vectors by a short name, checked against the model's configuration."""
    from . import steering

    found: dict[str, ConceptVectors] = {}
    for reference in steer:
        vectors = steering.one_concept(reference, steering.load_reference(reference))
        steering.check_fit(reference, vectors, seen, model)
        if seen.n_layers:
            vectors.choose_layers(layers, seen.n_layers)
        name = vectors.concepts[0]
        found[name if name not in found else reference] = vectors
    return found


def _placing(flags: dict[str, Any]) -> tuple[Placing, list[float]]:
    from trimtab.evaluation.transfer.cells import Placing

    from .steering import parse_positions

    if flags["doses"] is not None and flags["scales"] is not None:
        raise InputError("give --doses or --scales, not both")
    unit = "scale" if flags["scales"] is not None else "dose"
    sizes = numbers(flags["scales"] or flags["doses"] or "0.25,0.5,1", f"--{unit}s")
    return Placing(flags["layers"], positions=parse_positions(flags["positions"]), unit=unit), sizes


def _cells(
    methods: dict[str, ConceptVectors],
    sizes: list[float],
    placing: Placing,
    flags: dict[str, Any],
    seed: int,
    n_layers: int | None = None,
) -> list[Cell]:
    from trimtab.evaluation.transfer.cells import cells_of

    target = flags["target"].rpartition("/")[2]
    honest = target.strip().lower() in ("honesty", "truthfulness")
    plus = flags["prompt_plus"] or (
        PROMPTS["plus"] if honest else f"In every decision, {target} counts above all else."
    )
    minus = flags["prompt_minus"] or (
        PROMPTS["minus"] if honest else f"In every decision, {target} does not count at all."
    )
    prompts = {plus: plus, minus: minus}
    return cells_of(
        methods,
        sizes,
        placing,
        prompts=prompts,
        random=flags["random"] if methods else 0,
        seed=seed,
        n_layers=n_layers,
    )


def _with_norms(
    desk: Desk, runner: Engine, methods: dict[str, ConceptVectors], placing: Placing
) -> dict[str, ConceptVectors]:
    """Typical norms measured where a dose needs them and the file has none; warnings about foreign sources."""
    from . import steering

    for name, vectors in methods.items():
        steering.check_source(desk, name, vectors, runner.info)
        vectors.check_model(runner.info)
    plan = steering.SteeringPlan()
    for name in methods:
        plan |= steering.SteeringPlan.add(name, **{placing.unit: 1.0})
    filled, done = steering.fill_norms(runner, plan, methods)
    for reference in done:
        desk.note(f"{reference} stores no typical norms: measured them on the neutral texts")
    return filled


def _described(
    methods: dict[str, ConceptVectors], names: dict[str, str], info: ModelInfo, placing: Placing
) -> dict[str, Method]:
    """What the report says of every method; its safe range is that of the layers that share the strength."""
    from trimtab.evaluation.reporting.ship import ship_of
    from trimtab.evaluation.transfer.page import Method

    found = {}
    for arm, vectors in methods.items():
        layers = vectors.choose_layers(placing.layers, info.n_layers, placing.stream)
        at = run_reports.sites(layers, placing.stream)
        ship = ship_of(vectors, vectors.concepts[0], at, placing.unit)
        words = run_reports.where(layers, info.n_layers, placing.stream)
        found[arm] = Method(names[arm], vectors.hash, run_reports.made_by(vectors), words, ship)
    return found
