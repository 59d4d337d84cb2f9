"""`trimtab eval ab-choice | multiple-choice`: questions with options, asked under plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.records import finite, unit_key

from . import choice_plans, run_reports
from .frame import Desk, verb
from .library import library_option
from .models import glance, model_options, open_engine, spoken_warnings

if TYPE_CHECKING:
    from rich.table import Table

    from trimtab.directions import ConceptVectors
    from trimtab.evaluation.choices.effects import Effects
    from trimtab.evaluation.choices.page import About
    from trimtab.evaluation.reporting.ship import Ship
    from trimtab.evaluation.scorers.choices import ChoiceScorer
    from trimtab.evaluation.statistics import Estimate
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
    seen = glance(model, engine)
    plan, library = choice_plans.plan_of(flags, model, seen)
    options = {k: flags[k] for k in ("dtype", "device")}
    with spoken_warnings(desk) as said, open_engine(desk, model, engine, **options) as runner:
        info = runner.info
        filled = choice_plans.with_norms(desk, runner, plan, library)
        runner.library.update({r: choice_plans.quiet(v) for r, v in filled.items()})
        conditions = choice_plans.conditions_of(plan, runner, flags, desk.seed)
        identity = {
            "questions": unit_key([repr(i) for i in items]),
            "vectors": {r: [v.hash, *choice_plans.layers_of(v, flags, info)] for r, v in filled.items()},
            "norms": {r: [*v.typical_norms.values()] for r, v in filled.items()},
            "model": info.id,
        }
        with desk.run(info.id, identity=identity, model=info) as run:
            with desk.progress(f"{scorer.name} (questions)", len(items) * len(conditions)) as bar:
                rows = ask(runner, scorer, items, conditions, seed=desk.seed, ledger=run, advance=bar.advance)
            found = effects(scorer, conditions, rows, abs(choice_plans.strength_of(flags) or 0.0))
            about = _about(desk, seen.name, scorer, title, filled, info, flags)
            told = notes(found, about)
            figures = _figures(found, told)
            page = run_reports.keep(desk, run, figures, report(found, about))
    for note in told:
        desk.warn(note)
    record = {"model": model, "engine": engine, "run": str(run.folder), "report": page, **figures}
    desk.result({**record, "warnings": list(said)}, text=_table(found, scorer))


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

    places = {
        run_reports.where(choice_plans.layers_of(v, flags, info), info.n_layers): None
        for v in vectors.values()
    }
    made = {run_reports.made_by(v): None for v in vectors.values()}
    return About(
        scorer.name.replace("_", "-"), title, scorer.target, name, info.revision, desk.command,
        choice_plans.unit_of(flags), _named(vectors), "; ".join(made), "; ".join(places),
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
    sites = run_reports.sites(choice_plans.layers_of(one, flags, info))
    return ship_of(one, one.concepts[0], sites, choice_plans.unit_of(flags))


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


def _interval(e: Estimate | None) -> str:
    return "–" if e is None else e.words("+.3f")
