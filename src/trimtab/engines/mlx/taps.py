"""What discovery finds in an MLX model: for every site the module, the side of it and the columns of its states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from trimtab.engines.calls import Recorded
from trimtab.sites import Site

Columns = slice | mx.array | None


@dataclass(eq=False)
class Tap:
    """Where one site is read and edited: the input or output of `module`, whole or some `columns` of it.

    `key` says which argument holds the states (input side) or which element of a tuple (output side; None for a bare
    array). `order` is the place in the execution of one forward pass.
    """

    site: Site
    module: nn.Module
    name: str
    side: str
    key: int | str | None
    width: int
    order: int
    columns: Columns = None


@dataclass(eq=False)
class Call(Recorded[mx.array]):
    """A call of one of the model's modules; `name` is the module's name within its block."""

    name: str
    array: ClassVar[type] = mx.array

    @staticmethod
    def floating(value: Any) -> bool:
        """Whether an array holds floating numbers."""
        return bool(mx.issubdtype(value.dtype, mx.floating))


def array_of(states: Any) -> mx.array:
    """The states [B, T, width] in a module's output."""
    return states[0] if isinstance(states, (tuple, list)) else states
