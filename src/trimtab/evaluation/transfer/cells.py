"""What is measured: the plain model, each method at ± each strength, prompts, random directions of the same norm, and
models whose weights were trained instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trimtab.directions import ConceptVectors
from trimtab.engines.checkpoint import parameters_of
from trimtab.errors import InputError
from trimtab.evaluation.baselines import random_like
from trimtab.plans import SteeringPlan
from trimtab.prompts import Positions
from trimtab.safe_range import without_ranges
from trimtab.sites import LayerSpec, Site

PLAIN, VECTOR, PROMPT, RANDOM, TUNED = "plain", "vector", "prompt", "random", "tuned"
UNITS = ("dose", "scale")


@dataclass(frozen=True, eq=False)
class Cell:
    """One method (`arm`) at one signed strength; `of` is the method that a random direction stands beside; a tuned cell
    is measured on another model, that of the folder `weights`. `params` counts the numbers that the method adds or
    changes: those of its direction at every layer, or those of the weights; None for words and where nobody knows."""

    arm: str
    kind: str
    strength: float = 0.0
    plan: SteeringPlan | None = None
    system: str | None = None
    of: str | None = None
    weights: str | None = None
    params: int | None = None

    @property
    def name(self) -> str:
        """For example "honest +0.4", "prompt: Be honest.", "plain"."""
        return f"{self.arm} {self.strength:+g}" if self.strength else self.arm

    def unit(self) -> dict[str, Any]:
        """What identifies this cell in a run."""
        plan = (
            None
            if self.plan is None
            else [[p.vector if isinstance(p.vector, str) else self.arm] for p in self.plan.placements]
        )
        return {
            "arm": self.arm,
            "kind": self.kind,
            "strength": self.strength,
            "system": self.system,
            "plan": plan,
            **({} if self.weights is None else {"weights": self.weights}),
        }


@dataclass(frozen=True)
class Placing:
    """Where and in which unit every vector acts."""

    layers: LayerSpec | None = None
    stream: str = "resid_post"
    positions: Positions = "all"
    unit: str = "dose"

    def plan(self, vectors: ConceptVectors, strength: float) -> SteeringPlan:
        """An `Add` of one concept at one strength; what lies beyond its safe range stands in the report."""
        one = replace(vectors, calibration=without_ranges(vectors.calibration))
        return SteeringPlan.add(
            one, layers=self.layers, stream=self.stream, positions=self.positions, **{self.unit: strength}
        )


def cells_of(
    methods: Mapping[str, ConceptVectors],
    strengths: Sequence[float],
    placing: Placing,
    *,
    prompts: Mapping[str, str] | None = None,
    random: int = 5,
    seed: int = 0,
    n_layers: int | None = None,
) -> list[Cell]:
    """Every cell, the plain model first. Strengths are positive; both signs are measured, always.

    Methods that act at the same sites share their random directions, whose norms are equal in the unit of dose.
    """
    sizes = sorted(set(strengths))
    if not sizes or min(sizes) <= 0:
        raise InputError(f"strengths are positive numbers (both signs are measured), got {list(strengths)}")
    if random < 0 or 0 < random < 5:
        raise InputError(f"a null band needs at least 5 random directions (or 0 for none), got {random}")
    cells = [Cell("plain", PLAIN)]
    for name, vectors in methods.items():
        if len(vectors.concepts) != 1:
            raise InputError(f"{name} holds {len(vectors.concepts)} concepts; name one")
        params = sum(vectors.table(s).vectors.shape[1] for s in _sites(vectors, placing, n_layers))
        cells += [Cell(name, VECTOR, c, placing.plan(vectors, c), params=params) for c in _signed(sizes)]
    cells += [Cell(f"prompt: {k}", PROMPT, system=text) for k, text in (prompts or {}).items()]
    seen: set[tuple[int, ...]] = set()
    for name, vectors in methods.items() if random else ():
        where = tuple(s.layer for s in _sites(vectors, placing, n_layers))
        if where in seen and placing.unit == "dose":
            continue
        seen.add(where)
        # The recommended layer is calibration, which random directions have none of: say the layers outright.
        fixed = Placing(list(where), placing.stream, placing.positions, placing.unit)
        drawn = random_like(vectors, random, seed)
        for concept in drawn.concepts:
            one = drawn.only([concept])
            cells += [
                Cell(f"{concept} as {name}", RANDOM, c, fixed.plan(one, c), of=name) for c in _signed(sizes)
            ]
    return cells


def tuned_cells(folders: Mapping[str, str]) -> list[Cell]:
    """One cell per trained model or adapter, by name: it has no strength and no other sign."""
    return [
        Cell(name, TUNED, weights=folder, params=parameters_of(folder)) for name, folder in folders.items()
    ]


def _sites(vectors: ConceptVectors, placing: Placing, n_layers: int | None) -> list[Site]:
    """Where a vector acts."""
    depth = n_layers or vectors.origin.n_layers or max(s.layer for s in vectors.sites) + 1
    return [Site(n, placing.stream) for n in vectors.choose_layers(placing.layers, depth, placing.stream)]


def _signed(sizes: Sequence[float]) -> list[float]:
    return [s * c for c in sizes for s in (1.0, -1.0)]
