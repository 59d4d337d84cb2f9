"""What discovery finds: for every site the module, the side of it and the columns where its states flow by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from trimtab.engines.calls import Recorded
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
class Call(Recorded[torch.Tensor]):
    """A call of one of the model's modules."""

    array: ClassVar[type] = torch.Tensor

    @staticmethod
    def floating(value: Any) -> bool:
        """Whether an array holds floating numbers."""
        return value.is_floating_point()


def first_tensor(output: Any) -> torch.Tensor:
    """The states [B, T, width] in a module's output."""
    return output[0] if isinstance(output, (tuple, list)) else output
