"""A surface for people who explore: functions of their own at any site, in one forward pass that can be differentiated.

logits = engine.run_with_hooks("Once upon a time", {Site(3): lambda h: h * 0.5})
gradient = mx.grad(lambda v: engine.run_with_hooks(ids, {Site(3): lambda h: h + v})[0, -1, token])(vector)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import mlx.core as mx

from trimtab.engines.mlx.stations import running
from trimtab.errors import InputError
from trimtab.prompts import Prompt
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.mlx.engine import MLXEngine

#: hook(states [1, T, width]) -> the states that go on, of the same shape; None leaves them as they are.
StateHook = Callable[[mx.array], mx.array | None]


def run(engine: MLXEngine, prompt: Prompt, hooks: Mapping[Site | int, StateHook]) -> mx.array:
    """Logits [1, T, V] of a prompt with every hook in its place, as a lazy array: nothing is computed before it is
    evaluated, and `mx.grad` goes through it."""
    chosen = {Site(s) if isinstance(s, int) else s: hook for s, hook in hooks.items()}
    for site in chosen:
        engine.info.width(site)
    stations = engine.stations.at(chosen)
    for site, hook in chosen.items():
        stations[site].set(_checked(site, hook))
    with running(stations.values()):
        return engine.model(mx.array([prompt.tokens]))


def _checked(site: Site, hook: StateHook) -> Callable[[mx.array], mx.array]:
    def edit(h: mx.array) -> mx.array:
        out = hook(h)
        if out is None:
            return h
        if not isinstance(out, mx.array) or out.shape != h.shape:
            got = tuple(out.shape) if isinstance(out, mx.array) else type(out).__name__
            raise InputError(f"the hook at {site} returned {got}, and the states there are {tuple(h.shape)}")
        return out.astype(h.dtype)

    return edit
