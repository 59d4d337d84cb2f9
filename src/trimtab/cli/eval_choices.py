"""`trimtab eval ab-choice | multiple-choice`: questions with letters, asked under plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError
from trimtab.records import finite

from .frame import Desk, verb
from .library import library_option
from .models import glance, model_options, open_engine, spoken_warnings

if TYPE_CHECKING:
    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Engine
    from trimtab.plans import SteeringPlan


def _steering(function: Any) -> Any:
    for option in (
        click.option(
            "--random",
            type=int,
            default=5,
            help="Random directions of the same norm (0: none, else 5 or more).",
        ),
        click.option("--positions", default="all", help="all, prompt, last_prompt, role=NAME or JSON."),
        click.option(
            "--layers", default=None, help="Where to steer [default: the file's layer, else near 60 % depth]."
        ),
        click.option(
            "--scale", type=float, default=None, help="Strength in multiples of the vector's own norm."
        ),
        click.option(
            "--dose", type=float, default=None, help="Strength as a fraction of the typical residual norm."
        ),
        click.option(
            "--steer", multiple=True, metavar="FILE[:concept]", help="Vector to add; may be repeated."
        ),
    ):
        function = option(function)
    return function


@verb("eval ab-choice")
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
    from trimtab.evaluation.statistics import mean_interval, paired_difference, sign_flip

    items, notes = ABChoice.load(questions)
    for note in notes:
        desk.note(note)
    plan, library = _plan(flags, model, engine)
    with spoken_warnings(desk), open_engine(desk, model, engine, **_options(flags)) as runner:
        runner.library.update(_filled(desk, runner, plan, library))
        plans, names = _signed(plan)
        chance = _randoms(plan, runner, flags["random"], desk.seed)
        found = ABChoice().measure(runner, items, [*plans, *chance])
    rows = []
    for name, ratios in zip(names, found):
        row = {"condition": name, "log_ratio": mean_interval(ratios.log_ratio), "valid": ratios.valid_share,
               "matching_share": float((ratios.log_ratio > 0).mean())}  # fmt: skip
        if name != "plain":
            difference = ratios.log_ratio - found[0].log_ratio
            row |= {
                "difference": paired_difference(ratios.log_ratio, found[0].log_ratio),
                "p": sign_flip(difference),
            }
        rows.append(row)
    null = _band([float((r.log_ratio - found[0].log_ratio).mean()) for r in found[len(plans) :]])
    record = {"model": model, "engine": engine, "items": len(items), "conditions": finite(rows), "null": null}
    lines = [f"{len(items)} questions; log-ratio towards the matching answer (nats)"]
    for r in record["conditions"]:
        moved = f"  Δ {r['difference']['mean']:+.3f}, p {r['p']:.3g}" if "difference" in r else ""
        e = r["log_ratio"]
        shares = f"matching {r['matching_share']:.0%}  valid {r['valid']:.0%}"
        lines.append(f"{r['condition']:>8}  {_interval(e)}  {shares}{moved}")
    lines += _null_line(null, "Δ", len(chance))
    desk.result(record, text="\n".join(lines))


@verb("eval multiple-choice")
@click.argument("model")
@click.argument("questions", type=click.Path(path_type=Path))
@_steering
@library_option
@model_options
def multiple_choice(desk: Desk, model: str, questions: Path, engine: str, **flags: Any) -> None:
    """Knowledge questions that steering should not move: margin of the right letter, and flips.

    QUESTIONS holds {"question", "choices": […], "answer": index or letter} rows.
    """
    from trimtab.evaluation.scorers.multiple_choice import MultipleChoice, moved

    items = MultipleChoice.load(questions)
    plan, library = _plan(flags, model, engine)
    with spoken_warnings(desk), open_engine(desk, model, engine, **_options(flags)) as runner:
        runner.library.update(_filled(desk, runner, plan, library))
        plans, names = _signed(plan)
        chance = _randoms(plan, runner, flags["random"], desk.seed)
        found = MultipleChoice().measure(runner, items, [*plans, *chance])
    plain = found[0]
    rows: list[dict[str, Any]] = [
        {"condition": n, "accuracy": float(m.right.mean()), "margin": float(m.margin.mean()),
         "mass": float(m.mass.mean()), **({} if n == "plain" else {"moved": finite(moved(plain, m))})}
        for n, m in zip(names, found)
    ]  # fmt: skip
    null = _band([float((m.margin - plain.margin).mean()) for m in found[len(plans) :]])
    lines = [f"{len(items)} questions; chance {sum(1 / len(q.choices) for q in items) / len(items):.0%}"]
    for r in rows:
        tail = ""
        if "moved" in r:
            e = r["moved"]
            tail = f"  Δ margin {_interval(e['margin'])}, p {e['p']:.3g}"
            tail += f"; {e['flipped_wrong']:.0%} became wrong, {e['flipped_right']:.0%} right"
        lines.append(f"{r['condition']:>8}  accuracy {r['accuracy']:.0%}  margin {r['margin']:+.3f}{tail}")
    lines += _null_line(null, "Δ margin", len(chance))
    record = {"model": model, "engine": engine, "items": len(items), "conditions": rows, "null": null}
    desk.result(record, text="\n".join(lines))


def _interval(e: dict[str, Any]) -> str:
    bounds = "" if e["low"] is None else f" [{e['low']:+.3f}, {e['high']:+.3f}]"
    return f"{e['mean']:+.3f}{bounds}"


def _options(flags: dict[str, Any]) -> dict[str, Any]:
    return {k: flags[k] for k in ("dtype", "device")}


def _plan(flags: dict[str, Any], model: str, engine: str) -> tuple[SteeringPlan, dict[str, ConceptVectors]]:
    from . import steering

    if flags["random"] and flags["random"] < 5:
        raise InputError(
            f"a null band needs at least 5 random directions (or 0), got --random {flags['random']}"
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


def _filled(
    desk: Desk, runner: Engine, plan: SteeringPlan, library: dict[str, ConceptVectors]
) -> dict[str, ConceptVectors]:
    from . import steering

    filled, measured = steering.fill_norms(runner, plan, library)
    for reference in measured:
        desk.note(f"{reference} stores no typical norms: measured them on the neutral texts")
    return filled


def _randoms(plan: SteeringPlan, runner: Engine, count: int, seed: int) -> list[SteeringPlan]:
    """The plan with random directions of the same displacement in its vectors' places, both signs of each."""
    from dataclasses import replace

    from trimtab.directions import ConceptVectors
    from trimtab.evaluation.baselines import random_like
    from trimtab.plans import SteeringPlan

    found = []
    for k in range(count if plan.placements else 0):
        placed = []
        for i, p in enumerate(plan.placements):
            vectors = runner.library[p.vector] if isinstance(p.vector, str) else p.vector
            assert isinstance(vectors, ConceptVectors)  # of a file, as `_plan` loads them
            # The recommended layer is calibration, which random directions have none of: say the layers outright.
            layers = list(vectors.choose_layers(p.layers, runner.info.n_layers, p.stream))
            drawn = random_like(vectors, count, seed + i).only([f"random-{k}"])
            placed.append(replace(p, vector=drawn, layers=layers))
        one = SteeringPlan(tuple(placed))
        found += [one, one.scaled(-1.0)]
    return found


def _band(reached: list[float]) -> list[float] | None:
    """95 % of what random directions reach; None without any."""
    import numpy as np

    return [float(q) for q in np.quantile(reached, (0.025, 0.975))] if reached else None


def _null_line(null: list[float] | None, what: str, count: int) -> list[str]:
    if null is None:
        return []
    return [
        f"{'random':>8}  {what} of 95 % of directions of the same norm {null[0]:+.3f} to {null[1]:+.3f} ({count})"
    ]


def _signed(plan: SteeringPlan) -> tuple[list[SteeringPlan | None], list[str]]:
    """Plain, and where something steers, both signs of it."""
    return ([None, plan, plan.scaled(-1.0)], ["plain", "+", "−"]) if plan.placements else ([None], ["plain"])
