"""States of the neutral texts, how far they are from others, and what would round them less (`benchmarks.dtypes`)."""

from __future__ import annotations

import sys
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
    """Inside, a Transformers model of Qwen 3's kind rounds where vLLM's kernels on a CPU do: a norm sees the sum of a
    branch and the stream before it is rounded, and turned queries and keys are rounded once."""

    def __init__(self, model: Any) -> None:
        self.layers = list(model.model.layers)
        self.module: Any = sys.modules[type(self.layers[0]).__module__]
        self.turn = self.module.apply_rotary_pos_emb

    def __enter__(self) -> None:
        sums: dict[int, Any] = {}
        for layer in self.layers:
            layer.forward = _fused_layer(layer, sums)
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.forward = _fused_norm(norm, sums)
        self.module.apply_rotary_pos_emb = self._turned

    def __exit__(self, *_: object) -> None:
        self.module.apply_rotary_pos_emb = self.turn
        for layer in self.layers:
            for m in (layer, layer.input_layernorm, layer.post_attention_layernorm):
                del m.forward

    def _turned(self, q: Any, k: Any, cos: Any, sin: Any, *args: Any, **kwargs: Any) -> Any:
        wide = self.turn(q.float(), k.float(), cos.float(), sin.float(), *args, **kwargs)
        return wide[0].to(q.dtype), wide[1].to(k.dtype)


def _fused_layer(layer: Any, sums: dict[int, Any]) -> Any:
    """`sums` keeps, by the rounded tensor's identity, that tensor and what it was rounded from."""

    def add(stream: Any, branch: Any) -> Any:
        wide = stream.float() + branch.float()
        found = wide.to(stream.dtype)
        sums.clear()
        sums[id(found)] = found, wide
        return found

    def forward(hidden_states: Any, **kwargs: Any) -> Any:
        branch, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
        stream = add(hidden_states, branch)
        return add(stream, layer.mlp(layer.post_attention_layernorm(stream)))

    return forward


def _fused_norm(m: Any, sums: dict[int, Any]) -> Any:
    def forward(x: Any) -> Any:
        wide = sums[id(x)][1] if id(x) in sums else x.float()
        wide = wide * (wide.pow(2).mean(-1, keepdim=True) + m.variance_epsilon).rsqrt()
        return m.weight * wide.to(x.dtype)

    return forward
