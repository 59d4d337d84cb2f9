"""Discovery proves itself: a vector added through the steering path must come back through the reading path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trimtab.directions import content_hash
from trimtab.engines.base import CaptureItem
from trimtab.errors import TrimtabError
from trimtab.interventions import Coefficients
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlacement, ResolvedPlan
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.transformers.engine import TransformersEngine

#: Bits of a float of each dtype, without the leading one.
MANTISSA = {"float32": 23, "float64": 52, "float16": 10, "bfloat16": 7}


def prove(engine: TransformersEngine, tokens: Sequence[int]) -> None:
    """Add a vector at the first and at the last block and read it back there; raise unless both come out right."""
    prompt = Prompt(tuple(tokens))
    for layer in sorted({0, engine.info.n_layers - 1}):
        site = Site(layer)
        engine.info.width(site)
        item = CaptureItem(prompt, np.arange(len(prompt)))
        (plain,) = engine._capture([item], [site], "after")
        size = float(np.abs(plain[site]).mean()) + 1e-3
        vector = np.random.default_rng(layer).standard_normal(engine.info.hidden_size).astype(np.float32)
        plan = _add(site, vector / np.linalg.norm(vector), size * float(np.sqrt(len(vector))))
        (moved,) = engine._capture([CaptureItem(prompt, item.positions, plan)], [site], "after")
        expected = (
            plain[site] + plan.placements[0].coefficients.shift * plan.vectors[plan.placements[0].vector]
        )
        rounding = 2.0 ** -MANTISSA.get(engine.info.dtype, 7)
        error = np.abs(moved[site] - expected) / (np.abs(plain[site]) + np.abs(expected) + size)
        if not np.isfinite(error).all() or error.max() > 8 * rounding:
            raise TrimtabError(
                f"{engine.info.id} ({engine.info.architecture}) cannot be steered: a vector added at {site} did not "
                f"come back when it was read there (relative error {error.max():.2g})"
            )


def _add(site: Site, unit: np.ndarray, amount: float) -> ResolvedPlan:
    name = content_hash(unit)
    return ResolvedPlan(
        (ResolvedPlacement(site, name, Coefficients(shift=amount), ((0, None),)),), {name: unit}
    )
