"""`trimtab eval ab-choice | multiple-choice`: questions with options, asked under plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError
from trimtab.records import finite, unit_key

from . import run_reports, steering
from .frame import Desk, verb
from .library import library_option
from .models import glance, model_options, open_engine, spoken_warnings

if TYPE_CHECKING:
    from rich.table import Table

    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Engine
    from trimtab.evaluation.choices.effects import Effects
    from trimtab.evaluation.choices.page import About
    from trimtab.evaluation.conditions import Condition
    from trimtab.evaluation.reporting.ship import Ship
    from trimtab.evaluation.scorers.choices import ChoiceScorer
    from trimtab.plans import SteeringPlan
    from trimtab.sites import ModelInfo


def _steering(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--random", type=int, default=5,
                     help="Random directions of the same norm (0: none, else 5 or more)."),
        click.option("--positions", default="all", help="all, prompt, last_prompt, role=NAME or JSON."),
        click.option("--layers", default=None,
                     help="Where to steer [default: the file's layer, else near 60 % depth]."),
        click.option("--scale", type=float, default=None, help="Strength in multiples of the vector's own norm."),
        click.option("--dose", type=float, default=None,
                     help="Strength as a fraction of the typical residual norm."),
        click.option("--steer", multiple=True, metavar="FILE[:concept]", help="Vector to add; may be repeated."),
    ):  # fmt: skip
        function = option(function)
    return function


@verb("eval ab-choice", runs=True)
@click.argument("model")
@click.argument("questions", type=click.Path(path_type=Path))
@_steering
@library_option
@model_options
def ab_choice(desk: Desk, model: str, questions: Path, engine: str, **flags: Any) -> None:
    """A/B questions (CAA): log p(matching answer) − log p(other), plain and at ± the strength.

    QUESTIONS is a file of the layout `answers` (question, answer_matching_behavior, answer_not_matching_behavior).
    """
    from trimtab.evaluation.scorers.ab_choice import ABChoice

    _measured(desk, model, questions, engine, ABChoice(), "Does behaviour move?", flags)


@verb("eval multiple-choice", runs=True)
@click.argument("model")
@click.argument("questions", type=click.Path(path_type=Path))
@_steering
@library_option
@model_options
def multiple_choice(desk: Desk, model: str, questions: Path, engine: str, **flags: Any) -> None:
    """Knowledge questions that steering should not move: margin of the right letter, and flips.

    QUESTIONS holds {"question", "choices": […], "answer": index or letter} rows.
    """
    from trimtab.evaluation.scorers.multiple_choice import MultipleChoice

    _measured(desk, model, questions, engine, MultipleChoice(), "Does knowledge stay?", flags)


def _measured(
    desk: Desk,
    model: str,
    questions: Path,
    engine: str,
    scorer: ChoiceScorer,
    title: str,
    flags: Mapping[str, Any],
) -> None:
    """Ask in a run folder, write its report, and show the table."""
    from trimtab.evaluation.choices.asking import ask
    from trimtab.evaluation.choices.effects import effects
    from trimtab.evaluation.choices.page import notes, report

    items, said_of_file = scorer.load(questions)
    for note in said_of_file:
        desk.note(note)
    plan, library = _plan(flags, model, engine)
    options = {k: flags[k] for k in ("dtype", "device")}
    with spoken_warnings(desk) as said, open_engine(desk, model, engine, **options) as runner:
        info = runner.info
        filled = _filled(desk, runner, plan, library)
        # both signs are measured on purpose, and what lies beyond a safe range stands in the report
        runner.library.update({r: _without_ranges(v) for r, v in filled.items()})
        conditions = _conditions(plan, runner, flags, desk.seed)
        identity = {
            "questions": unit_key([repr(i) for i in items]),
            "vectors": {r: [v.hash, *_layers(v, flags, info)] for r, v in filled.items()},
            "norms": {r: [*v.typical_norms.values()] for r, v in filled.items()},
            "model": info.id,
            "dtype": info.dtype,  # a server may come back with another one
        }
        with desk.run(info.id, identity=identity, revision=info.revision) as run:
            with desk.progress(f"{scorer.name} (questions)", len(items) * len(conditions)) as bar:
                rows = ask(runner, scorer, items, conditions, seed=desk.seed, ledger=run, advance=bar.advance)
            found = effects(scorer, conditions, rows, abs(_strength(flags) or 0.0))
            about = _about(desk, glance(model, engine).name, scorer, title, filled, info, flags)
            told = notes(found, about)
            figures = _figures(found, told)
            page = run_reports.keep(desk, run, figures, report(found, about))
    for note in told:
        desk.warn(note)
    record = {"model": model, "engine": engine, "run": str(run.folder), "report": page, **figures}
    desk.result({**record, "warnings": list(said)}, text=_table(found, scorer))


def _plan(
    flags: Mapping[str, Any], model: str, engine: str
) -> tuple[SteeringPlan, dict[str, ConceptVectors]]:
    """What steers, checked before a model loads."""
    if flags["random"] < 0 or 0 < flags["random"] < 5:
        raise InputError(
            f"a null band needs at least 5 random directions (or 0), got --random {flags['random']}"
        )
    if _strength(flags) == 0:
        raise InputError(
            "a strength of 0 steers nothing; give another one, or no --steer for the model alone"
        )
    library: dict[str, ConceptVectors] = {}
    plan = steering.build(
        flags["steer"], flags["dose"], flags["scale"], None, library,
        layers=flags["layers"], positions=steering.parse_positions(flags["positions"]),
    )  # fmt: skip
    seen = glance(model, engine)
    for reference, vectors in library.items():
        steering.check_fit(reference, vectors, seen, model)
    steering.chosen_layers(plan, library, seen)
    return plan, library


def _strength(flags: Mapping[str, Any]) -> float | None:
    return flags["dose"] if flags["scale"] is None else flags["scale"]


def _layers(vectors: ConceptVectors, flags: Mapping[str, Any], info: ModelInfo) -> list[int]:
    return list(vectors.choose_layers(flags["layers"], info.n_layers))


def _filled(
    desk: Desk, runner: Engine, plan: SteeringPlan, library: dict[str, ConceptVectors]
) -> dict[str, ConceptVectors]:
    for reference, vectors in library.items():
        steering.check_source(desk, reference, vectors, runner.info)
    filled, measured = steering.fill_norms(runner, plan, library)
    for reference in measured:
        desk.note(f"{reference} stores no typical norms: measured them on the neutral texts")
    return filled


def _without_ranges(vectors: ConceptVectors) -> ConceptVectors:
    from trimtab.safe_range import without_ranges

    return replace(vectors, calibration=without_ranges(vectors.calibration))


def _conditions(plan: SteeringPlan, runner: Engine, flags: Mapping[str, Any], seed: int) -> list[Condition]:
    """Plain, and where something steers, it and random directions of the same displacement, at both signs."""
    from trimtab.evaluation.conditions import PLAIN

    if not plan.placements:
        return [PLAIN]
    vectors = [_loaded(runner, p.vector) for p in plan.placements]
    name, strength = " + ".join(v.concepts[0] for v in vectors), _strength(flags)
    assert strength is not None  # what steers has a strength, as `steering.build` asks
    found = [PLAIN, *_signed(name, "steered", plan, strength)]
    for k in range(flags["random"]):
        found += _signed(
            f"random-{k}", "random", _random(plan, vectors, runner, flags["random"], k, seed), strength
        )
    return found


def _signed(name: str, kind: str, plan: SteeringPlan, strength: float) -> list[Condition]:
    from trimtab.evaluation.conditions import Condition

    found = []
    for sign in (1.0, -1.0):
        own = plan.scaled(sign if strength > 0 else -sign)
        found.append(
            Condition(f"{name} {sign * abs(strength):+g}", kind, name, plan=own, axes={"sign": sign})
        )
    return found


def _loaded(runner: Engine, vector: Any) -> ConceptVectors:
    from trimtab.directions import ConceptVectors

    found = runner.library[vector] if isinstance(vector, str) else vector
    assert isinstance(found, ConceptVectors)  # of a file, as `_plan` loads them
    return found


def _random(
    plan: SteeringPlan, vectors: Sequence[ConceptVectors], runner: Engine, count: int, k: int, seed: int
) -> SteeringPlan:
    """The plan with the k-th random direction of the same displacement in each of its vectors' places."""
    from trimtab.evaluation.baselines import random_like
    from trimtab.plans import SteeringPlan

    placed = []
    for i, (p, v) in enumerate(zip(plan.placements, vectors, strict=True)):
        # The recommended layer is calibration, which random directions have none of: say the layers outright.
        layers = list(v.choose_layers(p.layers, runner.info.n_layers, p.stream))
        placed.append(replace(p, vector=random_like(v, count, seed + i).only([f"random-{k}"]), layers=layers))
    return SteeringPlan(tuple(placed))


# --- what is said of it


def _about(
    desk: Desk,
    name: str,
    scorer: ChoiceScorer,
    title: str,
    vectors: Mapping[str, ConceptVectors],
    info: ModelInfo,
    flags: Mapping[str, Any],
) -> About:
    from trimtab.evaluation.choices.page import About

    places = {run_reports.where(_layers(v, flags, info), info.n_layers): None for v in vectors.values()}
    made = {run_reports.made_by(v): None for v in vectors.values()}
    return About(
        scorer.name.replace("_", "-"), title, scorer.target, name, info.revision, desk.command,
        "dose" if flags["scale"] is None else "scale", _named(vectors), "; ".join(made), "; ".join(places),
        _ship(vectors, flags, info), (("seed", str(desk.seed)),),
    )  # fmt: skip


def _named(vectors: Mapping[str, ConceptVectors]) -> dict[str, str]:
    """Each by its concept, or by its file where two are called alike, and with its hash."""
    from trimtab.evaluation.reporting.card import vector_words

    concepts = [v.concepts[0] for v in vectors.values()]
    alike = len(set(concepts)) < len(concepts)
    names = {r if alike else v.concepts[0]: v.hash for r, v in vectors.items()}
    return {n: vector_words(n, h) for n, h in names.items()}


def _ship(vectors: Mapping[str, ConceptVectors], flags: Mapping[str, Any], info: ModelInfo) -> Ship | None:
    """The calibrated range of one vector; several that push together have none."""
    from trimtab.evaluation.reporting.ship import ship_of

    if len(vectors) != 1:
        return None
    (one,) = vectors.values()
    sites = run_reports.sites(_layers(one, flags, info))
    return ship_of(one, one.concepts[0], sites, "dose" if flags["scale"] is None else "scale")


def _figures(found: Effects, notes: tuple[str, ...]) -> dict[str, Any]:
    """Everything, for machines."""
    return finite({
        "items": found.n, "chance": found.chance, "conditions": found.sides, "null": found.null,
        "random": [dict(zip(("direction", "strength", "change"), r)) for r in found.randoms],
        "slopes": found.slopes, "examples": found.examples, "notes": notes,
    })  # fmt: skip


def _table(found: Effects, scorer: ChoiceScorer) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = f"{found.n} questions, margin of the {scorer.target} option (nats); chance {found.chance:.0%}"
    table = Table("condition", "margin", scorer.target, "change", "p", "lost", "won", "valid", box=None, pad_edge=False,
                  title=title, title_justify="left")  # fmt: skip
    for s in found.sides:
        more = ["–"] * 4
        if s.change is not None:
            more = [_interval(s.change), f"{s.p:.3g}", f"{s.lost:.0%}", f"{s.won:.0%}"]
        table.add_row(Text(s.condition), _interval(s.margin), f"{s.share:.0%}", *more, f"{s.valid:.0%}")
    if found.null is not None:
        low, high = found.null
        table.add_row("random, 95 %", "", "", f"{low:+.3f}…{high:+.3f}", "", "", "", "")
    return table


def _interval(e: Any) -> str:
    if e is None:
        return "–"
    return f"{e.mean:+.3f}" + ("" if e.low != e.low else f" [{e.low:+.3f}, {e.high:+.3f}]")
