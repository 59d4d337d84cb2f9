"""Steer concept i, read concept j: one batch, every reply steered by one concept and read by all of them.

    matrix[i, j] = mean over prompts of (reading of j in the reply steered by i − in the plain reply)

Readings are of the states that emit the reply's tokens, z-scores where the file stores what they need. Rows are kept as
those of every evaluation are (`evaluation.samples`): what is finished is never run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine
from trimtab.engines.requests import Sampling
from trimtab.errors import InputError
from trimtab.evaluation.baselines import random_like
from trimtab.evaluation.conditions import PLAIN, Condition, prefix, steered
from trimtab.evaluation.curves import CUT_GAP
from trimtab.evaluation.fluency import Fluency, PlainLoss
from trimtab.evaluation.items import Item, check_items
from trimtab.evaluation.reporting.triplets import Said, Triplet, chosen
from trimtab.evaluation.samples import Ledger, Record, by_condition, item_scores, measure
from trimtab.evaluation.scorers.projection import Projection
from trimtab.evaluation.statistics import Estimate, mean_interval, sign_flip
from trimtab.readouts import Readout
from trimtab.sites import Site


@dataclass(frozen=True)
class Replies:
    """What one condition wrote: mean length in tokens, share cut at the limit, fluency (`evaluation.fluency`), and
    whether that is still about the plain model's."""

    name: str
    length: float
    cut: float
    fluency: float
    good: bool
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Cross:
    """`change[i][j]`: steered by `steered[i]`, read as `read[j]`, over `n` prompts, with the sign-flip `p`; `null`
    [C, 2] is the 95 % band per read concept of replies steered by random directions of the same dose; `replies` are
    those of the plain model, then of every concept; `examples` show prompts that the rule of triplets chooses;
    `told[i][j]` is the change of reading j where words in front of the prompt name concept i instead."""

    steered: tuple[str, ...]
    read: tuple[str, ...]
    change: tuple[tuple[Estimate, ...], ...]
    p: tuple[tuple[float, ...], ...]
    null: np.ndarray | None
    z: bool
    steer_site: Site
    read_site: Site
    dose: float
    n: int
    replies: tuple[Replies, ...] = ()
    fluency: str = PlainLoss.name
    examples: Mapping[str, tuple[Triplet, ...]] = field(default_factory=dict)
    told: tuple[tuple[Estimate, ...], ...] = ()

    @property
    def same_site(self) -> bool:
        """Whether the diagonal is true by construction."""
        return self.steer_site == self.read_site

    @property
    def strongest(self) -> tuple[bool, ...]:
        """Of every steered concept, whether it moved its own reading more than any other."""
        means = np.array([[abs(e.mean) for e in row] for row in self.change])
        return tuple(bool(row.argmax() == i) for i, row in enumerate(means))

    def outside(self, i: int, j: int) -> bool | None:
        """Whether concept i moves reading j further than random directions do; None where none were run."""
        if self.null is None:
            return None
        low, high = self.null[j]
        return not low <= self.change[i][j].mean <= high

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must be told."""
        said = []
        if self.same_site:
            said.append(
                f"{self.read_site} is read where it is steered: the diagonal is the displacement itself; give a later "
                "--read-layer"
            )
        if self.null is None:
            said.append(
                "no random directions were run: nothing says how far any direction would move a reading"
            )
        lost = [r.name for r in self.replies if not r.good]
        if lost:
            said.append(
                f"replies steered by {', '.join(lost)} are no longer coherent at dose {self.dose:g}: their readings "
                "are of damaged text"
            )
        cuts = [r.cut for r in self.replies]
        if cuts and max(cuts) - min(cuts) > CUT_GAP + 1e-9:
            said.append(
                f"{min(cuts):.0%} to {max(cuts):.0%} of replies are cut at the token limit, depending on what is "
                "steered: the same command with --continue-to N goes on with them"
            )
        return tuple(said)


def cross(
    engine: Engine,
    vectors: ConceptVectors,
    items: Sequence[Item],
    *,
    dose: float,
    steer: Site,
    read: Site,
    fluency: Fluency | None = None,
    sampling: Sampling | None = None,
    random: int = 5,
    words: Mapping[str, str] | None = None,
    seed: int = 0,
    ledger: Ledger | None = None,
    continue_to: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Cross:
    """All concepts, random directions and prompts that name a concept (`words` in front, else "You are CONCEPT."), in
    shared batches; finished rows come from the ledger."""
    if read < steer:
        raise InputError(
            f"steering at {steer} does not reach {read}, which is earlier; read at {steer} or later"
        )
    table = vectors.table(read)
    z = table.mean is not None and table.std is not None and bool((table.std > 0).all())
    concepts, fluency = vectors.concepts, fluency or PlainLoss()
    own = {c: steered(vectors, c, dose, [steer.layer], stream=steer.stream) for c in concepts}
    drawn = _random(vectors, dose, steer, random, seed)
    told = {c: prefix(c, (words or {}).get(c)) for c in concepts}
    rows = by_condition(
        measure(
            engine, check_items(items), [PLAIN, *own.values(), *drawn, *told.values()], concepts, [Projection()],
            sampling=sampling or Sampling(max_tokens=24, seed=seed),
            readout=Readout.from_vectors(vectors, [read], z=z), seed=seed, ledger=ledger,
            plain_loss=fluency.name == PlainLoss.name, continue_to=continue_to, advance=advance,
        )
    )  # fmt: skip
    plain = _readings(rows[PLAIN.name], concepts)
    moved = [_readings(rows[own[c].name], concepts) - plain for c in concepts]
    said = [_readings(rows[told[c].name], concepts) - plain for c in concepts]
    null = None
    if drawn:
        reached = [(_readings(rows[d.name], concepts) - plain).mean(1) for d in drawn]
        null = np.quantile(reached, (0.025, 0.975), axis=0).T
    return Cross(
        concepts,
        concepts,
        tuple(tuple(mean_interval(m) for m in row) for row in moved),
        tuple(tuple(sign_flip(m) for m in row) for row in moved),
        null,
        z,
        steer,
        read,
        dose,
        len(items),
        _replies([PLAIN, *own.values()], rows, fluency),
        fluency.name,
        {c: _examples(m[i], own[c], rows, items, c) for i, (c, m) in enumerate(zip(concepts, moved))},
        tuple(tuple(mean_interval(m) for m in row) for row in said),
    )


def _random(vectors: ConceptVectors, dose: float, at: Site, count: int, seed: int) -> list[Condition]:
    """Random directions of the same dose, both signs of each: they are steered along, and read by nothing."""
    if not count:
        return []
    drawn = random_like(vectors.only(sites=[at]), count, seed)
    return [
        steered(drawn, r, d, [at.layer], stream=at.stream, kind="random")
        for r in drawn.concepts
        for d in (dose, -dose)
    ]


def _readings(rows: Sequence[Record], concepts: Sequence[str]) -> np.ndarray:
    """Mean reading of every item [concepts, items]."""
    return np.array([item_scores(rows, Projection.name, c) for c in concepts])


def _replies(
    conditions: Sequence[Condition], rows: Mapping[str, Sequence[Record]], fluency: Fluency
) -> tuple[Replies, ...]:
    values = fluency.of(conditions, rows)
    found = []
    for c in conditions:
        own, value = rows[c.name], values[c.name]
        found.append(
            Replies(
                c.concept or c.name,
                float(np.mean([r["tokens"] for r in own])),
                float(np.mean([r["cut"] for r in own])),
                value,
                fluency.good(value, values[PLAIN.name]) and all(r["finite"] for r in own),
                own[0]["fingerprint"],
            )
        )
    return tuple(found)


def _examples(
    effects: np.ndarray,
    condition: Condition,
    rows: Mapping[str, Sequence[Record]],
    items: Sequence[Item],
    concept: str,
) -> tuple[Triplet, ...]:
    """Prompts at the quantiles of what steering does to the concept's own reading, each with its first reply."""
    asked = {i.id: i.question for i in items}
    names = sorted(asked)  # the order of item_scores

    def said(name: str, strength: float, item: str) -> Said:
        first = next(r for r in rows[name] if r["item"] == item)
        return Said(strength, float(first["readings"][concept]), first["text"])

    return tuple(
        Triplet(
            quantile, names[i], asked[names[i]], float(effects[i]), len(names), None,
            said(PLAIN.name, 0.0, names[i]), said(condition.name, condition.dose, names[i]),
        )
        for quantile, i in chosen(effects, names)
    )  # fmt: skip
