"""Does the direction lie along what varies anyway? Cosines with the top principal components of neutral text.

A direction that leans on them reads position, punctuation or the template rather than the concept (attention sinks and
massive channels live there too).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.data.neutral import neutral_texts
from trimtab.engines.base import Engine
from trimtab.errors import InputError
from trimtab.sites import Site

COMPONENTS = 3
#: As many neutral texts as are read; a thousand tokens show three components.
TEXTS, BATCH = 24, 8


@dataclass(frozen=True)
class Background:
    """|cosine| with each of the top components, the share of neutral variance that each explains, |cosine| with the
    neutral mean, and what a random direction gives, 1 / sqrt(width)."""

    cosines: tuple[float, ...]
    explained: tuple[float, ...]
    mean_cosine: float
    chance: float


@dataclass(frozen=True, eq=False)
class Neutral:
    """Unit `components` [3, width] with their `explained` shares, and the unit `mean` [width]."""

    components: np.ndarray
    explained: np.ndarray
    mean: np.ndarray


def neutral_states(engine: Engine, sites: Sequence[Site]) -> dict[Site, Neutral]:
    """Principal components of the single tokens of neutral texts, without first and special tokens."""
    limit = engine.info.context_length
    prompts = [engine.encode(t, bare=True) for t in neutral_texts()[:TEXTS]]
    prompts = [p for p in prompts if limit is None or len(p) <= limit]
    if not prompts:
        raise InputError(f"no neutral text fits the context of {engine.info.id} ({limit} tokens)")
    rows: Mapping[Site, list[np.ndarray]] = {s: [] for s in sites}
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        for prompt, capture in zip(batch, engine.capture(batch, sites), strict=True):
            kept = [i for i in range(1, len(prompt)) if i not in prompt.special]
            for site in sites:
                rows[site].append(capture[site][kept])
    return {s: components(np.concatenate(r).astype(np.float64)) for s, r in rows.items()}


def components(rows: np.ndarray) -> Neutral:
    """Of states [n, width]."""
    mean = rows.mean(0)
    _, sizes, vectors = np.linalg.svd(rows - mean, full_matrices=False)
    shares = sizes**2 / (sizes**2).sum()
    length = np.linalg.norm(mean)
    return Neutral(vectors[:COMPONENTS], shares[:COMPONENTS], mean / (length if length > 0 else 1.0))


def background(unit: np.ndarray, neutral: Neutral) -> Background:
    """Of a unit row [width]."""
    unit = np.asarray(unit, np.float64)
    return Background(
        cosines=tuple(float(c) for c in np.abs(neutral.components @ unit)),
        explained=tuple(float(x) for x in neutral.explained),
        mean_cosine=float(abs(neutral.mean @ unit)),
        chance=float(1 / np.sqrt(len(unit))),
    )
