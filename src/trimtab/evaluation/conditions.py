"""Conditions: what is done to the model while it answers the items. One of them is always to do nothing.

plain       nothing
steered     a plan of one concept at one dose
random      a direction of the same displacement that means nothing (the null band)
prefix      words in front of the prompt instead of a vector
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trimtab.directions import ConceptVectors
from trimtab.errors import InputError
from trimtab.evaluation.baselines import random_like
from trimtab.interventions import Add
from trimtab.plans import Placement, SteeringPlan
from trimtab.prompts import Positions
from trimtab.resolved import ResolvedPlan

KINDS = ("plain", "steered", "random", "prefix")
#: Between streams that share one dose.
UNION = "+"
#: What a prompt prefix says of a concept for which no words were given.
PREFIX = "You are {concept}."
#: Fewer random directions than this say little about what chance does.
RANDOMS = 5


@dataclass(frozen=True, eq=False)
class Condition:
    """`axes` says where and how, for tables (layer, stream, method, positions); `concept` names the direction."""

    name: str
    kind: str = "plain"
    concept: str | None = None
    dose: float = 0.0
    plan: SteeringPlan | None = None
    system: str | None = None
    axes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"a condition is one of {', '.join(KINDS)}, got {self.kind!r}")


PLAIN = Condition("plain")


def check_conditions(conditions: Sequence[Condition]) -> list[Condition]:
    """Refuse names that stand twice: rows are found by them."""
    names = [c.name for c in conditions]
    if len(set(names)) < len(names):
        raise InputError(f"conditions need distinct names, got {sorted(names)}")
    return list(conditions)


def steered(
    vectors: ConceptVectors,
    concept: str,
    dose: float,
    layers: Sequence[int],
    *,
    stream: str = "resid_post",
    positions: Positions = "all",
    kind: str = "steered",
    **axes: Any,
) -> Condition:
    """One concept added at one total dose, shared by the layers and by the streams of a union ("attn_out+mlp_out")."""
    where = {"layers": list(layers), "stream": stream, "positions": positions, **axes}
    # A study measures beyond the safe range on purpose: it needs no warning of it.
    one = replace(vectors.only([concept]), calibration={})
    streams = stream.split(UNION)
    share = Add(dose=dose / len(streams))
    placed = tuple(Placement(share, one, list(layers), s, positions) for s in streams)
    words = ",".join(map(str, layers)) + ("" if stream == "resid_post" else f".{stream}")
    extra = "".join(f" {v}" for k, v in sorted(axes.items()) if k != "cell")
    more = "" if positions == "all" else f" {positions}"
    return Condition(
        f"{concept} {dose:+.6g} @{words}{extra}{more}",
        kind,
        concept,
        dose,
        SteeringPlan(placed),
        None,
        where,
    )


def randoms(
    vectors: ConceptVectors,
    count: int,
    doses: Sequence[float],
    layers: Sequence[int],
    *,
    seed: int = 0,
    stream: str = "resid_post",
    positions: Positions = "all",
    **axes: Any,
) -> list[Condition]:
    """`count` random directions at each size of `doses`. A random direction at −d is another one at d, so each size
    is sampled once and stands for both signs."""
    drawn = random_like(vectors, count, seed)
    sizes = sorted({abs(d) for d in doses if d})
    return [
        steered(drawn, r, d, layers, stream=stream, positions=positions, kind="random", **axes)
        for r in drawn.concepts
        for d in sizes
    ]


def prefix(concept: str, words: str | None = None) -> Condition:
    """Telling instead of steering; `words` default to "You are CONCEPT."."""
    return Condition(f"prefix {concept}", "prefix", concept, system=words or PREFIX.format(concept=concept))


def total_here(plan: ResolvedPlan, unit: str) -> float | None:
    """The total "dose" or "scale" of what a plan does, 0 where it does nothing; None where a placement has no such
    number."""
    sources = [p.source for p in plan.effective]
    found = [v for s in sources if (v := s.get(f"{unit}_here")) is not None]
    return float(sum(found)) if len(found) == len(sources) else None
