"""Rows of one concept at one site, and the ways to split and relabel them: what every resampling here is made of.

Indices run over the positives and then the negatives. Groups (a pair, a scenario) are never split between folds or
halves: their texts are near copies of each other, and a copy on both sides would flatter every score.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, STREAMED_NEEDS, Evidence
from trimtab.extraction.method import Method


@dataclass(frozen=True, eq=False)
class Sample:
    """`rows` [n + m, width] float64, positives first; `group` [n + m] numbers the group of every row."""

    evidence: Evidence
    rows: np.ndarray
    positives: int
    group: np.ndarray

    @classmethod
    def of(cls, evidence: Evidence) -> Sample:
        """From evidence that kept its rows."""
        evidence.require("rows")
        assert evidence.rows is not None
        sides = evidence.rows[POSITIVE], evidence.rows[NEGATIVE]
        names = _names(evidence)
        known = {name: i for i, name in enumerate(dict.fromkeys(names))}
        return cls(evidence, np.concatenate(sides), len(sides[0]), np.array([known[n] for n in names]))

    @property
    def paired(self) -> bool:
        """Whether row i of the positives belongs to row i of the negatives."""
        return self.evidence.paired

    @property
    def positive(self) -> np.ndarray:
        """Indices of the positives."""
        return np.arange(self.positives)

    @property
    def negative(self) -> np.ndarray:
        """Indices of the negatives."""
        return np.arange(self.positives, len(self.rows))

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.group.max()) + 1

    def sides(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of both sides among the rows that `keep` [n + m] marks."""
        return self.positive[keep[: self.positives]], self.negative[keep[self.positives :]]

    def fit(self, method: Method, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
        """Unit row [width] float64 of the method on these rows."""
        return method.fit(pick(self.evidence, method, positive, negative), "part").unit.astype(np.float64)

    def relabelled(self, rng: np.random.Generator) -> np.ndarray:
        """Row indices in an order in which the labels mean nothing: pairs are swapped by a coin, else rows shuffled."""
        if not self.paired:
            return rng.permutation(len(self.rows))
        swap = rng.random(self.positives) < 0.5
        first = np.where(swap, self.negative, self.positive)
        return np.concatenate([first, np.where(swap, self.positive, self.negative)])

    def deal(self, parts: int, rng: np.random.Generator) -> np.ndarray:
        """Part number [n + m] of every row: groups dealt at random, those with both sides, only positives and only
        negatives each evenly."""
        has = np.zeros((self.groups, 2), bool)
        has[self.group[self.positive], 0] = True
        has[self.group[self.negative], 1] = True
        part, start = np.zeros(self.groups, int), 0
        for kind in ((True, True), (True, False), (False, True)):
            members = rng.permutation(np.flatnonzero((has == kind).all(1)))
            part[members] = (start + np.arange(len(members))) % parts
            start += len(members)
        return part[self.group]

    def most_parts(self) -> int:
        """Into how many parts this can be dealt so that each side stands in at least two of them."""
        return min(len(np.unique(self.group[side])) for side in (self.positive, self.negative))


def _names(evidence: Evidence) -> list[Any]:
    n, m = evidence.count[POSITIVE], evidence.count[NEGATIVE]
    if evidence.groups is not None:
        return [*evidence.groups[POSITIVE], *evidence.groups[NEGATIVE]]
    return [*range(n), *range(n)] if evidence.paired else list(range(n + m))


def pick(evidence: Evidence, method: Method, positive: np.ndarray, negative: np.ndarray) -> Evidence:
    """What `method` would have got, had it been given these rows only. Everything that is kept per row follows."""
    missing = sorted(method.wanted - evidence.needs - STREAMED_NEEDS)
    if missing:
        raise InputError(f"this evidence holds no {', '.join(missing)}: {method.name} cannot be fitted again")
    assert evidence.rows is not None
    rows = np.concatenate([evidence.rows[POSITIVE], evidence.rows[NEGATIVE]])
    needs = method.wanted & STREAMED_NEEDS
    found = Evidence.from_rows(evidence.site, rows[positive], rows[negative], needs, evidence.paired)
    chosen = {POSITIVE: positive, NEGATIVE: negative}
    more: dict[str, Any] = {}
    for name in ("gradients", "loss_norms", "logprobs", "scores"):
        table = getattr(evidence, name)
        if table is not None:
            whole = np.concatenate([table[POSITIVE], table[NEGATIVE]])
            more[name] = {side: whole[at] for side, at in chosen.items()}
    for name in ("tokens", "groups"):
        table = getattr(evidence, name)
        if table is not None:
            whole = [*table[POSITIVE], *table[NEGATIVE]]
            more[name] = {side: tuple(whole[i] for i in at) for side, at in chosen.items()}
    return replace(found, needs=found.needs | method.wanted, weights=evidence.weights, **more)
