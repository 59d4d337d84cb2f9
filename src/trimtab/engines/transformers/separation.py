"""Gradients of a `Separation` at every site for pairs of texts: one backward pass per batch, whatever the sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from trimtab.engines.base import CaptureItem
from trimtab.engines.batches import batches
from trimtab.engines.transformers.forward import Padded
from trimtab.objectives import Separation
from trimtab.sites import Site, resolve_layer

if TYPE_CHECKING:
    from trimtab.engines.transformers.engine import TransformersEngine

Pair = tuple[CaptureItem, CaptureItem]
#: Prompt tokens in one pass, padding included (the graph of all of them is kept), and logits at a time (floats).
BATCH_TOKENS, BATCH_PAIRS, BATCH_LOGITS = 2_048, 32, 1 << 26


class Probe:
    """An edit that changes nothing and keeps the tensor that goes on, so that it can be differentiated.

    The graph begins at the first probed site: what lies below it is never differentiated.
    """

    def __init__(self) -> None:
        self.states = torch.empty(0)

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        """The same states [B, T, width], in a graph."""
        self.states = h if h.requires_grad else h.detach().clone().requires_grad_()
        return self.states


def gradients(
    engine: TransformersEngine, pairs: Sequence[Pair], sites: Sequence[Site], objective: Separation
) -> tuple[dict[Site, np.ndarray], np.ndarray]:
    """Gradients [2 * pairs, width] float64 per site, rows (+, -) in turn, and squared norms [2 * pairs] at the read
    layer. Batches keep pairs together and divide by the number of all pairs, so their size changes nothing.
    """
    read = Site(resolve_layer(objective.read, engine.info.n_layers))
    wanted = sorted({*sites, read})
    rows = {s: np.zeros((2 * len(pairs), engine.info.width(s))) for s in wanted}
    tokens = min(BATCH_TOKENS, max(1, BATCH_LOGITS // (engine.info.vocab_size or 1)))
    lengths = [max(len(i.prompt) for i in pair) for pair in pairs]
    with engine.stations.installed(wanted) as stations, torch.enable_grad(), engine.frozen():
        for batch in batches(lengths, max(1, tokens // 2), BATCH_PAIRS):
            items = [item for b in batch for item in pairs[b]]
            probes = {s: Probe() for s in wanted}
            for site, station in stations.items():
                station.set(probes[site])
            padded = Padded.of([i.prompt.tokens for i in items], engine.forward.device)
            keep = padded.ids.shape[1] if objective.coherence else 1
            logits = engine.run(padded.ids, padded.positions, padded.mask, stations, keep=keep)
            weights = _weights(items, padded)
            loss = _loss(probes[read].states, logits, weights, padded, objective) / len(pairs)
            found = torch.autograd.grad(loss, [probes[s].states for s in wanted])
            places = np.array([2 * b + side for b in batch for side in (0, 1)])
            for site, gradient in zip(wanted, found, strict=True):
                chosen = (weights > 0).to(gradient.device)
                rows[site][places] = (gradient * chosen[..., None]).sum(1).double().cpu().numpy()
    return {s: rows[s] for s in sites}, (rows[read] ** 2).sum(1)


def _weights(items: Sequence[CaptureItem], padded: Padded) -> torch.Tensor:
    """[B, T] float32: the mean over each row's read tokens."""
    weights = torch.zeros(padded.ids.shape)
    for row, (item, pad) in enumerate(zip(items, padded.pads, strict=True)):
        weights[row, torch.from_numpy(item.positions + pad)] = 1 / len(item.positions)
    return weights


def _loss(
    states: torch.Tensor, logits: torch.Tensor, weights: torch.Tensor, padded: Padded, objective: Separation
) -> torch.Tensor:
    """The sum over a batch's pairs."""
    pooled = (states.float() * weights.to(states.device)[..., None]).sum(1)
    loss = -objective.separation * torch.linalg.vector_norm(pooled[0::2] - pooled[1::2], dim=-1).sum()
    if not objective.coherence:
        return loss
    told, ids = logits[0::2, :-1].float().log_softmax(-1), padded.ids[0::2, 1:].to(logits.device)
    # A column predicts the token after it; padding neither predicts nor is predicted.
    real = torch.from_numpy(padded.positions[0::2, :-1] >= 0).to(logits.device)
    chosen = told.gather(-1, ids[..., None])[..., 0] * real
    likely = chosen.sum(1) / real.sum(1).clamp(min=1)
    lost = torch.relu(objective.margin * likely.detach() - likely) ** 2
    return loss + objective.coherence * lost.sum().to(loss.device)
