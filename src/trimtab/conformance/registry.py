"""A check is a plain function of a `Subject` that raises `Failed` where the engine breaks its promise, and returns in
words what it measured. Its name is the function's, the first line of its docstring says what is checked.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from trimtab.errors import UnknownName

if TYPE_CHECKING:
    from trimtab.conformance.subject import Subject

#: The modules that hold checks, in the order in which they run. The cost comes last: nothing waits for it.
FAMILIES = (
    "edits",
    "stacking",
    "placing",
    "reading",
    "batching",
    "sampling",
    "caching",
    "losing",
    "refusing",
    "cost",
)
#: What an engine may have and another not; a check that needs one is not on the list of an engine without it.
FEATURES: dict[str, frozenset[str]] = {
    "reference": frozenset({"streams", "chunks"}),
    "transformers": frozenset({"streams"}),
    "mlx": frozenset({"streams"}),
    "remote": frozenset({"streams"}),
    "vllm": frozenset({"chunks", "prefix_cache", "preemption", "bank", "plugin", "workers"}),
}


class Failed(AssertionError):
    """The engine did not do what the check asks for."""


class TooWeak(RuntimeError):
    """The plans of a check change too little here for it to prove anything."""


class NotRun(Exception):
    """The check says nothing here, and why."""


@dataclass(frozen=True)
class Check:
    """One check; `needs` names a feature, or is empty."""

    name: str
    family: str
    run: Callable[[Subject], str]
    needs: str = ""

    @property
    def line(self) -> str:
        """What is checked, in a sentence or two."""
        return " ".join((inspect.getdoc(self.run) or "").split("\n\n")[0].split())


#: Filled by `load`, in the order of `FAMILIES`.
CHECKS: dict[str, Check] = {}


def check(needs: str = "") -> Callable[[Callable[[Subject], str]], Callable[[Subject], str]]:
    """Register a function as a check under its own name."""

    def register(function: Callable[[Subject], str]) -> Callable[[Subject], str]:
        name = function.__name__
        if name in CHECKS:
            raise ValueError(f"two checks are called {name}")
        CHECKS[name] = Check(name, function.__module__.rpartition(".")[2], function, needs)
        return function

    return register


def load() -> dict[str, Check]:
    """All checks."""
    for family in FAMILIES:
        importlib.import_module(f"trimtab.conformance.{family}")
    return CHECKS


def names_of(engine: str) -> tuple[str, ...]:
    """The checks of an engine: always these, each of them either run or named as not run."""
    if engine not in FEATURES:
        raise UnknownName.of("engine of the conformance kit", engine, FEATURES)
    has = FEATURES[engine]
    return tuple(c.name for c in load().values() if not c.needs or c.needs in has)


def fail(message: str) -> NoReturn:
    """The check fails."""
    raise Failed(message)


def ensure(condition: Any, message: str) -> None:
    """Fail with the message unless the condition holds."""
    if not condition:
        raise Failed(message)
