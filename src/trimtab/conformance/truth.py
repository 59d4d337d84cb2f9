"""What an engine is compared with: one full forward pass of Transformers in float32, without a cache, one request at a
time, with plain hooks on the decoder layers. The edits are written out here once more; no engine's kernel is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.errors import Unsupported
from trimtab.resolved import ResolvedGate, ResolvedPlacement, ResolvedPlan
from trimtab.sites import Site

#: The share of the free memory that the copy of the model may take.
SHARE = 0.5


@dataclass
class Trace:
    """One pass: `logprobs` [T, V] after every token, and resid_post [T, width] before and after its edits, float32."""

    before: dict[Site, np.ndarray] = field(default_factory=dict)
    after: dict[Site, np.ndarray] = field(default_factory=dict)
    logprobs: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def state(self, site: Site, at: str) -> np.ndarray:
        """The states at a site before or after its edits."""
        return (self.before if at == "before" else self.after)[site]


def unavailable(folder: Path) -> str:
    """Why Transformers cannot be the truth for the model in `folder`; "" where it can."""
    for module in ("torch", "transformers"):
        if find_spec(module) is None:
            return f"{module} is not installed"
    if not (folder / "config.json").exists():
        return f"{folder} holds no checkpoint"
    weights = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    if not weights:
        return "the weights are not in safetensors"
    if (free := _free_bytes()) is not None and 2 * weights > SHARE * free:
        return f"float32 weights ({2 * weights / 2**30:.1f} GiB) do not fit beside the engine"
    return ""


class Truth:
    """A checkpoint in Transformers, float32 on the CPU; `run` takes resolved plans at resid_post only."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self.layers = decoder_layers(self.model)
        self._seen: dict[tuple[tuple[int, ...], str], Trace] = {}

    def run(self, tokens: Sequence[int], plan: ResolvedPlan) -> Trace:
        """The pass over `tokens` under a plan; equal ones are run once."""
        strange = [s.key for s in plan.sites if s.stream != "resid_post"]
        if strange:
            raise Unsupported(f"the comparison steers resid_post only, not {', '.join(strange)}")
        key = (tuple(tokens), plan.fingerprint)
        if key not in self._seen:
            if len(self._seen) > 256:
                self._seen.clear()
            self._seen[key] = self._run(tokens, plan)
        return self._seen[key]

    def _run(self, tokens: Sequence[int], plan: ResolvedPlan) -> Trace:
        import torch

        trace = Trace()
        handles = [b.register_forward_hook(_hook(trace, Site(n), plan)) for n, b in enumerate(self.layers)]
        try:
            with torch.no_grad():
                logits = self.model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]
        finally:
            for handle in handles:
                handle.remove()
        trace.logprobs = torch.log_softmax(logits.double(), -1).numpy()
        return trace


def decoder_layers(model: Any) -> Any:
    """The list of decoder layers: as long as the configuration says, and the largest of those."""
    from torch import nn

    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    lists = [
        m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers
    ]
    if not lists:
        raise Unsupported(f"{type(model).__name__} has no list of {config.num_hidden_layers} decoder layers")
    return max(lists, key=lambda m: sum(p.numel() for p in m.parameters()))


def _hook(trace: Trace, site: Site, plan: ResolvedPlan) -> Any:
    def hook(module: Any, args: Any, output: Any) -> Any:
        import torch

        states = output[0] if isinstance(output, tuple) else output
        h = states[0].numpy().copy()
        trace.before[site] = h.copy()
        for p in plan.at(site):
            h = _placed(trace, plan, p, h)
        trace.after[site] = h.copy()
        steered = torch.from_numpy(h)[None].to(states.dtype)
        return (steered, *output[1:]) if isinstance(output, tuple) else steered

    return hook


def _placed(trace: Trace, plan: ResolvedPlan, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
    """The states after one placement: token by token, where it addresses them and its gate is open."""
    h, vector = h.copy(), plan.vectors[p.vector].astype(np.float64)
    for t in range(len(h)):
        if not any(a <= t and (b is None or t < b) for a, b in p.ranges):
            continue
        if p.gate is not None and not _open(trace, plan, p.gate, t):
            continue
        if p.table_start is None:
            h[t] = edited(h[t], vector, p)
        elif 0 <= t - p.table_start < len(vector):
            h[t] = _moved(h[t], p.coefficients.shift * vector[t - p.table_start], p.renormalise)
    return h


def edited(h: np.ndarray, u: np.ndarray, p: ResolvedPlacement) -> np.ndarray:
    """One state [width] after an edit of its coordinate along `u`: the new coordinate, written out."""
    row, wide = p.coefficients, h.astype(np.float64)
    old = float(wide @ u)
    shift = row.shift * (float(np.sqrt(wide @ wide)) if p.relative else 1.0)
    new = min(max(row.gain * old + shift, row.low), row.high)
    change = shift if row.adds else new - old  # an Add owes nothing to the coordinate, nor to its rounding
    return _moved(h, row.strength * change * u, p.renormalise)


def _moved(h: np.ndarray, change: np.ndarray, renormalise: bool) -> np.ndarray:
    if not change.any():
        return h
    wide = h.astype(np.float64)
    moved = wide + change
    if renormalise:
        moved = moved * math.sqrt(wide @ wide) / math.sqrt(moved @ moved)
    return moved.astype(h.dtype)


def _open(trace: Trace, plan: ResolvedPlan, gate: ResolvedGate, t: int) -> bool:
    state = trace.state(gate.site, gate.at)[t].astype(np.float64)
    coordinate = float(state @ plan.vectors[gate.vector].astype(np.float64))
    return coordinate > gate.threshold if gate.above else coordinate < gate.threshold


def _free_bytes() -> int | None:
    """Memory that could be had; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
