"""What `trimtab eval ab-choice | multiple-choice` asks under: flags to a plan, and a plan to conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError

from . import steering
from .frame import Desk
from .models import Glance

if TYPE_CHECKING:
    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Engine
    from trimtab.evaluation.conditions import Condition
    from trimtab.plans import SteeringPlan
    from trimtab.sites import ModelInfo


def plan_of(
    flags: Mapping[str, Any], model: str, seen: Glance
) -> tuple[SteeringPlan, dict[str, ConceptVectors]]:
    """What steers and the files that it names, checked before a model loads."""
    if flags["random"] < 0 or 0 < flags["random"] < 5:
        raise InputError(
            f"a null band needs at least 5 random directions (or 0), got --random {flags['random']}"
        )
    if strength_of(flags) == 0:
        raise InputError(
            "a strength of 0 steers nothing; give another one, or no --steer for the model alone"
        )
    library: dict[str, ConceptVectors] = {}
    plan = steering.build(
        flags["steer"], flags["dose"], flags["scale"], None, library,
        layers=flags["layers"], positions=steering.parse_positions(flags["positions"]),
    )  # fmt: skip
    for reference, vectors in library.items():
        steering.check_fit(reference, vectors, seen, model)
    steering.chosen_layers(plan, library, seen)
    return plan, library


def unit_of(flags: Mapping[str, Any]) -> str:
    """Which of the two strengths was given."""
    return "dose" if flags["scale"] is None else "scale"


def strength_of(flags: Mapping[str, Any]) -> float | None:
    """It; None where nothing steers."""
    return flags[unit_of(flags)]


def layers_of(vectors: ConceptVectors, flags: Mapping[str, Any], info: ModelInfo) -> list[int]:
    """Where a file acts."""
    return list(vectors.choose_layers(flags["layers"], info.n_layers))


def with_norms(
    desk: Desk, runner: Engine, plan: SteeringPlan, library: dict[str, ConceptVectors]
) -> dict[str, ConceptVectors]:
    """The files with the typical norms that a dose needs."""
    for reference, vectors in library.items():
        steering.check_source(desk, reference, vectors, runner.info)
    filled, measured = steering.fill_norms(runner, plan, library)
    for reference in measured:
        desk.note(f"{reference} stores no typical norms: measured them on the neutral texts")
    return filled


def quiet(vectors: ConceptVectors) -> ConceptVectors:
    """Without its safe ranges: both signs are measured on purpose, and the report says what lies beyond."""
    from trimtab.safe_range import without_ranges

    return replace(vectors, calibration=without_ranges(vectors.calibration))


def conditions_of(plan: SteeringPlan, runner: Engine, flags: Mapping[str, Any], seed: int) -> list[Condition]:
    """Plain, and where something steers, it and random directions of the same displacement, at both signs."""
    from trimtab.evaluation.conditions import PLAIN

    strength = strength_of(flags)
    if strength is None:
        return [PLAIN]
    vectors = [_loaded(runner, p.vector) for p in plan.placements]
    found = [PLAIN, *_signed(" + ".join(v.concepts[0] for v in vectors), "steered", plan, strength)]
    for k in range(flags["random"]):
        drawn = _random(plan, vectors, runner, flags["random"], k, seed)
        found += _signed(f"random-{k}", "random", drawn, strength)
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
    assert isinstance(found, ConceptVectors)  # of a file, as `plan_of` loads them
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
        drawn = random_like(v, count, seed + i).only([f"random-{k}"])
        placed.append(replace(p, vector=drawn, layers=layers))
    return SteeringPlan(tuple(placed))
