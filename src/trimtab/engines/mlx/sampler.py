"""Choosing tokens for a whole batch on the device, each row with its own sampling and its own random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from trimtab.engines.requests import Sampling
from trimtab.engines.sampling import Uniforms


class Sampler:
    """Sampling of the rows of a batch; `select` follows the batch when rows leave it."""

    def __init__(self, rows: Sequence[tuple[Sampling, int]]) -> None:
        self._sampling = [s for s, _ in rows]
        self._uniforms = [None if s.temperature == 0 else Uniforms.of(s, j) for s, j in rows]
        self._prepare()

    def select(self, keep: Sequence[int]) -> None:
        """Go on with some of the rows."""
        self._sampling = [self._sampling[i] for i in keep]
        self._uniforms = [self._uniforms[i] for i in keep]
        self._prepare()

    def extend(self, other: Sampler) -> None:
        """Go on with the rows of another sampler behind one's own."""
        self._sampling = self._sampling + other._sampling
        self._uniforms = self._uniforms + other._uniforms
        self._prepare()

    def _prepare(self) -> None:
        column = lambda name: mx.array([[float(getattr(s, name))] for s in self._sampling])  # noqa: E731
        self._greedy = all(u is None for u in self._uniforms)
        self._cold = mx.array([u is None for u in self._uniforms])
        self._temperature = mx.maximum(column("temperature"), 1e-6)
        self._top_p = column("top_p")
        self._top_k = column("top_k")
        self._cut = any(s.top_p < 1 or s.top_k for s in self._sampling)

    def choose(self, logits: mx.array, steps: Sequence[int]) -> tuple[mx.array, mx.array]:
        """(tokens [B], their log-probabilities [B] under the untempered model) from logits [B, V] float32. Row b has
        chosen `steps[b]` tokens before."""
        tokens = mx.argmax(logits, axis=-1)
        if not self._greedy:
            draws = [
                [0.0 if u is None else float(u.at(step)[0])]
                for u, step in zip(self._uniforms, steps, strict=True)
            ]
            tokens = mx.where(self._cold, tokens, self._draw(logits / self._temperature, mx.array(draws)))
        logprobs = mx.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1)
        return tokens, logprobs

    def _draw(self, logits: mx.array, draws: mx.array) -> mx.array:
        """Inverse CDF [B] over the top_k likeliest tokens and, of these, the smallest set that holds top_p."""
        weights = mx.softmax(logits, axis=-1, precise=True)
        if not self._cut:
            return _inverse(weights, draws)
        order = mx.argsort(-weights, axis=-1)
        ordered = mx.take_along_axis(weights, order, axis=-1)
        rank = mx.arange(ordered.shape[-1])[None]
        ordered = mx.where(mx.logical_or(self._top_k == 0, rank < self._top_k), ordered, 0.0)
        ordered = ordered / ordered.sum(-1, keepdims=True)
        before = mx.cumsum(ordered, axis=-1) - ordered
        ordered = mx.where(mx.logical_or(before < self._top_p, rank == 0), ordered, 0.0)
        return mx.take_along_axis(order, _inverse(ordered, draws)[:, None], axis=-1)[:, 0]


def _inverse(weights: mx.array, draws: mx.array) -> mx.array:
    """Tokens [B] whose stretch of the cumulative weights [B, V] holds `draws` [B, 1]; never one of weight 0."""
    cumulative = mx.cumsum(weights, axis=-1)
    total = cumulative[:, -1:]
    # A draw that rounds up to the whole mass would fall off the end.
    target = mx.minimum(draws * total, total * (1 - 2.0**-22))
    return (cumulative <= target).sum(-1).astype(mx.uint32)
