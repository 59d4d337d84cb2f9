"""A measured cell as rows of a run, one per question and one per neutral text, and back.

A row says what every row of an evaluation says (`evaluation.samples`): item, condition, fingerprint, dose, scale, seed,
model and revision, the free answer where there is one, and the scores. A cell is there when all of its rows are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.engines.requests import PlanLike
from trimtab.evaluation.conditions import total_here
from trimtab.evaluation.transfer.cells import Cell
from trimtab.evaluation.transfer.effects import Items
from trimtab.evaluation.transfer.measurement import Bench, Measured, Reply
from trimtab.plans import EMPTY
from trimtab.prompts import Prompt
from trimtab.records import finite, unit_key

Record = dict[str, Any]


def keys_of(bench: Bench, cell: Cell) -> list[Record]:
    """What identifies each row of a cell: its questions, then its neutral texts."""
    unit = cell.unit()
    asked: list[Record] = [{"cell": unit, "question": i} for i in range(len(bench.rows))]
    return asked + [{"cell": unit, "neutral": i} for i in range(len(bench.neutral))]


def rows_of(bench: Bench, cell: Cell, here: Measured, items: Items, target: str) -> Iterator[Record]:
    """The rows of a measured cell, in the order of `keys_of`. `scores` are towards the target, as the table counts
    them: there are none where a dilemma takes no side."""
    y = items.label(target)
    numbers = {"log_ratio": here.log_ratio, "mass": here.mass, "prompt_nll": here.prompt_nll}
    for i, (asked, prompt) in enumerate(zip(bench.rows, bench.asked(cell), strict=True)):
        side = float(asked.sign * y[asked.item])
        yield {
            "item": items.dilemmas[asked.item].id,
            "sign": asked.sign,
            "question": asked.question,
            **_about(bench, cell, prompt),
            **{n: finite(v[i]) for n, v in numbers.items()},
            **_free(here, i),
            "scores": {"log_ratio": {target: finite(side * here.log_ratio[i]) if side else None}},
        }
    for i, prompt in enumerate(bench.neutral):
        yield {
            "item": f"neutral-{i}",
            **_about(bench, cell, prompt),
            "neutral_nll": finite(here.neutral_nll[i]),
        }


def _about(bench: Bench, cell: Cell, prompt: Prompt) -> Record:
    engine = bench.engine
    plan = engine.resolve(_plan(cell), prompt)
    return {
        "condition": cell.name,
        "kind": cell.kind,
        "method": cell.arm,
        "system": cell.system,
        "fingerprint": plan.fingerprint,
        **{unit: total_here(plan, unit) for unit in ("dose", "scale")},
        "seed": bench.seed,
        "model": engine.info.id,
        "revision": engine.info.revision,
    }


def _plan(cell: Cell) -> PlanLike:
    return EMPTY if cell.plan is None else cell.plan


def _free(here: Measured, i: int) -> Record:
    """The free answer as it stands now, where there is one; `ids` where a limit has cut it."""
    if not here.replies:
        return {}
    r = here.replies[i]
    found = {"text": r.text, "said": r.said, "tokens": r.tokens, "cut": r.cut, "limits": list(r.limits)}
    return {**found, **({"ids": list(r.ids)} if r.ids else {})}


def measured_of(bench: Bench, cell: Cell, done: Mapping[str, Mapping[str, Any]]) -> Measured | None:
    """The cell from a run's finished rows; None where one of them is missing."""
    rows = [done.get(unit_key(k)) for k in keys_of(bench, cell)]
    found = [r for r in rows if r is not None]
    if len(found) < len(rows):
        return None
    asked, neutral = found[: len(bench.rows)], found[len(bench.rows) :]
    replies = tuple(
        Reply(r["text"], r["said"], r["tokens"], r["cut"], tuple(r["limits"]), tuple(r.get("ids", ())))
        for r in asked
        if "text" in r
    )
    return Measured(
        _column(asked, "log_ratio"),
        _column(asked, "mass"),
        _column(asked, "prompt_nll"),
        _column(neutral, "neutral_nll"),
        asked[0]["fingerprint"],
        replies,
    )


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Numbers of all rows; a run keeps null for those that are not finite."""
    return np.array([np.nan if r[name] is None else r[name] for r in rows], np.float64)
