"""Examples beside the figures: one item at minus, at 0 and at plus, chosen by a rule and not by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.errors import InputError

QUANTILES = (0.25, 0.5, 0.75)
RULE = (
    "Chosen by rule: items are ordered by effect (score at + less score at −; less score at 0 where no − was "
    "measured), equal ones by name, and those at the 25, 50 and 75 % quantile are shown with their first sample."
)


@dataclass(frozen=True)
class Said:
    """One item under one strength: its score, the model's own text where there is one, and a figure in words."""

    strength: float
    score: float
    text: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Triplet:
    """An item at a quantile of the effect over all `of` items; `minus` is None where none was measured."""

    quantile: float
    item: str
    prompt: str
    effect: float
    of: int
    minus: Said | None
    zero: Said
    plus: Said


def chosen(effects: Sequence[float] | np.ndarray, names: Sequence[str]) -> list[tuple[float, int]]:
    """(quantile, index) of the items at the quantiles: rank ⌊q·(n − 1) + ½⌋ of n, each item once."""
    if len(effects) != len(names):
        raise InputError(f"{len(effects)} effects and {len(names)} names do not line up")
    order = sorted(
        (i for i in range(len(names)) if np.isfinite(effects[i])), key=lambda i: (effects[i], names[i])
    )
    found: dict[int, float] = {}
    for q in QUANTILES if order else ():
        found.setdefault(order[int(q * (len(order) - 1) + 0.5)], q)
    return [(q, i) for i, q in found.items()]
