"""Steering of plain calls of the Hugging Face model inside `with engine.steered(plan):`.

A pre-hook on the whole model resolves the plan for the batch that is about to run; absolute positions come from
`position_ids`, the attention mask or the cache's length, in this order. Positions that only a prompt can resolve are
refused: a plain call has no prompt, and a plan is never left out silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trimtab.engines.requests import PlanLike
from trimtab.engines.transformers.schedule import Schedule
from trimtab.engines.transformers.stations import running
from trimtab.errors import Unsupported
from trimtab.plans import EMPTY, SteeringPlan
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan, sites_of

if TYPE_CHECKING:
    from trimtab.engines.transformers.engine import TransformersEngine


def resolve_alone(engine: TransformersEngine, plan: PlanLike) -> ResolvedPlan:
    """The plan without a prompt; `Unsupported` where its positions need one."""
    if plan is None:
        return EMPTY
    if isinstance(plan, SteeringPlan):
        for p in plan.placements:
            relative = p.positions in ("prompt", "generated", "last_prompt")
            if relative or (not isinstance(p.positions, str) and "role" in p.positions):
                raise Unsupported(
                    f"a plain call of the model has no prompt, and positions {p.positions!r} need one; use "
                    "engine.generate, or positions 'all', {'after': i} or {'ranges': …}"
                )
        return plan.resolve(Prompt((0,)), engine.library, engine.info)
    plan.check_model(engine.info)
    return plan


@contextmanager
def steered_calls(engine: TransformersEngine, current: Callable[[], PlanLike]) -> Iterator[None]:
    """Steer calls of `engine.model` by the plan that `current()` gives, except those that the engine makes itself."""
    contexts: list[Any] = []

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if engine.busy:
            return
        plan = resolve_alone(engine, current())
        if not plan.effective:
            return
        engine._check_plan(plan)
        positions = positions_of(args, kwargs)
        installed = engine.stations.installed(sites_of([plan]))
        stations = installed.__enter__()
        contexts.append(installed)
        Schedule(stations, [plan] * len(positions)).prepare(positions, {})
        active = running(stations.values())
        active.__enter__()
        contexts.append(active)

    def after(module: Any, args: Any, output: Any) -> None:
        while contexts:
            contexts.pop().__exit__(None, None, None)

    handles = [
        engine.model.register_forward_pre_hook(before, with_kwargs=True),
        engine.model.register_forward_hook(after, always_call=True),
    ]
    try:
        yield
    finally:
        after(None, None, None)
        for handle in handles:
            handle.remove()


def positions_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> np.ndarray:
    """Absolute positions [B, T] of the tokens in a call; -1 for padding."""
    first = args[0] if args else kwargs.get("input_ids")
    states = first if first is not None else kwargs.get("inputs_embeds")
    assert states is not None
    batch, length = states.shape[:2]
    mask = kwargs.get("attention_mask")
    mask = mask if isinstance(mask, torch.Tensor) and mask.dim() == 2 else None
    given = kwargs.get("position_ids")
    if isinstance(given, torch.Tensor) and given.dim() == 2:
        positions = given.expand(batch, length).cpu().numpy()
    elif mask is not None:
        positions = (mask.long().cumsum(-1) - 1)[:, -length:].cpu().numpy()
    else:
        cache = kwargs.get("past_key_values")
        past = cache.get_seq_length() if cache is not None else 0
        positions = np.broadcast_to(np.arange(past, past + length), (batch, length))
    if mask is not None:
        positions = np.where(mask[:, -length:].cpu().numpy() > 0, positions, -1)
    return np.array(positions, dtype=np.int64)
