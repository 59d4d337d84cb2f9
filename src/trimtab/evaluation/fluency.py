"""How well the model still writes under a condition, as one number per condition: higher is better.

trigrams      share of word trigrams that a reference corpus knows; at most .05 below the plain model's
plain_nll     −(nats per token of the text under the plain model + 5 × share of repeated token trigrams); at most
              1 below: either one nat, or a fifth of the text repeating itself
neutral_nll   −nats per token of fixed neutral text under the plan; at most 1 below. For runs that write nothing
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trimtab.engines.base import Engine
from trimtab.engines.requests import ScoreRequest
from trimtab.evaluation.coherence import SLACK, Reference, coherent
from trimtab.evaluation.conditions import Condition
from trimtab.evaluation.limits import neutral_continuations
from trimtab.evaluation.samples import Ledger
from trimtab.plans import SteeringPlan
from trimtab.records import unit_key

Row = Mapping[str, Any]
REPEATS = 5.0


class Fluency(ABC):
    """`of(conditions, rows)`: condition name → number. `good` compares with the plain model's."""

    name: ClassVar[str]
    slack: ClassVar[float]

    @abstractmethod
    def of(self, conditions: Sequence[Condition], rows: Mapping[str, Sequence[Row]]) -> dict[str, float]:
        """One number per condition."""

    def good(self, value: float, plain: float) -> bool:
        """Whether a condition still writes about as well as the plain model; NaN does not."""
        return coherent(value, plain, self.slack)


@dataclass(frozen=True, eq=False)
class Trigrams(Fluency):
    """Pooled over all texts of a condition (`evaluation.coherence`)."""

    name: ClassVar[str] = "trigrams"
    slack: ClassVar[float] = SLACK
    reference: Reference

    def of(self, conditions: Sequence[Condition], rows: Mapping[str, Sequence[Row]]) -> dict[str, float]:
        """From the texts alone."""
        return {c.name: self.reference.coherence([r["text"] for r in rows[c.name]]) for c in conditions}


@dataclass(frozen=True, eq=False)
class PlainLoss(Fluency):
    """The text as the plain model would continue the same prompt. It needs rows measured with `plain_nll`."""

    name: ClassVar[str] = "plain_nll"
    slack: ClassVar[float] = 1.0

    def of(self, conditions: Sequence[Condition], rows: Mapping[str, Sequence[Row]]) -> dict[str, float]:
        """Mean over rows."""
        return {
            c.name: -float(np.mean([_number(r["plain_nll"]) + REPEATS * r["repeated"] for r in rows[c.name]]))
            for c in conditions
        }


@dataclass(frozen=True, eq=False)
class NeutralNll(Fluency):
    """Fixed neutral texts under each condition's plan; words in front of a prompt leave them alone."""

    name: ClassVar[str] = "neutral_nll"
    slack: ClassVar[float] = 1.0
    engine: Engine
    ledger: Ledger
    texts: int = 12

    def of(self, conditions: Sequence[Condition], rows: Mapping[str, Sequence[Row]]) -> dict[str, float]:
        """From the ledger where it is known, else measured in one batch."""
        info, pairs = self.engine.info, neutral_continuations(self.engine, self.texts)
        units = {
            c.name: {
                "neutral_nll": rows[c.name][0]["fingerprint"], "texts": self.texts, "model": info.id,
                "revision": info.revision, "condition": c.name,
            }
            for c in conditions
        }  # fmt: skip
        missing = [c for c in conditions if unit_key(units[c.name]) not in self.ledger.done]
        requests = [ScoreRequest(p, t, c.plan or SteeringPlan()) for c in missing for p, t in pairs]
        scored = iter(self.engine.score(requests) if requests else [])
        for c in missing:
            value = float(np.mean([-next(scored).logprobs.mean() for _ in pairs]))
            self.ledger.finish(units[c.name], {"neutral_nll_of": c.name, "value": value})
        return {n: -_number(self.ledger.done[unit_key(u)]["value"]) for n, u in units.items()}


def _number(value: float | None) -> float:
    """A number that a run folder may have stored as null because it was not finite."""
    return float("nan") if value is None else float(value)
