"""A clause is a plain function of a `Subject` that raises where the engine breaks its promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engines.subjects import Subject
from trimtab.interventions import Ablate, Add, Cap, Deltas, Gate, Operator, Pin
from trimtab.plans import Placement, SteeringPlan
from trimtab.sites import Site

Clause = Callable[[Subject], None]
CLAUSES: dict[str, Clause] = {}


def clause(function: Clause) -> Clause:
    """Register a clause under its name."""
    assert function.__name__ not in CLAUSES
    CLAUSES[function.__name__] = function
    return function


def place(s: Subject, op: Operator, site: Site, which: int = 0, **flags: Any) -> SteeringPlan:
    """A plan of one operator along direction `which` at `site`."""
    vector = None if isinstance(op, Deltas) else s.direction(site, which)
    return SteeringPlan(Placement(op, vector, layers=[site.layer], stream=site.stream, **flags))


def gap(values: np.ndarray) -> float:
    """A threshold that no rounding crosses: the middle of the widest gap in the inner half of the values."""
    ordered = np.sort(values)
    first, last = len(ordered) // 4, len(ordered) - len(ordered) // 4
    widths = np.diff(ordered)[first : last - 1]
    at = first + int(np.argmax(widths))
    return float((ordered[at] + ordered[at + 1]) / 2)


def coordinates(s: Subject, site: Site, which: int = 0) -> np.ndarray:
    """Plain coordinates [T] of the first prompt along direction `which`."""
    return s.plain(0).before[site].astype(np.float64) @ s.direction(site, which).unit


def every_operator(s: Subject, site: Site) -> Mapping[str, SteeringPlan]:
    """A plan for each operator and flag at one site, of sizes that matter there."""
    a, middle = 0.6 * s.size(site), gap(coordinates(s, site))
    table = a * np.linspace(-0.2, 0.3, 6 * s.engine.info.width(site)).reshape(6, -1)
    gate = Gate(s.direction(site, 1), above=gap(coordinates(s, site, 1)))
    add, ablate = place(s, Add(amount=a), site), place(s, Ablate(), site, 1)
    return {
        "add": add,
        "add dose": place(s, Add(dose=0.5), site),
        "add scale": place(s, Add(scale=-0.1 * s.size(site)), site),
        "relative": place(s, Add(amount=0.5), site, relative=True),
        "renormalise": place(s, Add(amount=a), site, renormalise=True),
        "ablate": place(s, Ablate(), site),
        "reflect": place(s, Ablate(keep=-1.0), site),
        "damp, renormalised": place(s, Ablate(keep=0.3), site, renormalise=True),
        "cap high": place(s, Cap(high=middle), site),
        "cap low": place(s, Cap(low=middle), site),
        "pin": place(s, Pin(a), site),
        "pin z": place(s, Pin(2.0, z=True), site),
        "deltas": place(s, Deltas(table, start=2), site),
        "gated": place(s, Add(amount=a), site, gate=gate),
        "gated pin": place(s, Pin(-a), site, gate=gate),
        "scaled add": add.scaled(-0.5),
        "scaled pin": place(s, Pin(a), site).scaled(0.4),
        "scaled deltas": place(s, Deltas(table, start=1), site).scaled(0.5),
        "some positions": place(s, Add(amount=a), site, positions={"after": 2}),
        "stacked": add | ablate | place(s, Cap(low=-0.1 * a, high=0.1 * a), site, 2),
    }
