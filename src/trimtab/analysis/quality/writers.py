"""What attention heads and neurons write into the residual stream: the projection's matrix, and what follows it.

Most blocks add the output of `o` and `down` as it is. Some scale it, or norm it once more (Gemma 2 and 3, OLMo 2); then
a column of W_down is not what a neuron writes. The scale is *measured*: a branch that divides by a number per token and
multiplies by a fixed row shows that row in the ratio of what leaves to what entered, token by token.
"""

from __future__ import annotations

import numpy as np

from trimtab.data.neutral import neutral_texts
from trimtab.engines.base import Engine
from trimtab.errors import Unsupported
from trimtab.sites import Site

BRANCH = {"o": "attn_out", "down": "mlp_out"}
#: Share of what leaves the branch that a fixed scale may fail to explain.
TOLERANCE = 0.02
TOKENS = 64


def written(engine: Engine, layer: int, projection: str) -> np.ndarray:
    """Matrix [hidden, in] float32 of what a unit input of "o" or "down" adds to the residual stream."""
    matrix = engine.weight(Site(layer, projection))
    scale = _scale(engine, Site(layer, projection), Site(layer, BRANCH[projection]))
    return matrix if scale is None else scale[:, None].astype(np.float32) * matrix


def _scale(engine: Engine, inner: Site, outer: Site) -> np.ndarray | None:
    """The row that the branch multiplies by after `inner` (norms frozen at their mean over tokens); None for one."""
    if outer not in engine.info.widths:
        raise Unsupported(f"{outer} of {engine.info.id} cannot be read: what follows {inner} is unknown")
    prompt = engine.encode(neutral_texts()[0], bare=True)
    capture = engine.capture(prompt, [inner, outer])[0]
    before, after = (capture[s][1:TOKENS].astype(np.float64) for s in (inner, outer))
    if np.allclose(before, after, rtol=1e-3, atol=1e-5 * np.abs(after).max()):
        return None
    ratio = after / np.where(before == 0, np.nan, before)
    size = np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
    row = np.nanmedian(ratio / size[:, None], axis=0)
    guess = before * row
    per_token = (guess * after).sum(1) / np.maximum((guess**2).sum(1), 1e-300)
    missed = np.linalg.norm(after - per_token[:, None] * guess) / np.linalg.norm(after)
    if not missed <= TOLERANCE:
        raise Unsupported(
            f"what {engine.info.id} does between {inner} and {outer} is not a scale per channel"
        )
    return row * per_token.mean()
