"""Which vector at which scale, and whose norm a scale multiplies.

learned   scale · the vector's own raw norm (its file's)
unit      scale · 1: an absolute displacement
NAME      scale · the raw norm of the vector NAME at the same layer, so that vectors push equally far
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.errors import InputError, UnknownName
from trimtab.plans import SteeringPlan
from trimtab.sites import Site

LEARNED, UNIT = "learned", "unit"


@dataclass(frozen=True, eq=False)
class Condition:
    """One vector at one scale; the plain model has no vector and scale 0."""

    name: str
    vector: str | None = None
    scale: float = 0.0
    plan: SteeringPlan | None = None


def parse_scales(given: Sequence[str], names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """`0,1,2` for all vectors, `NAME=0,4` for one of them; a vector without any grid is an error."""
    shared: tuple[float, ...] | None = None
    own: dict[str, tuple[float, ...]] = {}
    for text in given:
        name, equals, values = text.rpartition("=")
        grid = _grid(values if equals else text)
        if not equals:
            if shared is not None:
                raise InputError("one grid for all vectors is given twice; write NAME=… for one of them")
            shared = grid
        elif name not in names:
            raise UnknownName.of("vector in --scales", name, names)
        else:
            own[name] = grid
    missing = [n for n in names if n not in own] if shared is None else []
    if missing:
        raise InputError(
            f"no scales for {', '.join(missing)}: give --scales 0,1,2 or --scales {missing[0]}=0,1,2"
        )
    return {n: own.get(n, shared or ()) for n in names}


def _grid(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"scales are numbers such as 0,1,2, got {text!r}") from None
    if not found or not np.isfinite(found).all():
        raise InputError(f"scales are finite numbers, at least one, got {text!r}")
    return tuple(dict.fromkeys(found))


def match_norm(vectors: Mapping[str, ConceptVectors], rule: str) -> dict[str, ConceptVectors]:
    """The vectors with the norms that a scale multiplies under a rule."""
    if rule == LEARNED:
        return dict(vectors)
    if rule == UNIT:
        return {n: _with_norms(v, dict.fromkeys(v.tables, 1.0)) for n, v in vectors.items()}
    if rule not in vectors:
        raise UnknownName.of("rule of --match-norm", rule, [LEARNED, UNIT, *vectors])
    ours = {s: float(t.norms[0]) if t.norms is not None else 1.0 for s, t in vectors[rule].tables.items()}
    found = {}
    for name, vector in vectors.items():
        shared = [s for s in vector.tables if s in ours]
        if not shared:
            raise InputError(f"{name} and {rule} share no layer, so that their norms cannot be matched")
        found[name] = _with_norms(vector.only(sites=shared), ours)
    return found


def _with_norms(vectors: ConceptVectors, norms: Mapping[Site, float]) -> ConceptVectors:
    tables = {s: replace(t, norms=np.full(len(t.vectors), norms[s])) for s, t in vectors.tables.items()}
    return replace(vectors, tables=tables)


def conditions(
    vectors: Mapping[str, ConceptVectors],
    scales: Mapping[str, Sequence[float]],
    rule: str = LEARNED,
    **placement: Any,
) -> list[Condition]:
    """The plain model where any grid holds 0 (or nothing steers), then every vector at every other scale."""
    matched = match_norm(vectors, rule)
    found = [Condition("plain")] if not vectors or any(0.0 in g for g in scales.values()) else []
    for name, vector in matched.items():
        for scale in scales[name]:
            if scale:
                plan = SteeringPlan.add(vector, scale=scale, **placement)
                found.append(Condition(f"{name} {scale:+g}", name, scale, plan))
    if not found:
        raise InputError("no condition to run: give scales")
    return found
