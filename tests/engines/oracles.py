"""What engines are compared with: the whole sequence in one plain forward pass, one request at a time, no cache.

Edits are `interventions.edit`, called once per token. Nothing here is shared with an engine's own code path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.interventions import displace, edit
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site


@dataclass
class Trace:
    """One full forward pass: `logprobs` [T, V] and the state [T, width] at every site before and after its edits."""

    plan: ResolvedPlan
    before: dict[Site, np.ndarray] = field(default_factory=dict)
    after: dict[Site, np.ndarray] = field(default_factory=dict)
    logprobs: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def state(self, site: Site, at: str) -> np.ndarray:
        """The state at a site, float32."""
        return (self.before if at == "before" else self.after)[site].astype(np.float32)

    def steer(self, site: Site, states: np.ndarray) -> np.ndarray:
        """Record, edit token by token, record; returns the edited states [T, width]."""
        self.before[site] = states.copy()
        states = states.copy()
        for p in self.plan.placements:
            if p.site != site:
                continue
            vector = self.plan.vectors[p.vector]
            for t in range(len(states)):
                if not any(a <= t and (b is None or t < b) for a, b in p.ranges) or not self._open(p.gate, t):
                    continue
                if p.table_start is None:
                    states[t] = edit(
                        states[t], vector, p.coefficients, relative=p.relative, renormalise=p.renormalise
                    )
                elif 0 <= t - p.table_start < len(vector):
                    change = p.coefficients.shift * vector[t - p.table_start].astype(np.float64)
                    states[t] = displace(states[t], change, renormalise=p.renormalise)
        self.after[site] = states.copy()
        return states

    def _open(self, gate: Any, t: int) -> bool:
        if gate is None:
            return True
        state = (self.before if gate.at == "before" else self.after)[gate.site][t].astype(np.float64)
        coordinate = float(state @ self.plan.vectors[gate.vector].astype(np.float64))
        return coordinate > gate.threshold if gate.above else coordinate < gate.threshold


class Oracle(ABC):
    """A model without a cache."""

    @abstractmethod
    def run(self, tokens: Sequence[int], plan: ResolvedPlan) -> Trace:
        """One full forward pass."""

    def greedy(self, prompt: Prompt, plan: ResolvedPlan, count: int) -> tuple[int, ...]:
        """The likeliest tokens, each from a new full pass."""
        tokens = list(prompt.tokens)
        for _ in range(count):
            tokens.append(int(np.argmax(self.run(tokens, plan).logprobs[-1])))
        return tuple(tokens[len(prompt) :])


class LoopOracle(Oracle):
    """The reference model's weights, walked token by token and head by head with explicit sums."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights
        self.kv_heads = weights.blocks[0].k.shape[1] // 10
        self.heads = weights.blocks[0].q.shape[1] // 10

    def run(self, tokens: Sequence[int], plan: ResolvedPlan) -> Trace:
        trace = Trace(plan)
        x = np.array([self.weights.embed[t] for t in tokens])
        for layer, b in enumerate(self.weights.blocks):
            x = trace.steer(Site(layer, "resid_pre"), x)
            n = np.array([_normed(row) * b.attn_norm for row in x])
            q, k, v = (trace.steer(Site(layer, s), n @ getattr(b, s)) for s in ("q", "k", "v"))
            heads = trace.steer(Site(layer, "head_out"), self._attend(q, k, v))
            o = trace.steer(Site(layer, "o"), heads @ b.o)
            x = x + trace.steer(Site(layer, "attn_out"), o * b.attn_scale)
            n = np.array([_normed(row) * b.mlp_norm for row in x])
            gate, up = (trace.steer(Site(layer, s), n @ getattr(b, s)) for s in ("gate", "up"))
            inner = trace.steer(Site(layer, "mlp_act"), gate / (1 + np.exp(-gate)) * up)
            down = trace.steer(Site(layer, "down"), inner @ b.down)
            x = x + trace.steer(Site(layer, "mlp_out"), down * b.mlp_scale)
            x = trace.steer(Site(layer, "resid_post"), x)
        logits = np.array([_normed(row) * self.weights.norm for row in x]) @ self.weights.unembed
        trace.logprobs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return trace

    def _attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        out = np.zeros_like(q)
        for head in range(self.heads):
            mine = slice(10 * head, 10 * head + 10)
            shared = head // (self.heads // self.kv_heads)
            theirs = slice(10 * shared, 10 * shared + 10)
            keys = np.array([_turned(row, position) for position, row in enumerate(k[:, theirs])])
            for t in range(len(q)):
                weights = np.exp(keys[: t + 1] @ _turned(q[t, mine], t) / np.sqrt(10))
                out[t, mine] = weights @ v[: t + 1, theirs] / weights.sum()
        return out


def _normed(row: np.ndarray) -> np.ndarray:
    return row / np.sqrt(np.mean(row**2) + 1e-6)


def _turned(x: np.ndarray, position: int) -> np.ndarray:
    """Rotary embedding as a complex product: pair i is (x[i], x[i + 5])."""
    pairs = (x[:5] + 1j * x[5:]) * np.exp(1j * position * 10_000.0 ** (-np.arange(5) / 5))
    return np.concatenate([pairs.real, pairs.imag])


class HookOracle(Oracle):
    """A Hugging Face model of the Llama layout, run as it is with plain forward hooks on its modules."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def run(self, tokens: Sequence[int], plan: ResolvedPlan) -> Trace:
        import torch

        trace, handles = Trace(plan), []
        try:
            for layer, block in enumerate(self.blocks()):
                handles += self._hooks(trace, layer, block)
            with torch.no_grad():
                logits = self.model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]
        finally:
            for handle in handles:
                handle.remove()
        trace.logprobs = torch.log_softmax(logits.double(), -1).numpy()
        return trace

    def blocks(self) -> Any:
        """The decoder blocks."""
        return self.model.model.layers

    def _hooks(self, trace: Trace, layer: int, block: Any) -> list[Any]:
        a, m = block.self_attn, block.mlp
        first = {"resid_pre": block, "head_out": a.o_proj, "mlp_act": m.down_proj}
        # Order matters where two streams hook one module: o before attn_out, down before mlp_out.
        last = {
            "q": a.q_proj, "k": a.k_proj, "v": a.v_proj, "o": a.o_proj, "attn_out": a,
            "gate": m.gate_proj, "up": m.up_proj, "down": m.down_proj, "mlp_out": m, "resid_post": block,
        }  # fmt: skip
        return [
            module.register_forward_pre_hook(_before(trace, Site(layer, s)), with_kwargs=True)
            for s, module in first.items()
        ] + [module.register_forward_hook(_after(trace, Site(layer, s))) for s, module in last.items()]


class BlockOracle(HookOracle):
    """A Hugging Face model of any family: only what leaves its text blocks is steered and read."""

    def blocks(self) -> Any:
        """Those of the text tower, where there are several."""
        inner = self.model.model
        return getattr(inner, "language_model", inner).layers

    def _hooks(self, trace: Trace, layer: int, block: Any) -> list[Any]:
        return [block.register_forward_hook(_after(trace, Site(layer)))]


def _steered(trace: Trace, site: Site, tensor: Any) -> Any:
    import torch

    edited = trace.steer(site, tensor[0].numpy())
    return torch.from_numpy(edited)[None].to(tensor.dtype)


def _before(trace: Trace, site: Site) -> Any:
    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (_steered(trace, site, args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": _steered(trace, site, kwargs["hidden_states"])}

    return hook


def _after(trace: Trace, site: Site) -> Any:
    def hook(module: Any, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (_steered(trace, site, output[0]), *output[1:])
        return _steered(trace, site, output)

    return hook
