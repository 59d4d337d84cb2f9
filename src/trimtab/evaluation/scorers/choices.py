"""Questions with options: what is read at the answer slot, and what it is worth.

    margin = log p(target) − logsumexp of log p over the other options

With two options that is their log-ratio. The target is the option that counts: the right one, or the one that matches
a behaviour. The log-probabilities of all options are kept, so that rows are scored again without the model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from trimtab.engines.base import Engine
from trimtab.errors import InputError, UnknownName
from trimtab.evaluation.scorers.scorer import Row, Scorer, no_settings
from trimtab.prompts import Prompt

#: margin in nats; the target's probability among the options; 1 where the target is likelier than every other option
UNITS = ("nats", "probability", "right")


@dataclass(frozen=True)
class Asked:
    """A question whose prompt ends at the answer slot: the first tokens of every option, and which option counts."""

    id: str
    text: str
    prompt: Prompt
    options: Mapping[str, tuple[int, ...]]
    target: str

    def read(self, distribution: np.ndarray) -> dict[str, float]:
        """Log-probability of every option, from natural log-probabilities [V]."""
        table = np.asarray(distribution, np.float64)
        return {name: float(np.logaddexp.reduce(table[list(ids)])) for name, ids in self.options.items()}


@dataclass(frozen=True)
class ChoiceScorer(Scorer):
    """Values of rows that hold `options` {name: log-probability} and their `target`."""

    unit: str = "nats"

    needs = "options"
    #: What the target is, which is also the concept of the score.
    target: ClassVar[str]

    @classmethod
    def open(cls, concepts: Sequence[str], settings: Mapping[str, str], seed: int = 0) -> Self:
        """`unit` is one of nats, probability and right; rows of another evaluation are refused."""
        no_settings(settings, cls.name, ("unit",))
        if list(concepts) != [cls.target]:
            raise InputError(
                f"the scorer {cls.name!r} reads the rows of trimtab eval {cls.name.replace('_', '-')}, whose concept "
                f"is {cls.target!r}; got {', '.join(concepts) or 'none'}"
            )
        unit = settings.get("unit", UNITS[0])
        if unit not in UNITS:
            raise UnknownName.of("unit", unit, UNITS)
        return cls(unit)

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> tuple[list[Any], tuple[str, ...]]:
        """The questions of a file, each once, and what the reader decided."""

    @abstractmethod
    def asked(self, engine: Engine, item: Any) -> Asked:
        """A question as this engine is asked it."""

    def values(self, rows: Sequence[Row], concept: str) -> np.ndarray:
        """One number per row; NaN where no option has any probability."""
        return np.array([self.value(r["options"], r["target"]) for r in rows])

    def value(self, options: Mapping[str, float | None], target: str) -> float:
        """Of one row; a run keeps null for a log-probability of −∞."""
        each = {name: -np.inf if v is None else v for name, v in options.items()}
        own = each.pop(target)
        others = np.array(list(each.values()), np.float64)
        if self.unit == "right":
            return float(own > others.max())
        with np.errstate(invalid="ignore"):
            rest = np.logaddexp.reduce(others)
            return float(np.exp(own - np.logaddexp(own, rest)) if self.unit == "probability" else own - rest)


def mass(options: Mapping[str, float | None]) -> float:
    """Probability of all options together."""
    return float(sum(np.exp(v) for v in options.values() if v is not None))
