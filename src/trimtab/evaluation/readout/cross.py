"""Steer concept i, read concept j: one batch, every reply steered by one concept and read by all of them.

    matrix[i, j] = mean over prompts of (reading of j in the reply steered by i − in the plain reply)

Readings are of the states that emit the reply's tokens, z-scores where the file stores what they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine
from trimtab.engines.requests import PromptLike, Request, Sampling
from trimtab.errors import InputError
from trimtab.evaluation.baselines import random_like
from trimtab.evaluation.statistics import Estimate, mean_interval
from trimtab.plans import SteeringPlan
from trimtab.readouts import Readout
from trimtab.sites import Site


@dataclass(frozen=True, eq=False)
class Cross:
    """`change[i][j]`: steered by `steered[i]`, read as `read[j]`, over prompts; `null` [C, 2] is the 95 % band per read
    concept of replies steered by random directions of the same dose; `same_site` warns that a concept was read where it
    was added, so that its own entry is the displacement itself."""

    steered: tuple[str, ...]
    read: tuple[str, ...]
    change: tuple[tuple[Estimate, ...], ...]
    null: np.ndarray | None
    z: bool
    steer_site: Site
    read_site: Site
    dose: float
    n: int

    @property
    def same_site(self) -> bool:
        """Whether the diagonal is true by construction."""
        return self.steer_site == self.read_site

    @property
    def strongest(self) -> tuple[bool, ...]:
        """Of every steered concept, whether it moved its own reading more than any other."""
        means = np.array([[abs(e.mean) for e in row] for row in self.change])
        return tuple(bool(row.argmax() == i) for i, row in enumerate(means))


def cross(
    engine: Engine,
    vectors: ConceptVectors,
    prompts: Sequence[PromptLike],
    *,
    dose: float,
    steer: Site,
    read: Site,
    sampling: Sampling | None = None,
    random: int = 5,
    seed: int = 0,
) -> Cross:
    """All concepts and random directions on all prompts in one call of the engine."""
    if read < steer:
        raise InputError(
            f"steering at {steer} does not reach {read}, which is earlier; read at {steer} or later"
        )
    if not prompts:
        raise InputError("there are no prompts")
    table = vectors.table(read)
    z = table.mean is not None and table.std is not None and bool((table.std > 0).all())
    readout = Readout.from_vectors(vectors, [read], z=z)
    plans: list[SteeringPlan | None] = [None]
    plans += [_plan(vectors.only([c], [steer]), dose, steer) for c in vectors.concepts]
    if random:
        drawn = random_like(vectors.only(sites=[steer]), random, seed)
        plans += [_plan(drawn.only([c]), d, steer) for c in drawn.concepts for d in (dose, -dose)]
    encoded = [engine.encode(p, bare=True) for p in prompts]
    options = sampling or Sampling(max_tokens=24, seed=seed)
    done = engine.generate([Request(p, plan, options, readout=readout) for plan in plans for p in encoded])
    values = np.array([_mean(c.samples[0].readings) for c in done]).reshape(len(plans), len(prompts), -1)
    moved = values[1:] - values[0]
    count = len(vectors.concepts)
    null = None
    if random:
        null = np.quantile(moved[count:].mean(1), (0.025, 0.975), axis=0).T
    change = tuple(tuple(mean_interval(moved[i, :, j]) for j in range(count)) for i in range(count))
    return Cross(vectors.concepts, vectors.concepts, change, null, z, steer, read, dose, len(prompts))


def _plan(one: ConceptVectors, dose: float, site: Site) -> SteeringPlan:
    return SteeringPlan.add(one, dose=dose, layers=[site.layer], stream=site.stream)


def _mean(readings: object) -> np.ndarray:
    """Mean over the reply's tokens [C]; a reply of one token is read from the state that emitted it."""
    values = getattr(readings, "values", None)
    if values is None or not len(values):
        raise InputError("a reply without readings: ask for at least one token")
    return np.asarray(values, np.float64)[:, 0].mean(0)
