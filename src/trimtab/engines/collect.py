"""Collect evidence from any engine: equal prompts run once, in rounds that keep pairs together, and every round's
states stream into builders: what is held at a time does not grow with the corpus unless a need asks for rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trimtab.activations import pool_positions
from trimtab.directions import frozen
from trimtab.engines import differentials
from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, STREAMED_NEEDS, Evidence, EvidenceBuilder
from trimtab.objectives import Separation
from trimtab.plans import EMPTY
from trimtab.prompts import Prompt
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.base import Engine

#: Prompt tokens, and float32 numbers that leave the engine (64 MB), per round; the engine makes its own batches
#: inside a round, and shares beginnings only there.
ROUND_TOKENS = 65_536
ROUND_NUMBERS = 16_000_000
#: What `collect` gives by itself.
COLLECTED = STREAMED_NEEDS | {"tokens"}


@dataclass(frozen=True)
class Comparison:
    """Indices into the prompts: one concept's positives against its negatives, paired row by row or not.

    `groups` names for every row of both sides what must stay together when rows are split; `scores` are its marks.
    """

    positive: tuple[int, ...]
    negative: tuple[int, ...]
    paired: bool = False
    groups: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    scores: tuple[tuple[float | None, ...], tuple[float | None, ...]] | None = None

    def __post_init__(self) -> None:
        if not self.positive or not self.negative:
            raise InputError("a comparison needs prompts on both sides")
        if self.paired and len(self.positive) != len(self.negative):
            raise InputError(
                f"{len(self.positive)} positives and {len(self.negative)} negatives are not pairs"
            )


class _Side:
    """Builders of one comparison; half a pair enters only together with its other half."""

    def __init__(self, comparison: Comparison, sites: Sequence[Site], needs: frozenset[str]) -> None:
        self.comparison = comparison
        given = comparison.groups
        groups = None if given is None else {POSITIVE: given[0], NEGATIVE: given[1]}
        self.builders = {s: EvidenceBuilder(s, needs, comparison.paired, groups) for s in sites}
        self._sides = (comparison.positive, comparison.negative)
        self._places: list[dict[int, list[int]]] = [{}, {}]
        for places, side in zip(self._places, self._sides, strict=True):
            for k, i in enumerate(side):
                places.setdefault(i, []).append(k)
        self._halves: dict[int, int] = {}  # of pairs that are half here, the prompt that is here

    def feed(self, batch: Sequence[int], table: _Table) -> None:
        """Add what the prompts of a batch complete; every row enters once."""
        fresh = [[k for i in batch for k in places.get(i, ())] for places in self._places]
        here = [self._complete(fresh)] * 2 if self.comparison.paired else fresh
        if not any(here):
            return
        rows = [[table.at[side[k]] for k in at] for side, at in zip(self._sides, here, strict=True)]
        for site, builder in self.builders.items():
            states = table.states[site]
            builder.add(states[rows[0]], states[rows[1]], (here[0], here[1]))

    def _complete(self, fresh: Sequence[Sequence[int]]) -> list[int]:
        """Pairs whose second half has come."""
        ready = []
        for side, ks in zip(self._sides, fresh, strict=True):
            for k in ks:
                if self._halves.pop(k, None) is None:
                    self._halves[k] = side[k]
                else:
                    ready.append(k)
        return ready

    def waits_for(self) -> set[int]:
        """Prompts whose rows are needed once their other half arrives."""
        return set(self._halves.values())


@dataclass(frozen=True)
class _Table:
    """States [n, width] per site, and the row of each prompt."""

    at: dict[int, int]
    states: dict[Site, np.ndarray]

    def kept(self, wanted: set[int]) -> _Table:
        """The rows of some prompts."""
        rows = {i: r for i, r in self.at.items() if i in wanted}
        if not rows:
            return _Table({}, {})
        picks = list(rows.values())
        return _Table({i: k for k, i in enumerate(rows)}, {s: v[picks] for s, v in self.states.items()})

    def with_rows(self, batch: Sequence[int], states: dict[Site, np.ndarray]) -> _Table:
        """These rows and those of a batch behind them."""
        if not self.at:
            return _Table({i: k for k, i in enumerate(batch)}, states)
        at = self.at | {i: len(self.at) + k for k, i in enumerate(batch)}
        return _Table(at, {s: np.concatenate([self.states[s], v]) for s, v in states.items()})


def collect(
    engine: Engine,
    prompts: Sequence[Prompt],
    comparisons: Sequence[Comparison],
    sites: Sequence[Site],
    needs: frozenset[str],
    pooling: str,
    progress: Callable[[int, int], None] | None = None,
    objective: Separation | None = None,
) -> list[dict[Site, Evidence]]:
    """One dict of evidence per comparison. `progress(done, total)` counts distinct prompts."""
    rest = needs - COLLECTED
    differentials.check(engine, comparisons, sites, rest, objective)
    for site in sites:
        engine.info.width(site)
    comparisons = _distinct(prompts, comparisons)
    sides = [_Side(c, sites, needs & STREAMED_NEEDS) for c in comparisons]
    tokens: dict[int, dict[Site, np.ndarray]] | None = {} if "tokens" in needs else None
    order = _order(comparisons)
    held, done = _Table({}, {}), 0
    for batch in _rounds(order, prompts, sum(engine.info.width(s) for s in sites), tokens is not None):
        advance = None if progress is None else lambda n, d=done: progress(d + n, len(order))
        chosen = [prompts[i] for i in batch]
        if tokens is None:
            states = engine.pool(chosen, sites, pooling, advance)
        else:
            states, found = _with_tokens(engine, chosen, sites, pooling)
            tokens.update(zip(batch, found, strict=True))
        table = held.with_rows(batch, states)
        for side in sides:
            side.feed(batch, table)
        held = table.kept(set().union(*(side.waits_for() for side in sides)))
        done += len(batch)
        if progress is not None:
            progress(done, len(order))
    found = [{s: _finished(b, side.comparison, tokens) for s, b in side.builders.items()} for side in sides]
    return differentials.add(engine, prompts, comparisons, found, rest, pooling, objective)


def _distinct(prompts: Sequence[Prompt], comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with the first of equal prompts in the place of all."""
    first: dict[tuple[tuple[int, ...], object], int] = {}
    same = [first.setdefault((p.tokens, p.spans), i) for i, p in enumerate(prompts)]
    return [
        replace(c, positive=tuple(same[i] for i in c.positive), negative=tuple(same[i] for i in c.negative))
        for c in comparisons
    ]


def _order(comparisons: Sequence[Comparison]) -> list[int]:
    """Every prompt once, the halves of a pair beside each other."""
    order: dict[int, None] = {}
    for c in comparisons:
        walk = (
            (i for pair in zip(c.positive, c.negative) for i in pair)
            if c.paired
            else (*c.positive, *c.negative)
        )
        order.update(dict.fromkeys(walk))
    return list(order)


def _with_tokens(
    engine: Engine, prompts: Sequence[Prompt], sites: Sequence[Site], pooling: str
) -> tuple[dict[Site, np.ndarray], list[dict[Site, np.ndarray]]]:
    """Pooled states, and for each prompt those of every token that is neither special nor first."""
    captures = engine.capture(prompts, sites, at="before", plan=EMPTY)
    read = [pool_positions(pooling, p) for p in prompts]
    content = [pool_positions("mean_all", p) for p in prompts]
    pooled = {s: np.stack([c[s][at].mean(0) for c, at in zip(captures, read, strict=True)]) for s in sites}
    return pooled, [{s: frozen(c[s][at]) for s in sites} for c, at in zip(captures, content, strict=True)]


def _finished(
    builder: EvidenceBuilder, comparison: Comparison, tokens: dict[int, dict[Site, np.ndarray]] | None
) -> Evidence:
    found = builder.finish()
    if tokens is not None:
        site, sides = builder.site, {POSITIVE: comparison.positive, NEGATIVE: comparison.negative}
        texts = {g: tuple(tokens[i][site] for i in side) for g, side in sides.items()}
        found = replace(found, tokens=texts, needs=found.needs | {"tokens"})
    if comparison.scores is None:
        return found
    positive, negative = (np.array(s, dtype=np.float64) for s in comparison.scores)  # None becomes NaN
    return replace(found, scores={POSITIVE: positive, NEGATIVE: negative})


def _rounds(order: Sequence[int], prompts: Sequence[Prompt], width: int, whole: bool) -> Iterator[list[int]]:
    """Rounds within the budgets, an even number of prompts where there are more; `whole` counts every token's states,
    of `width` numbers at all sites together."""
    batch: list[int] = []
    tokens = numbers = 0
    for i in order:
        size = len(prompts[i])
        more = (size if whole else 1) * width
        if (
            len(batch) > 1
            and not len(batch) % 2
            and (tokens + size > ROUND_TOKENS or numbers + more > ROUND_NUMBERS)
        ):
            yield batch
            batch, tokens, numbers = [], 0, 0
        batch.append(i)
        tokens, numbers = tokens + size, numbers + more
    if batch:
        yield batch
