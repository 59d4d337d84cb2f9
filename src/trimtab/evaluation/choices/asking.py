"""Ask every question under every condition, and keep one row of each.

A row holds the log-probabilities of all options, so that it is scored again without the model. Rows are cut into parts
once, and a part that is not finished runs whole: a run that was killed ends with the rows of an unbroken one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.engines.base import Engine
from trimtab.engines.requests import ScoreRequest
from trimtab.errors import InputError
from trimtab.evaluation.conditions import Condition, check_conditions, total_here
from trimtab.evaluation.log_ratio import BATCH
from trimtab.evaluation.samples import Ledger, Memory, Record
from trimtab.evaluation.scorers.choices import Asked, ChoiceScorer
from trimtab.plans import EMPTY
from trimtab.records import finite, unit_key
from trimtab.resolved import ResolvedPlan


@dataclass(frozen=True, eq=False)
class _Unit:
    """One question under one condition: one row."""

    asked: Asked
    condition: Condition
    plan: ResolvedPlan
    key: Record


def ask(
    engine: Engine,
    scorer: ChoiceScorer,
    items: Sequence[Any],
    conditions: Sequence[Condition],
    *,
    seed: int = 0,
    ledger: Ledger | None = None,
    part: int = BATCH,
    advance: Callable[[int], None] | None = None,
) -> list[Record]:
    """Rows of every (question, condition); finished ones come from the ledger. `advance(rows)` counts rows, kept ones
    too; `part` rows run together."""
    if not items:
        raise InputError("there are no questions")
    ledger = ledger or Memory()
    asked = [scorer.asked(engine, i) for i in items]
    if len({a.id for a in asked}) < len(asked):
        raise InputError("a question stands twice: each must be there once, for it is what is counted")
    units = list(_units(engine, scorer, asked, check_conditions(conditions), seed))
    found: list[Record] = []
    for start in range(0, len(units), part):
        batch = units[start : start + part]
        if not all(unit_key(u.key) in ledger.done for u in batch):
            for unit, row in zip(batch, _run(engine, scorer, batch, seed), strict=True):
                if unit_key(unit.key) not in ledger.done:
                    ledger.finish(unit.key, row)
        found += [ledger.done[unit_key(u.key)] for u in batch]
        if advance is not None:
            advance(len(batch))
    return found


def _units(
    engine: Engine,
    scorer: ChoiceScorer,
    asked: Sequence[Asked],
    conditions: Sequence[Condition],
    seed: int,
) -> Iterator[_Unit]:
    """Questions outside, conditions inside: rows of one prompt stand together."""
    for a in asked:
        for c in conditions:
            plan = EMPTY if c.plan is None else engine.resolve(c.plan, a.prompt)
            key = {
                "score": scorer.name,
                "item": a.id,
                "tokens": unit_key(list(a.prompt.tokens)),
                "options": {name: list(ids) for name, ids in a.options.items()},
                "target": a.target,
                "condition": c.name,
                "kind": c.kind,
                "fingerprint": plan.fingerprint,
                "seed": seed,
                "model": engine.info.id,
                "revision": engine.info.revision,
            }
            yield _Unit(a, c, plan, key)


def _run(engine: Engine, scorer: ChoiceScorer, batch: Sequence[_Unit], seed: int) -> Iterator[Record]:
    requests = [ScoreRequest(u.asked.prompt, plan=u.plan, logprobs="last") for u in batch]
    for unit, score in zip(batch, engine.score(requests), strict=True):
        assert score.distribution is not None  # logprobs="last" asks for it
        options = unit.asked.read(score.distribution)
        value = scorer.value(options, unit.asked.target)
        yield {
            "item": unit.asked.id,
            "question": unit.asked.text,
            "condition": unit.condition.name,
            "kind": unit.condition.kind,
            "concept": unit.condition.concept,
            "fingerprint": unit.plan.fingerprint,
            **{u: total_here(unit.plan, u) for u in ("dose", "scale")},
            "seed": seed,
            "model": engine.info.id,
            "revision": engine.info.revision,
            "options": finite(options),
            "target": unit.asked.target,
            "scores": {scorer.name: {scorer.target: finite(value)}},
        }
