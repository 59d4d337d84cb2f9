"""Log-probabilities under plans: vLLM's prompt log-probabilities, of a request for one token that nobody wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.engines.requests import Score
from trimtab.engines.vllm.generation import Batch, Order
from trimtab.errors import TrimtabError
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
        "flat_logprobs": True,  # else an object for every token of the vocabulary at every position
    }


def _score(prompt: Prompt, first: int, mode: str, output: Any) -> Score:
    table, tokens = output.prompt_logprobs, prompt.tokens[first:]
    places = table.start_indices[first : len(prompt)]  # the token that stands there comes before all others
    if [table.token_ids[i] for i in places] != list(tokens):
        raise TrimtabError("vLLM scored other tokens than it was given")
    logprobs = np.array([table.logprobs[i] for i in places], dtype=np.float32)
    distribution = None
    if mode != "none":
        distribution = last = _rows(output.outputs[0].logprobs)
        if mode == "all":
            distribution = np.concatenate([_rows(table, last.shape[1])[1:], last])
        else:
            distribution = last[0]
    return Score(tokens, logprobs, distribution)


def _rows(table: Any, size: int | None = None) -> np.ndarray:
    """Log-probabilities [positions, V] float32 of vLLM's flat lists, which name every token of every position (but the
    first one of a prompt, which nothing precedes)."""
    tokens = np.array(table.token_ids, dtype=np.int64)
    counts = np.subtract(table.end_indices, table.start_indices)
    out = np.full((len(counts), size or int(tokens.max()) + 1), np.nan, dtype=np.float32)
    out[np.repeat(np.arange(len(counts)), counts), tokens] = table.logprobs
    return out
