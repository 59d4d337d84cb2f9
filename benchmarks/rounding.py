"""States of the neutral texts, how far they are from others, and what would round them less (`benchmarks.dtypes`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from trimtab.data.neutral import neutral_texts
from trimtab.engines.base import Engine

#: [texts][layers], each [T, width].
States = list[list[np.ndarray]]


def states_of(engine: Engine, backwards: bool = False) -> States:
    """resid_post [T, width] of every neutral text at every layer; `backwards`: in reverse order."""
    order = -1 if backwards else 1
    prompts = [engine.encode(t, bare=True) for t in neutral_texts()][::order]
    captures = engine.capture(prompts, range(engine.info.n_layers))
    return [[c[s] for s in sorted(c.values)] for c in captures[::order]]


def errors(states: States, truth: States) -> np.ndarray:
    """Relative errors [texts, layers]."""
    return np.array([
        [np.median(np.linalg.norm(x[1:] - t[1:], axis=1) / np.linalg.norm(t[1:], axis=1)) for x, t in zip(xs, ts)]
        for xs, ts in zip(states, truth, strict=True)
    ])  # fmt: skip


def rounded(states: States, dtype: str) -> States:
    """The states as the format stores them."""
    import torch

    kind = getattr(torch, dtype)
    return [[torch.from_numpy(x).to(kind).float().numpy() for x in xs] for xs in states]


class Rounded:
    """Inside, every state that an engine captures is rounded to the format in which it computes."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.capture = engine, engine._capture

    def __enter__(self) -> None:
        def capture(*args: Any) -> Any:
            found = self.capture(*args)
            return [
                dict(zip(c, rounded([list(c.values())], self.engine.info.dtype)[0], strict=True))
                for c in found
            ]

        self.engine._capture = capture

    def __exit__(self, *_: object) -> None:
        del self.engine._capture


class Fused:
    """Inside, norms and gated activations of a Transformers model compute in float32 and round once, as vLLM's fused
    kernels do; Transformers rounds after every operation."""

    def __init__(self, model: Any) -> None:
        self.modules = [m for m in model.modules() if type(m).__name__.endswith(("RMSNorm", "MLP"))]

    def __enter__(self) -> None:
        for m in self.modules:
            m.forward = _fused_norm(m) if type(m).__name__.endswith("RMSNorm") else _fused_mlp(m)

    def __exit__(self, *_: object) -> None:
        for m in self.modules:
            del m.forward


def _fused_norm(m: Any) -> Any:
    def forward(x: Any) -> Any:
        wide = x.float()
        wide = wide / (wide.pow(2).mean(-1, keepdim=True) + m.variance_epsilon).sqrt()
        return (wide * m.weight.float()).to(x.dtype)

    return forward


def _fused_mlp(m: Any) -> Any:
    def forward(x: Any) -> Any:
        gate, up = m.gate_proj(x).float(), m.up_proj(x).float()
        return m.down_proj((m.act_fn(gate) * up).to(x.dtype))

    return forward
