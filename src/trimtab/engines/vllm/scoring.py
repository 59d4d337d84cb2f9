"""Log-probabilities under plans: vLLM's prompt log-probabilities, of a request for one token that nobody wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.engines.requests import Score
from trimtab.engines.vllm.generation import Batch, Order
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan

if TYPE_CHECKING:
    from trimtab.engines.vllm.engine import VllmEngine


def score(engine: VllmEngine, items: Sequence[tuple[Prompt, int, ResolvedPlan, str]]) -> list[Score]:
    """Scores of (prompt with continuation, index of the first scored token, plan, logprobs) items."""
    orders = [Order(prompt.tokens, plan, _params(mode)) for prompt, _, plan, mode in items]
    found: dict[int, Score] = {}
    batch = Batch(engine, orders)
    try:
        for index, output in batch:
            if output.finished:
                prompt, first, _, mode = items[index]
                batch.whole(index, output.num_cached_tokens or 0, len(prompt))
                found[index] = _score(prompt, first, mode, output)
    finally:
        batch.close()
    return [found[i] for i in range(len(items))]


def _params(mode: str) -> dict[str, Any]:
    return {
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": -1 if mode == "all" else 0,
        "logprobs": None if mode == "none" else -1,
    }


def _score(prompt: Prompt, first: int, mode: str, output: Any) -> Score:
    tables = output.prompt_logprobs
    tokens = prompt.tokens[first:]
    logprobs = [tables[first + i][t].logprob for i, t in enumerate(tokens)]
    distribution = None
    if mode != "none":
        last = _row(output.outputs[0].logprobs[0])
        distribution = np.stack([*(_row(t) for t in tables[1:]), last]) if mode == "all" else last
    return Score(tokens, np.array(logprobs, dtype=np.float32), distribution)


def _row(table: Mapping[int, Any]) -> np.ndarray:
    """Log-probabilities [V] float32 of a table that has every token."""
    out = np.full(len(table), np.nan, dtype=np.float32)
    for token, entry in table.items():
        out[token] = entry.logprob
    return out
