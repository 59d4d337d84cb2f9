"""Log-probabilities of given tokens under plans: one forward pass per batch, without a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from trimtab.engines.batches import batches
from trimtab.engines.mlx.forward import right_padded
from trimtab.engines.mlx.schedule import Schedule
from trimtab.engines.mlx.stations import running
from trimtab.engines.requests import Score
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan, sites_of

if TYPE_CHECKING:
    from trimtab.engines.mlx.engine import MLXEngine

Item = tuple[Prompt, int, ResolvedPlan, str]
BATCH_TOKENS, BATCH_ROWS = 4_096, 128
#: Logits that one batch may hold at a time (floats).
BATCH_LOGITS = 1 << 27


def score(engine: MLXEngine, items: Sequence[Item]) -> list[Score]:
    """Score each (prompt with continuation, index of the first scored token, plan, logprobs)."""
    found: dict[int, Score] = {}
    tokens = min(BATCH_TOKENS, max(1, BATCH_LOGITS // (engine.info.vocab_size or 1)))
    stations = engine.stations.at(sites_of(i[2] for i in items))
    for batch in batches([len(i[0]) for i in items], tokens, BATCH_ROWS):
        ids, positions = right_padded([items[i][0].tokens for i in batch])
        Schedule(stations, [items[i][2] for i in batch], engine.dtype).prepare(positions, {})
        with running(stations.values()):
            logits = engine.model(ids)
        for row, i in enumerate(batch):
            found[i] = _score(logits[row], items[i])
    return [found[i] for i in range(len(items))]


def _score(logits: mx.array, item: Item) -> Score:
    """One row's logits [T, V], padding behind its tokens."""
    prompt, first, _, wanted = item
    length, tokens = len(prompt), prompt.tokens[first:]
    start = 0 if wanted == "all" else first - 1
    wide = logits[start:length].astype(mx.float32)
    wide = wide - mx.logsumexp(wide, axis=-1, keepdims=True)
    # The logits of a column are about the token after it.
    at = mx.arange(first - 1 - start, length - 1 - start)
    chosen = np.array(wide[at, mx.array(tokens)]) if tokens else np.empty(0, np.float32)
    full = {"none": None, "last": wide[-1], "all": wide}[wanted]
    return Score(tokens, chosen.astype(np.float32), None if full is None else np.array(full))
