"""Rules that end a request or switch a plan on, judged where the readings are made: in the worker, between two steps.

Nowhere else is exact. A reading is known when a step is over, and by the time that another process has seen it the
next step may run. Here the plan is switched before the next batch is filled, so that a reply is the one that the plan
would have given with `{"after": position}`; and the scheduler hears of a request to end together with the token that
the state has emitted (`stops`). What a rule reports besides, and to whom, is the server's business, which judges the
same numbers once more and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.resolved import ResolvedPlan
from trimtab.rules import Action, Rule, Watch

#: The layer and the readout under which verdicts travel, as rows [rules] of 0 and 1 beside the readings.
VERDICT, NAME = -1, "rules"


@dataclass(frozen=True, eq=False)
class Clause:
    """One rule as the worker needs it: `rule` names its layer; the reading is (product - offset) / scale in float64, of
    column `column` of the ticket's readout. Firing ends the request (`stop`), or switches `plan` on, or both."""

    rule: Rule
    column: int
    offset: float
    scale: float
    stop: bool = False
    plan: ResolvedPlan | None = None

    def to_json(self, plan: Mapping[str, Any] | None) -> dict[str, Any]:
        """For a ticket; `plan` is the plan's JSON without its arrays. What else the rule does stays behind."""
        bare = replace(self.rule, then=(Action("log"),)).to_json()
        numbers = {"column": self.column, "offset": self.offset, "scale": self.scale, "stop": self.stop}
        return {"rule": bare, **numbers, "plan": plan}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Clause:
        """Read `to_json` back, with the arrays that the worker holds."""
        plan = None if data["plan"] is None else ResolvedPlan.from_json(data["plan"], arrays)
        return cls(
            Rule.from_json(data["rule"]), data["column"], data["offset"], data["scale"], data["stop"], plan
        )


class Judge:
    """The rules of one request. Each state is judged once, in order, from position `first` on: what is computed again
    after a preemption is not judged again."""

    def __init__(self, clauses: Sequence[Clause], first: int) -> None:
        self.clauses, self._next = tuple(clauses), first
        self._on: set[int] = set()
        self._watches = [
            Watch([c.rule], [c.rule.when.layer or 0], [c.rule.when.concept], c.rule.when.unit)
            for c in self.clauses
        ]

    def see(self, position: int, products: Mapping[int, np.ndarray]) -> np.ndarray | None:
        """Which rules fire on the products [columns] of each layer, as 0 and 1; None for a state that was judged."""
        if position < self._next:
            return None
        self._next = position + 1
        found = np.zeros(len(self.clauses), np.float32)
        for i, (clause, watch) in enumerate(zip(self.clauses, self._watches, strict=True)):
            product = products[clause.rule.when.layer or 0][clause.column]
            found[i] = bool(watch.see(position, [[reading(product, clause.offset, clause.scale)]]))
        return found

    def consequences(
        self, fired: np.ndarray, position: int, plan: ResolvedPlan
    ) -> tuple[str, ResolvedPlan | None]:
        """(the rule that ends the request or "", what acts instead of `plan` from the next state on or None)."""
        stop, after = "", plan
        for i in np.flatnonzero(fired):
            clause = self.clauses[i]
            if clause.stop:
                stop = stop or clause.rule.name
            if clause.plan is not None and int(i) not in self._on:
                self._on.add(int(i))
                after = after.then(clause.plan.beyond(position))
        return stop, after if after is not plan else None


def reading(product: Any, offset: float, scale: float) -> float:
    """A score as both sides compute it, bit for bit: in float64, then cut to float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.float32((np.float64(product) - offset) / scale))


def judge(
    found: Iterable[tuple[Any, int, Sequence[tuple[int, int]], np.ndarray]],
    switch: Callable[[Any, ResolvedPlan], None],
) -> tuple[dict[str, str], list[tuple[Any, np.ndarray]]]:
    """Judge a step. `found` are products [n, columns] of (tracked request, layer, positions); `switch(tracked, plan)`
    changes what acts from the next step on. Returns who is to end, {request id: rule}, and the verdicts to send on."""
    read: dict[str, tuple[Any, Sequence[tuple[int, int]], dict[int, np.ndarray]]] = {}
    for tracked, layer, positions, rows in found:
        if tracked.judge is not None and not tracked.lost:
            read.setdefault(tracked.id, (tracked, positions, {}))[2][layer] = rows
    stopped: dict[str, str] = {}
    told: list[tuple[Any, np.ndarray]] = []
    for tracked, positions, rows in read.values():
        where = [p for a, b in positions for p in range(a, b)]
        for i, position in enumerate(where):
            fired = tracked.judge.see(position, {layer: r[i] for layer, r in rows.items()})
            if fired is None:
                continue
            told.append(
                ((tracked.ticket.key, tracked.id, VERDICT, NAME, ((position, position + 1),)), fired[None])
            )
            stop, plan = tracked.judge.consequences(fired, position, tracked.plan)
            if (stop or plan is not None) and i + 1 < len(where):
                tracked.lost = f"a rule fired at position {position}, and the step had already gone beyond it"
                break
            if stop:
                stopped[tracked.id] = stop
            if plan is not None:
                switch(tracked, plan)
    return stopped, told
