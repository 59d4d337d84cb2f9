"""Reach the calls of single modules of an MLX model, and leave no trace where nothing is reached.

MLX finds `__call__` on a module's class, so a module is watched by giving it, for a while, a subclass of its own class
whose `__call__` asks a hook. Nothing is wrapped and no module is replaced: a model that is not watched is the model
that mlx-lm loaded, bit for bit and instruction for instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlx.nn as nn

#: hook(inner, args, kwargs) -> output; `inner` is the module's own call.
Hook = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

_HOOKS: dict[int, Hook] = {}
_WATCHED: dict[type, type] = {}


def _watched(cls: type) -> type:
    """The subclass of `cls` that asks a hook; made once per class."""
    if cls not in _WATCHED:

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            hook = _HOOKS.get(id(self))
            if hook is None:
                return cls.__call__(self, *args, **kwargs)
            return hook(lambda *a, **k: cls.__call__(self, *a, **k), args, kwargs)

        _WATCHED[cls] = type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})
    return _WATCHED[cls]


@contextmanager
def watching(hooks: Mapping[nn.Module, Hook] | list[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Inside, every call of these modules goes through its hook. Not re-entrant for one module."""
    pairs = list(hooks.items()) if isinstance(hooks, Mapping) else hooks
    classes = [type(module) for module, _ in pairs]
    for module, hook in pairs:
        if id(module) in _HOOKS:
            raise RuntimeError(f"a {type(module).__name__} is watched already: one run at a time per model")
        _HOOKS[id(module)] = hook
        # nn.Module keeps attributes in its dict, so its own __setattr__ would store the class as a parameter.
        object.__setattr__(module, "__class__", _watched(type(module)))
    try:
        yield
    finally:
        for (module, _), cls in zip(pairs, classes, strict=True):
            object.__setattr__(module, "__class__", cls)
            del _HOOKS[id(module)]
