"""The plans of a batch of rows, site by site: what a kernel compiles, and for how many steps that stays right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from trimtab.errors import Unsupported
from trimtab.prompts import in_ranges
from trimtab.resolved import ResolvedPlacement, ResolvedPlan
from trimtab.sites import Site

#: A placement with the vectors of its plan.
Placed = tuple[ResolvedPlacement, Mapping[str, np.ndarray]]
#: What is placed in one row, by site, in plan order.
PlacedRow = Mapping[Site, tuple[Placed, ...]]


def by_site(plans: Sequence[ResolvedPlan]) -> list[PlacedRow]:
    """One row per plan; rows of the same plan object share one mapping."""
    found = {id(p): {s: tuple((x, p.vectors) for x in p.at(s)) for s in p.sites} for p in plans}
    return [found[id(p)] for p in plans]


def steps_until_change(rows: Sequence[PlacedRow], positions: Iterable[int]) -> int:
    """For how many decode steps, from the absolute `positions` of the rows on, compiled edits stay right: until a range
    begins or ends; one step where a table acts, whose row changes with every token."""
    steps = 1 << 30
    for row, position in zip(rows, positions, strict=True):
        for p, _ in (placed for site in row.values() for placed in site):
            if p.table_start is not None and in_ranges(position, p.ranges):
                return 1
            edges = [e for r in p.ranges for e in r if e is not None and e > position]
            steps = min([steps, *(e - position for e in edges)])
    return steps


def check_gates(plan: ResolvedPlan, order: Callable[[Site], int]) -> None:
    """Refuse (`Unsupported`) a gate that the model computes only after the edit that depends on it; `order` is where a
    forward pass comes by a site."""
    for p in plan.effective:
        if p.gate is not None and order(p.gate.site) > order(p.site):
            raise Unsupported(
                f"this model computes {p.gate.site} after {p.site}: a gate there cannot act on that edit"
            )
