"""Choosing tokens for a whole batch at once, each row with its own sampling and its own random numbers.

Sampling draws from the tempered distribution by inverse CDF and accepts the token if it lies in the row's nucleus,
which needs one comparison per probability instead of a sort. After `DRAWS - 1` refusals a row is sorted and drawn
exactly; both ways have the same distribution. Rows with top_k cut their k largest first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from trimtab.engines.requests import Sampling
from trimtab.engines.sampling import DRAWS, Uniforms


class Sampler:
    """Sampling of the rows of a batch; `select` follows the batch when rows leave it."""

    def __init__(self, rows: Sequence[tuple[Sampling, int]], device: torch.device) -> None:
        self.device = device
        self._uniforms = [None if s.temperature == 0 else Uniforms.of(s, j) for s, j in rows]
        self._temperature = np.array([s.temperature for s, _ in rows])
        self._top_p = np.array([s.top_p for s, _ in rows])
        self._top_k = np.array([s.top_k for s, _ in rows])
        self._prepare()

    def select(self, keep: Sequence[int]) -> None:
        """Go on with some of the rows."""
        self._uniforms = [self._uniforms[i] for i in keep]
        index = np.asarray(keep, dtype=np.int64)
        self._temperature, self._top_p, self._top_k = (
            a[index] for a in (self._temperature, self._top_p, self._top_k)
        )
        self._prepare()

    def extend(self, other: Sampler) -> None:
        """Go on with the rows of another sampler behind one's own."""
        self._uniforms = self._uniforms + other._uniforms
        self._temperature = np.concatenate([self._temperature, other._temperature])
        self._top_p = np.concatenate([self._top_p, other._top_p])
        self._top_k = np.concatenate([self._top_k, other._top_k])
        self._prepare()

    def _prepare(self) -> None:
        rows = np.flatnonzero(self._temperature > 0)
        self._random_rows = rows
        self._index = torch.from_numpy(rows).to(self.device)
        column = lambda a: torch.from_numpy(a[rows].astype(np.float32)).to(self.device)[:, None]  # noqa: E731
        self._t, self._p = column(self._temperature), column(self._top_p)
        self._k = self._top_k[rows]

    @torch.inference_mode()
    def choose(self, logits: torch.Tensor, steps: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """(tokens [B], their log-probabilities [B] under the untempered model) from logits [B, V] float32. Row b has
        chosen `steps[b]` tokens before."""
        tokens = logits.argmax(-1)
        if len(self._random_rows):
            draws = np.stack([self._uniforms[i].at(steps[i]) for i in self._random_rows])  # type: ignore[union-attr]
            all_random = len(self._random_rows) == len(logits)
            chosen = self._draw(logits if all_random else logits[self._index], torch.from_numpy(draws))
            tokens[self._index] = chosen
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        return tokens, logprobs

    def _draw(self, logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        draws = draws.to(self.device)
        logits = logits / self._t
        for k in np.unique(self._k[self._k > 0]):
            rows = torch.from_numpy(np.flatnonzero(self._k == k)).to(self.device)
            logits[rows] = _largest(logits[rows], int(k))
        weights = torch.softmax(logits, dim=-1)
        cumulative = weights.cumsum(-1)
        chosen = _inverse(cumulative, draws[:, :1])
        if (self._top_p < 1).any():
            self._refuse(weights, cumulative, chosen, draws)
        return chosen[:, 0]

    def _refuse(
        self, weights: torch.Tensor, cumulative: torch.Tensor, chosen: torch.Tensor, draws: torch.Tensor
    ) -> None:
        """Draw again where the token lies outside its row's nucleus: the likelier tokens already hold top_p."""
        rows = torch.arange(len(weights), device=self.device)
        for attempt in range(1, DRAWS):
            w, c = (weights, chosen) if len(rows) == len(weights) else (weights[rows], chosen[rows])
            own = w.gather(1, c)
            likelier = torch.where(w > own, w, 0.0).sum(-1, keepdim=True)
            rows = rows[(likelier >= self._p[rows])[:, 0]]
            if not len(rows):
                return
            if attempt < DRAWS - 1:
                chosen[rows] = _inverse(cumulative[rows], draws[rows, attempt : attempt + 1])
        chosen[rows] = _exact(weights[rows], self._p[rows], draws[rows, -1:])


def _largest(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Logits with everything but the k largest at minus infinity."""
    if k >= logits.shape[-1]:
        return logits
    values, index = logits.topk(k, dim=-1)
    return torch.full_like(logits, -torch.inf).scatter_(1, index, values)


def _inverse(cumulative: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
    """Tokens [B, 1] whose stretch of the cumulative weights [B, V] holds `draw` [B, 1]; never one of weight 0."""
    total = cumulative[:, -1:]
    target = torch.minimum(draw * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target.contiguous(), right=True).clamp_(
        max=cumulative.shape[-1] - 1
    )


def _exact(weights: torch.Tensor, top_p: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
    """Inverse CDF over the smallest set of likeliest tokens that holds top_p; tokens [B, 1]."""
    ordered, index = weights.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.where(before < top_p, ordered, 0.0)
    return index.gather(1, _inverse(kept.cumsum(-1), draw))
