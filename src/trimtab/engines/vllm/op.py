"""The one custom op of the engine: every decoder layer calls it, in place, with its output.

It is opaque to the compiler, so that graphs are traced once and whatever a batch needs is looked up when they run. The
layer's number comes as a tensor and not as a constant: layers that are alike then share their compiled code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from trimtab.engines.vllm.kernel import Kernel

NAME = "trimtab::steer_"
#: Kernels of this process; an address is (index here, layer).
KERNELS: list[Kernel] = []

_library = torch.library.Library("trimtab", "FRAGMENT")
_library.define("steer_(Tensor(a!) hidden, Tensor? residual, Tensor address) -> ()")


def _steer(hidden: torch.Tensor, residual: torch.Tensor | None, address: torch.Tensor) -> None:
    kernel, layer = address.tolist()
    if hidden.dim() == 3:  # models that vLLM runs through Transformers keep a batch of one in front
        hidden, residual = hidden[0], None if residual is None else residual[0]
    KERNELS[kernel].visit(layer, hidden, residual)


def _nothing(hidden: torch.Tensor, residual: torch.Tensor | None, address: torch.Tensor) -> None:
    return None


for _device in ("CPU", "CUDA"):
    _library.impl("steer_", _steer, _device)
_library._register_fake("steer_", _nothing)


def enlist(kernel: Kernel) -> int:
    """The index under which layers address a kernel."""
    KERNELS.append(kernel)
    return len(KERNELS) - 1


def address(index: int, layer: int) -> torch.Tensor:
    """What a layer calls the op with; it stays in the host's memory, where it is read."""
    return torch.tensor([index, layer], dtype=torch.int64)
