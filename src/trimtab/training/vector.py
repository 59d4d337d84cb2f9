"""A learned additive vector: h ← h + c·v at one site, the model frozen, v trained by Adam (methods of
arXiv 2406.00045 and the additive-vector recipe of chatspace).

What it costs: one forward and backward above the site per step. What the knobs do: `max_norm` bounds ‖v‖
(in units of the site's typical norm), which is what keeps free text intact; `rate` is Adam's step in the
same unit; terms with coefficients ±1 and opposite goals make one vector that works in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from trimtab.directions import Direction
from trimtab.errors import InputError
from trimtab.objectives import Objective
from trimtab.prompts import Prompt
from trimtab.sites import Site

Progress = Callable[[int, int], None]


class Differentiable(Protocol):
    """What training asks of an engine: losses [B], and the gradient [width] of their *sum*."""

    def gradient(
        self,
        prompts: Sequence[Prompt],
        site: Site,
        vector: np.ndarray,
        objective: Objective,
        coefficients: Sequence[float],
    ) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Term:
    """One part of the loss: row i is `prompts[i]` steered by `coefficients[i]`·v, judged by the
    objective's row i.
    """

    prompts: tuple[Prompt, ...]
    objective: Objective
    coefficients: tuple[float, ...]
    weight: float = 1.0
    batch: int = 32

    def __post_init__(self) -> None:
        count = len(self.prompts)
        if not count or len(self.coefficients) != count:
            raise InputError(
                f"a term has {count} prompts and {len(self.coefficients)} coefficients; give equal counts > 0"
            )
        rows = len(getattr(self.objective, _row_field(self.objective)))
        if rows != count:
            raise InputError(f"the objective judges {rows} rows, but the term has {count} prompts")
        if not self.weight > 0 or self.batch < 1:
            raise InputError("a term has a weight above 0 and a batch of at least 1")

    def rows(self, index: Sequence[int]) -> Term:
        """The term on some of its rows."""
        name = _row_field(self.objective)
        values = getattr(self.objective, name)
        objective = replace(self.objective, **{name: tuple(values[i] for i in index)})
        return Term(
            tuple(self.prompts[i] for i in index),
            objective,
            tuple(self.coefficients[i] for i in index),
            self.weight,
            self.batch,
        )


def _row_field(objective: Objective) -> str:
    """The objective's per-row field (signs, starts)."""
    return next(f.name for f in fields(objective) if f.name in ("signs", "starts"))


@dataclass(frozen=True, eq=False)
class Learned:
    """The direction (its `norm` is the trained length, so scale ±1 is the coefficient ±1) and the loss at
    each step.
    """

    direction: Direction
    losses: tuple[float, ...]


def learn_vector(
    engine: Differentiable,
    site: Site,
    terms: Sequence[Term],
    *,
    name: str,
    width: int,
    typical_norm: float,
    steps: int = 60,
    rate: float = 0.05,
    max_norm: float = 0.35,
    seed: int = 0,
    progress: Progress | None = None,
) -> Learned:
    """Minimise the weighted sum of the terms' mean losses over v [width], ‖v‖ ≤ max_norm · typical_norm.

    Starts at 0, where v does nothing; cosine decay of `rate` to a tenth. Each step takes a fresh batch of
    every term, in an order that depends on `seed` alone. Raises where a loss is not finite or no gradient
    arrives.
    """
    if not terms:
        raise InputError("nothing to learn from: give at least one term")
    if steps < 1 or not (rate > 0 and max_norm > 0 and typical_norm > 0):
        raise InputError("steps is at least 1; rate, max_norm and typical_norm are above 0")
    rng = np.random.default_rng(seed)
    orders = [_Order(len(t.prompts), t.batch, rng) for t in terms]
    vector, adam, losses = np.zeros(width), _Adam(width), []
    for step in range(steps):
        batch = [term.rows(order.next()) for term, order in zip(terms, orders)]
        loss, slope = _loss(engine, site, vector, batch)
        if not (math.isfinite(loss) and np.isfinite(slope).all()):
            raise InputError(f"the loss is not finite at step {step}: lower the rate, or load in float32")
        decay = 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps))
        vector = _inside(vector - rate * typical_norm * decay * adam(slope), max_norm * typical_norm)
        losses.append(loss)
        if progress is not None:
            progress(step + 1, steps)
    if not vector.any():
        raise InputError(f"no gradient reached {site}: nothing that the terms judge depends on it")
    made: dict[str, Any] = {
        "method": "learned",
        "steps": steps,
        "rate": rate,
        "max_norm": max_norm,
        "seed": seed,
        "terms": [type(t.objective).__name__ for t in terms],
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }
    length = float(np.linalg.norm(vector))
    # Files hold float32: a norm that survives them gives the same plan, and fingerprint, after loading.
    direction = Direction(
        name,
        site,
        vector / length,
        norm=float(np.float32(length)),
        typical_norm=typical_norm,
        sign_source="grad",
        provenance=made,
    )
    return Learned(direction, tuple(losses))


def _loss(
    engine: Differentiable, site: Site, vector: np.ndarray, terms: Sequence[Term]
) -> tuple[float, np.ndarray]:
    """The weighted sum of the terms' mean losses, and its gradient [width], at `vector`."""
    loss, slope = 0.0, np.zeros(len(vector))
    for t in terms:
        values, gradient = engine.gradient(
            t.prompts, site, vector.astype(np.float32), t.objective, t.coefficients
        )
        loss += t.weight * float(np.mean(values))
        slope += t.weight * np.asarray(gradient, dtype=np.float64) / len(values)
    return loss, slope


class _Order:
    """Endless batches of row numbers; every row once per epoch."""

    def __init__(self, count: int, batch: int, rng: np.random.Generator) -> None:
        self.count, self.batch, self.rng = count, min(batch, count), rng
        self.left: list[int] = []

    def next(self) -> list[int]:
        if len(self.left) < self.batch:
            self.left = self.rng.permutation(self.count).tolist()
        taken, self.left = self.left[: self.batch], self.left[self.batch :]
        return taken


class _Adam:
    """Adam's step direction (arXiv 1412.6980), entries of size about 1 ÷ √width so that a step has length
    about 1.
    """

    def __init__(self, width: int, beta1: float = 0.9, beta2: float = 0.98) -> None:
        self.beta1, self.beta2, self.count = beta1, beta2, 0
        self.m, self.v, self.length = np.zeros(width), np.zeros(width), math.sqrt(width)

    def __call__(self, gradient: np.ndarray) -> np.ndarray:
        self.count += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * gradient
        self.v = self.beta2 * self.v + (1 - self.beta2) * gradient**2
        m, v = self.m / (1 - self.beta1**self.count), self.v / (1 - self.beta2**self.count)
        return m / (np.sqrt(v) + 1e-12) / self.length


def _inside(vector: np.ndarray, limit: float) -> np.ndarray:
    """Project on the ball of radius `limit`."""
    length = float(np.linalg.norm(vector))
    return vector if length <= limit else vector * (limit / length)
