"""hotwire-vllm on a processor: the same formula in torch, called where vLLM's CPU worker loads its model.

Its kernel is Triton's, and it wraps `GPUModelRunner.load_model`, which the CPU's runner does not call. Nothing else is
changed, but that a vector file is also found when it was written after the start.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


class TorchKernel:
    """Stands for the Triton kernel: `kernel[grid](hidden, bank, slots, scales, …)`."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return add_rows


def add_rows(hidden: Any, bank: Any, slots: Any, scales: Any, *_: Any, **__: Any) -> None:
    """hidden[t] += scales[slot] * bank[slot] where the token has a slot."""
    at = slots >= 0
    chosen = slots[at].long()
    hidden[at] += (scales[chosen][:, None] * bank[chosen].float()).to(hidden.dtype)


def find_late(state: Any, folder: str) -> None:
    """Load a vector file when it is first asked for."""
    ask = state.slot_for

    def slot_for(id: str, layer: int, scale: float) -> Any:
        file = Path(folder) / f"{id}.pt"
        if id not in state.store and file.exists():
            state.load_store(str(file))
        return ask(id, layer, scale)

    state.slot_for = slot_for


def register() -> None:
    """The entry point."""
    import os

    import hotwire
    from hotwire import _kernel, _patch, _state
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    hotwire.register()
    _kernel._steer_kernel = TorchKernel()
    if hasattr(CPUModelRunner, "hotwire_here"):
        return
    CPUModelRunner.hotwire_here = True
    load = CPUModelRunner.load_model

    def load_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        done = load(self, *args, **kwargs)
        _patch._install_into_model(self)
        find_late(_state.get(), os.environ["HOTWIRE_VECTORS"])
        return done

    CPUModelRunner.load_model = load_model
