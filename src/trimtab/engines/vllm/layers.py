"""The decoder layers of a loaded model, and how they hand on the residual stream; found by structure and by a probe.

Most of vLLM's layers return `(hidden, residual)` whose sum is the state, because the next norm adds them up in one
kernel. Others return the finished state, alone or in a pair of the same shape. Which it is decides what an edit reads,
so it is measured: a few tokens go through the model, and what the module after the last layer is given tells.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from trimtab.engines.vllm import op
from trimtab.errors import Unsupported

#: Of the two readings of a layer's output the right one is this near to what its taker made of it, which leaves room
#: for bfloat16 (0.004 or so), and the other one so many times farther.
NEAR, FARTHER = 0.02, 5.0
#: What vLLM puts in the place of a layer that another worker has.
ELSEWHERE = "PPMissingLayer"


def find_layers(model: nn.Module, count: int) -> tuple[str, dict[int, nn.Module]]:
    """(name, layers by their number in the model): the outermost list of `count` modules, the largest of several side
    by side, without those that another worker of a pipeline has. Of a model that also sees or hears, in its text model:
    another tower may have as many."""
    text = _text_model(model)
    found = [(n, m) for n, m in text.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not found:
        raise Unsupported(f"{type(text).__name__} has no list of its {count} decoder layers")
    name, layers = min(
        found, key=lambda item: (item[0].count("."), -sum(p.numel() for p in item[1].parameters()))
    )
    here = {n: m for n, m in enumerate(layers) if type(m).__name__ != ELSEWHERE}
    if not here or list(here) != list(range(min(here), max(here) + 1)):
        raise Unsupported(f"the layers {sorted(here)} of {count} in this worker are not a slice of the model")
    return name, here


def _text_model(model: nn.Module) -> nn.Module:
    """The part of a multimodal model that reads and writes text, which vLLM knows; else the whole."""
    try:
        return model.get_language_model()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return model


def is_split(model: nn.Module, layers: list[nn.Module], run: Callable[[], object], width: int) -> bool:
    """Whether the state after a layer is the sum of the two tensors it returns. `run` forwards a few tokens, eager."""
    given: list[torch.Tensor] = []
    output: list[torch.Tensor] = []
    taker: list[nn.Module] = []
    inside = {id(m) for layer in layers for m in layer.modules()}

    def after_last(module: nn.Module, args: Any, result: Any) -> None:
        parts = result if isinstance(result, tuple) else (result,)
        output.extend(p.detach().clone() for p in parts if torch.is_tensor(p))

    def before_any(module: nn.Module, args: Any, kwargs: Any) -> None:
        states = [x for x in (*args, *kwargs.values()) if torch.is_tensor(x) and x.shape[-1:] == (width,)]
        if output and not given and states:
            taker.append(module)
            given.extend(x.detach().clone() for x in states)

    handles = [layers[-1].register_forward_hook(after_last)]
    handles += [
        m.register_forward_pre_hook(before_any, with_kwargs=True)
        for m in model.modules()
        if id(m) not in inside
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return decide(output, given, taker[0] if taker else None, type(layers[-1]).__name__)


def decide(
    output: list[torch.Tensor], given: list[torch.Tensor], taker: Callable[..., Any] | None, name: str
) -> bool:
    """True for a split stream, False for a finished one, from what the last layer gave and what `taker` made of it.

    A norm that is given two tensors may add them up, or carry the second along unused: only its result tells.
    """
    if not output or not given or taker is None:
        raise Unsupported(f"cannot tell what {name} returns: no module takes the state of the last layer")
    if any(x.dim() > 2 and x.shape[0] != 1 for x in output):
        shapes = [tuple(x.shape) for x in output]
        raise Unsupported(f"{name} returns more than one state for each token, {shapes}; it is not steered")
    if len(output) == 1:
        return False
    whole, both = output[0], output[0] + output[1]
    if not (torch.isfinite(whole).all() and torch.isfinite(both).all()):
        raise Unsupported(
            f"cannot tell what {name} returns: its state is not finite in a probe of four tokens"
        )
    if len(given) == 1:
        finished, split = (_distance(given[0], x) for x in (whole, both))
    else:
        with torch.inference_mode():  # clones: a fused norm writes into what it is given
            made = _first(taker(given[0].clone(), given[1].clone()))
            finished, split = (_distance(made, _first(taker(x.clone()))) for x in (whole, both))
    nearer, other = min(finished, split), max(finished, split)
    if not (nearer <= NEAR and other >= NEAR + FARTHER * nearer):
        raise Unsupported(
            f"cannot tell which of the tensors that {name} returns is the state; it is not steered"
        )
    return split < finished


def _first(result: Any) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """How far b is from a, as a share of a. Over all of it: in 16 bits single elements differ by more than their last
    digit, because norms round more than once."""
    return float(torch.linalg.vector_norm(a.float() - b.float()) / torch.linalg.vector_norm(a.float()))


def attach(layers: Mapping[int, nn.Module], index: int, split: bool) -> None:
    """Make every layer, by number, call the op of kernel `index`; each class is wrapped once."""
    for number, layer in layers.items():
        kind = type(layer)
        if not hasattr(kind, "trimtab_on"):
            kind.trimtab_on = False  # type: ignore[attr-defined]
            kind.forward = _calling(kind.forward)
        # A buffer, like a weight: the compiler takes it as an input, and not as a constant of this layer's graph.
        layer.register_buffer("trimtab_address", op.address(index, number), persistent=False)
        layer.trimtab_split, layer.trimtab_on = split, True  # type: ignore[assignment]


def _calling(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if self.trimtab_on:
            pair = isinstance(result, tuple)
            residual = result[1] if pair and self.trimtab_split else None
            torch.ops.trimtab.steer_(result[0] if pair else result, residual, self.trimtab_address)
        return result

    return forward
