"""What is due at the sites of one run: reads, edits, reads again. Modules with nothing due are not watched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from trimtab.engines.mlx.dispatch import Hook, watching
from trimtab.engines.mlx.taps import Tap
from trimtab.errors import SteeringLost
from trimtab.sites import Site

Read = Callable[[mx.array], None]
Edit = Callable[[mx.array], mx.array]


class Station:
    """One site: set what is due, then run the model; `reached` says that a forward pass came by."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.edit: Edit | None = None
        self.before: list[Read] = []
        self.after: list[Read] = []
        self.reached = False

    def set(self, edit: Edit | None = None, before: Iterable[Read] = (), after: Iterable[Read] = ()) -> None:
        """What the next forward passes do here."""
        self.edit, self.before, self.after = edit, list(before), list(after)

    @property
    def due(self) -> bool:
        """Whether anything is to be done here."""
        return self.edit is not None or bool(self.before) or bool(self.after)

    def visit(self, h: mx.array) -> mx.array:
        """Read and edit states [B, T, width]."""
        self.reached = True
        columns = self.tap.columns
        part = h if columns is None else h[..., columns]
        for read in self.before:
            read(part)
        if self.edit is not None:
            part = self.edit(part)
            if columns is None:
                h = part
            else:
                h = mx.array(h)
                h[..., columns] = part
        for read in self.after:
            read(part)
        return h


class Stations:
    """The stations of one model."""

    def __init__(self, taps: dict[Site, Tap]) -> None:
        self.taps = taps

    def at(self, sites: Iterable[Site]) -> dict[Site, Station]:
        """Fresh stations of one run, in forward order."""
        return {s: Station(self.taps[s]) for s in sorted(set(sites), key=lambda s: self.taps[s].order)}


def _hook(group: list[Station]) -> Hook:
    inputs = [s for s in group if s.tap.side == "input"]
    outputs = [s for s in group if s.tap.side == "output"]

    def run(inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for station in inputs:
            args, kwargs = _enter(station, args, kwargs)
        output = inner(*args, **kwargs)
        for station in outputs:
            if isinstance(output, (tuple, list)):
                output = type(output)((station.visit(output[0]), *output[1:]))
            else:
                output = station.visit(output)
        return output

    return run


def _enter(
    station: Station, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    key = station.tap.key
    if isinstance(key, int) and key < len(args):
        return (*args[:key], station.visit(args[key]), *args[key + 1 :]), kwargs
    if isinstance(key, str) and key in kwargs:
        return args, {**kwargs, key: station.visit(kwargs[key])}
    raise SteeringLost(f"the states of {station.tap.site} were not among the arguments of its module")


@contextmanager
def running(stations: Iterable[Station]) -> Iterator[None]:
    """One forward pass with everything due; fails if the pass did not come by where it should have.

    Modules are watched for the length of a pass and no longer, so that a stream that is left half-way, or two streams
    that take turns, leave nothing behind.
    """
    due = [s for s in stations if s.due]
    by_module: dict[int, list[Station]] = {}
    for station in due:
        station.reached = False
        by_module.setdefault(id(station.tap.module), []).append(station)
    hooks: list[tuple[nn.Module, Hook]] = [
        (group[0].tap.module, _hook(group)) for group in by_module.values()
    ]
    with watching(hooks):
        yield
    missed = [str(s.tap.site) for s in due if not s.reached]
    if missed:
        raise SteeringLost(f"a forward pass did not come by {', '.join(missed)}: its result is withheld")
