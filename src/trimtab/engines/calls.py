"""One recorded execution of a module: what discovery reads, and runs again with something changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

A = TypeVar("A")


@dataclass(eq=False)
class Recorded(ABC, Generic[A]):
    """`args`, `kwargs` and `output` of one call of `module`; `index` counts module exits in the forward pass. A is the
    library's `array`."""

    module: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    index: int
    array: ClassVar[type]

    @staticmethod
    @abstractmethod
    def floating(value: Any) -> bool:
        """Whether an array holds floating numbers, as hidden states do and token ids do not."""

    @property
    def states(self) -> A | None:
        """The output's array (of a tuple, the first element)."""
        whole = self.output
        first: Any = whole[0] if isinstance(whole, (tuple, list)) and whole else whole
        return first if isinstance(first, self.array) else None

    @property
    def output_key(self) -> int | None:
        """How the output holds its states: bare (None) or as the first of a tuple (0)."""
        return 0 if isinstance(self.output, (tuple, list)) else None

    def find_input(self, width: int | None = None) -> tuple[int | str, A] | None:
        """Where the hidden states enter: the first floating argument [B, T, width]."""
        named: list[tuple[int | str, Any]] = [*enumerate(self.args), *self.kwargs.items()]
        for key, value in named:
            if not isinstance(value, self.array) or value.ndim != 3 or not self.floating(value):
                continue
            if width is None or value.shape[-1] == width:
                return key, value
        return None

    def again(self, key: int | str | None = None, value: A | None = None) -> Any:
        """Execute the module once more, with one argument replaced."""
        args, kwargs = list(self.args), dict(self.kwargs)
        if isinstance(key, int):
            args[key] = value
        elif key is not None:
            kwargs[key] = value
        return self.module(*args, **kwargs)
