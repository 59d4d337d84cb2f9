"""The gradient of a named objective with respect to one vector that steers a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from trimtab.engines.transformers.forward import Padded
from trimtab.errors import InputError
from trimtab.objectives import ChoiceLogRatio, ContinuationNLL, Objective
from trimtab.prompts import Prompt
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.transformers.engine import TransformersEngine


def gradient(
    engine: TransformersEngine,
    prompts: Sequence[Prompt],
    site: Site,
    vector: np.ndarray,
    objective: Objective,
    coefficients: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """(losses [B], gradient [W] of their sum), float64: row b moves by coefficients[b] * vector at every token.

    Nothing below the site is differentiated: only the vector asks for a gradient.
    """
    _check(engine, prompts, site, vector, objective, coefficients)
    tap = engine.stations.taps[site]
    v = torch.tensor(np.asarray(vector, dtype=np.float32), device=tap.device, requires_grad=True)
    amount = torch.tensor(np.asarray(coefficients, dtype=np.float32), device=tap.device)[:, None, None]
    padded = Padded.of([p.tokens for p in prompts], engine.forward.device)
    keep = _columns(prompts, objective)
    with engine.stations.installed([site]) as stations, torch.enable_grad(), engine.frozen():
        stations[site].set(lambda h: h + (amount * v).to(h.dtype))
        logits = engine.run(padded.ids, padded.positions, padded.mask, stations, keep=keep).float()
        losses = _losses(logits, prompts, objective)
        (found,) = torch.autograd.grad(losses.sum(), v)
    return losses.detach().double().cpu().numpy(), found.double().cpu().numpy()


def _check(
    engine: TransformersEngine,
    prompts: Sequence[Prompt],
    site: Site,
    vector: np.ndarray,
    objective: Objective,
    coefficients: Sequence[float],
) -> None:
    engine.info.check(site, np.asarray(vector).shape[-1], "the vector")
    if np.asarray(vector).ndim != 1 or not np.isfinite(vector).all():
        raise InputError("the vector is one row [width] of finite numbers")
    rows = objective.signs if isinstance(objective, ChoiceLogRatio) else objective.starts
    if not prompts or not len(prompts) == len(coefficients) == len(rows):
        raise InputError(
            f"{len(prompts)} prompts, {len(coefficients)} coefficients and {len(rows)} rows of the objective "
            "must be as many, and at least one"
        )
    if isinstance(objective, ContinuationNLL):
        for prompt, start in zip(prompts, objective.starts, strict=True):
            if start >= len(prompt):
                raise InputError(f"a continuation from index {start} needs more than {len(prompt)} tokens")


def _columns(prompts: Sequence[Prompt], objective: Objective) -> int:
    """How many of the last columns' logits the objective reads."""
    if isinstance(objective, ChoiceLogRatio):
        return 1
    return max(len(p) - s + 1 for p, s in zip(prompts, objective.starts, strict=True))


def _losses(logits: torch.Tensor, prompts: Sequence[Prompt], objective: Objective) -> torch.Tensor:
    """One loss per row from the last columns' logits [B, keep, V]."""
    if isinstance(objective, ChoiceLogRatio):
        last = logits[:, -1]
        ratio = last[:, list(objective.yes)].logsumexp(-1) - last[:, list(objective.no)].logsumexp(-1)
        signs = torch.tensor(objective.signs, device=logits.device)
        return F.softplus(objective.margin - signs * ratio)
    keep = logits.shape[1]
    targets = torch.full(logits.shape[:2], -100, device=logits.device)
    for row, (prompt, start) in enumerate(zip(prompts, objective.starts, strict=True)):
        tail = torch.tensor(prompt.tokens[start:], device=logits.device)
        # The column before a token predicts it; the last column predicts what was never written.
        targets[row, keep - 1 - len(tail) : keep - 1] = tail
    nll = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none")
    return nll.sum(1) / (targets != -100).sum(1)
