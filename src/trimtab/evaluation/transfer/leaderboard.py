"""Conditions side by side under four rules, and whether their order depends on the rule.

forced    mean over dilemmas of the log-ratio towards the target (nats)
free      mean of +1 (said what the target asks for) and −1, over the questions that were answered; the share
          without an answer stands beside it
binary    share of questions whose likelier answer is the target's
signed    mean of 2 · p(target's answer) − 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from trimtab.evaluation.transfer.effects import Items
from trimtab.evaluation.transfer.measurement import Measured

RULES = ("forced", "free", "binary", "signed")
#: Differences below this are ties, not an order.
TIE = 1e-9


@dataclass(frozen=True)
class Standing:
    """One condition of one model; `free`, `missing`, and the free answers' mean length (tokens) and share cut at the
    token limit are None where none were asked for."""

    model: str
    condition: str
    forced: float
    binary: float
    signed: float
    free: float | None = None
    missing: float | None = None
    valid: float | None = None
    n: int = 0
    length: float | None = None
    cut: float | None = None

    @classmethod
    def of(cls, model: str, condition: str, items: Items, found: Measured, target: str) -> Standing:
        """From one measured cell; a question counts where its dilemma takes a side on the target."""
        y = items.label(target)
        side = np.array([r.sign * y[r.item] for r in items.rows])
        counts = side != 0
        towards = (found.log_ratio * side)[counts]
        free, missing = None, None
        if found.said is not None:
            said = np.array([{"yes": 1.0, "no": -1.0, None: np.nan}[s] for s in found.said])
            agreed = (said * side)[counts]
            missing = float(np.isnan(agreed).mean())
            free = None if missing == 1 else float(np.nanmean(agreed))
        return cls(
            model,
            condition,
            float(items.score(found.log_ratio, target).mean()),
            float(np.mean(np.where(towards == 0, 0.5, towards > 0))),
            float(np.mean(np.tanh(towards / 2))),  # 2 σ(x) − 1
            free,
            missing,
            float(found.valid[counts].mean()),
            int(np.sum(y != 0)),
            found.length,
            found.cut,
        )


@dataclass(frozen=True)
class Board:
    """Standings with their rank under each rule (1 is the most towards the target, ties share the better rank), and
    the pairs of conditions whose order is not the same under all rules."""

    standings: tuple[Standing, ...]
    ranks: tuple[dict[str, int | None], ...]
    disputed: tuple[tuple[str, str, str, str], ...]

    @property
    def order_depends_on_the_rule(self) -> bool:
        """Whether any two conditions change places with the rule."""
        return bool(self.disputed)

    def to_json(self) -> dict[str, Any]:
        """Rows and the flag."""
        rows = [{**vars(s), "ranks": r} for s, r in zip(self.standings, self.ranks, strict=True)]
        keys = ("one", "other", "rule_for_one", "rule_for_other")
        return {
            "rows": rows,
            "order_depends_on_the_rule": self.order_depends_on_the_rule,
            "disputed": [dict(zip(keys, d)) for d in self.disputed],
        }


def board(standings: Sequence[Standing]) -> Board:
    """Rank all conditions of all models together."""
    columns = {rule: [getattr(s, rule) for s in standings] for rule in RULES}
    ranks = tuple({rule: _rank(values, i) for rule, values in columns.items()} for i in range(len(standings)))
    disputed = []
    for i, j in combinations(range(len(standings)), 2):
        up = next((r for r, v in columns.items() if _leads(v[i], v[j])), None)
        down = next((r for r, v in columns.items() if _leads(v[j], v[i])), None)
        if up is not None and down is not None:
            disputed.append((_name(standings[i]), _name(standings[j]), up, down))
    return Board(tuple(standings), ranks, tuple(disputed))


def _leads(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and a > b + TIE


def _rank(values: Sequence[float | None], i: int) -> int | None:
    return None if values[i] is None else 1 + sum(_leads(v, values[i]) for v in values)


def _name(s: Standing) -> str:
    return f"{s.model}: {s.condition}"
