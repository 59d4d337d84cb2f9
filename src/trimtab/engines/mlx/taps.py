"""What discovery finds in an MLX model: for every site the module, the side of it and the columns of its states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

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
class Call:
    """One recorded execution of a module; `index` counts module exits in the forward pass."""

    module: nn.Module
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    index: int

    @property
    def states(self) -> mx.array | None:
        """The output's array (of a tuple, the first element)."""
        first = self.output[0] if isinstance(self.output, (tuple, list)) and self.output else self.output
        return first if isinstance(first, mx.array) else None

    @property
    def output_key(self) -> int | None:
        """How the output holds its states: bare (None) or as the first of a tuple (0)."""
        return 0 if isinstance(self.output, (tuple, list)) else None

    def find_input(self, width: int | None = None) -> tuple[int | str, mx.array] | None:
        """Where the hidden states enter: the first floating argument [B, T, width]."""
        named: list[tuple[int | str, Any]] = [*enumerate(self.args), *self.kwargs.items()]
        for key, value in named:
            if (
                not isinstance(value, mx.array)
                or value.ndim != 3
                or not mx.issubdtype(value.dtype, mx.floating)
            ):
                continue
            if width is None or value.shape[-1] == width:
                return key, value
        return None

    def again(self, key: int | str | None = None, value: mx.array | None = None) -> Any:
        """Execute the module once more, with one argument replaced."""
        args, kwargs = list(self.args), dict(self.kwargs)
        if isinstance(key, int):
            args[key] = value
        elif key is not None:
            kwargs[key] = value
        return self.module(*args, **kwargs)


def array_of(states: Any) -> mx.array:
    """The states in a module's output."""
    return states[0] if isinstance(states, (tuple, list)) else states
