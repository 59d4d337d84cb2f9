"""What discovery finds: for every site the module, the side of it and the columns where its states flow by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from trimtab.sites import Site

Columns = slice | torch.Tensor | None


@dataclass(eq=False)
class Tap:
    """Where one site is read and edited: the input or output of `module`, whole or some `columns` of it.

    `key` says which argument holds the states (input side: position or keyword) or which element of a tuple (output
    side; None for a bare tensor). `order` is the module's place in the execution of one forward pass.
    """

    site: Site
    module: nn.Module
    side: str
    key: int | str | None
    width: int
    order: int
    device: torch.device
    dtype: torch.dtype
    columns: Columns = None


@dataclass(eq=False)
class Anatomy:
    """The text tower of a model: its blocks and a tap for every site that could be proved."""

    path: str
    blocks: nn.ModuleList
    taps: dict[Site, Tap] = field(default_factory=dict)
    hidden_size: int = 0

    @property
    def widths(self) -> dict[Site, int]:
        """Width of every site that can be reached, in forward order."""
        return {site: self.taps[site].width for site in sorted(self.taps)}


@dataclass(eq=False)
class Call:
    """One recorded execution of a module; `index` counts module exits in the forward pass."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    index: int

    @property
    def states(self) -> torch.Tensor | None:
        """The output's tensor (of a tuple, the first element)."""
        first = self.output[0] if isinstance(self.output, (tuple, list)) and self.output else self.output
        return first if isinstance(first, torch.Tensor) else None

    @property
    def output_key(self) -> int | None:
        """How the output holds its states: bare (None) or as the first of a tuple (0)."""
        return 0 if isinstance(self.output, (tuple, list)) else None

    def find_input(self, width: int | None = None) -> tuple[int | str, torch.Tensor] | None:
        """Where the hidden states enter: the first floating argument [B, T, width]."""
        named: list[tuple[int | str, Any]] = [*enumerate(self.args), *self.kwargs.items()]
        for key, value in named:
            if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dim() != 3:
                continue
            if width is None or value.shape[-1] == width:
                return key, value
        return None

    def again(self, key: int | str | None = None, value: torch.Tensor | None = None) -> Any:
        """Execute the module once more, with one argument replaced."""
        args, kwargs = list(self.args), dict(self.kwargs)
        if isinstance(key, int):
            args[key] = value
        elif key is not None:
            kwargs[key] = value
        return self.module(*args, **kwargs)


def first_tensor(output: Any) -> torch.Tensor:
    """The states in a module's output."""
    return output[0] if isinstance(output, (tuple, list)) else output
