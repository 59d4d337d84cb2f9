"""Log-probabilities of given tokens under plans: one forward pass per batch, logits only where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from trimtab.engines.batches import batches
from trimtab.engines.requests import Score
from trimtab.engines.transformers.forward import Padded
from trimtab.engines.transformers.schedule import Schedule
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan, sites_of

if TYPE_CHECKING:
    from trimtab.engines.transformers.engine import TransformersEngine

Item = tuple[Prompt, int, ResolvedPlan, str]
BATCH_TOKENS = 4_096
BATCH_ROWS = 128
#: Logits that one batch may hold at a time (floats).
BATCH_LOGITS = 1 << 27


def score(engine: TransformersEngine, items: Sequence[Item]) -> list[Score]:
    """Score each (prompt with continuation, index of the first scored token, plan, logprobs)."""
    found: dict[int, Score] = {}
    if not items:
        return []
    tokens = min(BATCH_TOKENS, max(1, BATCH_LOGITS // (engine.info.vocab_size or 1)))
    with engine.stations.installed(sites_of(i[2] for i in items)) as stations, torch.inference_mode():
        for batch in batches([len(i[0]) for i in items], tokens, BATCH_ROWS):
            padded = Padded.of([items[i][0].tokens for i in batch], engine.forward.device)
            Schedule(stations, [items[i][2] for i in batch]).prepare(padded.positions, {})
            keep = max(_columns(items[i]) for i in batch)
            logits = engine.run(padded.ids, padded.positions, padded.mask, stations, keep=keep)
            for row, i in enumerate(batch):
                found[i] = _score(logits[row], items[i])
    return [found[i] for i in range(len(items))]


def _columns(item: Item) -> int:
    """How many of the last columns' logits an item reads: from the token before the first that is scored."""
    prompt, first, _, logprobs = item
    return len(prompt) if logprobs == "all" else len(prompt) - first + 1


def _score(logits: torch.Tensor, item: Item) -> Score:
    """One row's logits [keep, V] of the last columns."""
    prompt, first, _, logprobs = item
    tokens = prompt.tokens[first:]
    wide = torch.log_softmax(logits[-_columns(item) :].float(), dim=-1)
    # The logits of a column are about the token after it.
    about = wide[-len(tokens) - 1 : -1] if tokens else wide[:0]
    index = torch.tensor(tokens, dtype=torch.long, device=wide.device)
    chosen = about.gather(1, index[:, None])[:, 0]
    distribution = {"none": None, "last": wide[-1], "all": wide}[logprobs]
    return Score(
        tokens,
        np.asarray(chosen.cpu().numpy(), dtype=np.float32),
        None if distribution is None else distribution.cpu().numpy().copy(),
    )
