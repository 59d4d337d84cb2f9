"""Collect evidence from any engine: equal prompts run once, by length, and rows stream into builders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trimtab.engines import differentials
from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, STREAMED_NEEDS, Evidence, EvidenceBuilder
from trimtab.objectives import Separation
from trimtab.prompts import Prompt
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.base import Engine

#: Prompt tokens per round of `pool`; the engine makes its own batches inside a round.
ROUND_TOKENS = 16_384


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
    """Builders of one comparison; holds half a pair's rows only until its other half arrives."""

    def __init__(self, comparison: Comparison, sites: Sequence[Site], needs: frozenset[str]) -> None:
        self.comparison = comparison
        given = comparison.groups
        groups = None if given is None else {POSITIVE: given[0], NEGATIVE: given[1]}
        self.builders = {s: EvidenceBuilder(s, needs, comparison.paired, groups) for s in sites}

    def feed(self, rows: dict[Site, dict[int, np.ndarray]], done: set[int], fresh: set[int]) -> None:
        """Add what became complete with the `fresh` prompts; every row enters once."""
        c = self.comparison
        if c.paired:
            both = zip(c.positive, c.negative, strict=True)
            ready = [k for k, (p, n) in enumerate(both) if (p in fresh or n in fresh) and {p, n} <= done]
            places = (ready, ready)
        else:
            fresh_at = [[k for k, i in enumerate(side) if i in fresh] for side in (c.positive, c.negative)]
            places = (fresh_at[0], fresh_at[1])
        if not any(places):
            return
        picked = [[side[k] for k in at] for side, at in zip((c.positive, c.negative), places)]
        for site, builder in self.builders.items():
            width = len(next(iter(rows[site].values())))
            builder.add(
                np.array([rows[site][i] for i in picked[0]]).reshape(-1, width),
                np.array([rows[site][i] for i in picked[1]]).reshape(-1, width),
                places,
            )

    def waits_for(self, done: set[int]) -> set[int]:
        """Prompts whose rows must be kept."""
        if not self.comparison.paired:
            return set()
        pairs = zip(self.comparison.positive, self.comparison.negative, strict=True)
        return {i for p, n in pairs for i in (p, n) if not {p, n} <= done}


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
    rest = needs - STREAMED_NEEDS
    differentials.check(engine, comparisons, sites, rest, objective)
    for site in sites:
        engine.info.width(site)
    first: dict[tuple[tuple[int, ...], object], int] = {}
    same = [first.setdefault((p.tokens, p.spans), i) for i, p in enumerate(prompts)]
    comparisons = [
        replace(c, positive=tuple(same[i] for i in c.positive), negative=tuple(same[i] for i in c.negative))
        for c in comparisons
    ]
    sides = [_Side(c, sites, needs - rest) for c in comparisons]
    order = sorted(
        {i for c in comparisons for i in (*c.positive, *c.negative)}, key=lambda i: len(prompts[i])
    )
    rows: dict[Site, dict[int, np.ndarray]] = {s: {} for s in sites}
    done: set[int] = set()
    for batch in _rounds(order, prompts):
        pooled = engine.pool([prompts[i] for i in batch], sites, pooling)
        for site in sites:
            rows[site].update(zip(batch, pooled[site], strict=True))
        done.update(batch)
        for side in sides:
            side.feed(rows, done, set(batch))
        keep = set().union(*(side.waits_for(done) for side in sides))
        for site in sites:
            rows[site] = {i: r for i, r in rows[site].items() if i in keep}
        if progress is not None:
            progress(len(done), len(order))
    found = [{s: _finished(b, side.comparison) for s, b in side.builders.items()} for side in sides]
    return differentials.add(engine, prompts, comparisons, found, rest, pooling, objective)


def _finished(builder: EvidenceBuilder, comparison: Comparison) -> Evidence:
    found = builder.finish()
    if comparison.scores is None:
        return found
    positive, negative = (np.array(s, dtype=np.float64) for s in comparison.scores)  # None becomes NaN
    return replace(found, scores={POSITIVE: positive, NEGATIVE: negative})


def _rounds(order: Sequence[int], prompts: Sequence[Prompt]) -> list[list[int]]:
    rounds: list[list[int]] = []
    tokens = 0
    for i in order:
        if not rounds or tokens + len(prompts[i]) > ROUND_TOKENS:
            rounds.append([])
            tokens = 0
        rounds[-1].append(i)
        tokens += len(prompts[i])
    return rounds
