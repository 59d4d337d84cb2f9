"""The gradient of a named objective with respect to one vector that steers a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from trimtab.engines.mlx.forward import right_padded
from trimtab.engines.mlx.stations import running
from trimtab.objectives import ChoiceLogRatio, Objective
from trimtab.prompts import Prompt
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.mlx.engine import MLXEngine


def gradient(
    engine: MLXEngine,
    prompts: Sequence[Prompt],
    site: Site,
    vector: np.ndarray,
    objective: Objective,
    coefficients: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """(losses [B], gradient [W] of their sum), float64: row b moves by coefficients[b] * vector at every token."""
    amount = mx.array(np.asarray(coefficients, dtype=np.float32))[:, None, None]
    ids, _ = right_padded([p.tokens for p in prompts])
    lengths = [len(p) for p in prompts]
    stations = engine.stations.at([site])

    def losses(v: mx.array) -> mx.array:
        stations[site].set(lambda h: h + (amount * v).astype(h.dtype))
        with running(stations.values()):
            logits = engine.model(ids).astype(mx.float32)
        return _losses(logits, lengths, prompts, objective)

    def total(v: mx.array) -> tuple[mx.array, mx.array]:
        each = losses(v)
        return each.sum(), each

    (_, each), found = mx.value_and_grad(total)(mx.array(np.asarray(vector, dtype=np.float32)))
    mx.eval(each, found)
    return np.array(each, dtype=np.float64), np.array(found, dtype=np.float64)


def _losses(
    logits: mx.array, lengths: Sequence[int], prompts: Sequence[Prompt], objective: Objective
) -> mx.array:
    """One loss per row from logits [B, T, V], padding behind each row's tokens."""
    rows = mx.arange(len(prompts))
    if isinstance(objective, ChoiceLogRatio):
        last = logits[rows, mx.array(list(lengths)) - 1]
        yes, no = (mx.logsumexp(last[:, mx.array(ids)], axis=-1) for ids in (objective.yes, objective.no))
        return mx.logaddexp(objective.margin - mx.array(objective.signs) * (yes - no), mx.array(0.0))
    out = []
    for row, (prompt, start) in enumerate(zip(prompts, objective.starts, strict=True)):
        wide = logits[row, start - 1 : lengths[row] - 1]
        tail = mx.array(list(prompt.tokens[start:]))
        own = mx.take_along_axis(wide, tail[:, None], axis=-1)[:, 0]
        out.append((mx.logsumexp(wide, axis=-1) - own).mean())
    return mx.stack(out)
