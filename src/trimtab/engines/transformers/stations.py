"""Hooks at the sites that a run touches. A station reads, edits, reads again; it costs nothing where nothing is due."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from trimtab.engines.transformers.kernel import AddEdit, GeneralEdit
from trimtab.engines.transformers.taps import Tap
from trimtab.errors import SteeringLost
from trimtab.sites import Site

Read = Callable[[torch.Tensor], None]


class Stopped(Exception):
    """Ends a forward pass at the last site that is needed."""


@dataclass(eq=False)
class Station:
    """What is due at one site in the next forward pass. The hook acts only while `busy`, which `running` sets: a model
    that somebody else calls meanwhile is left alone.
    """

    tap: Tap
    edit: AddEdit | GeneralEdit | Callable[[torch.Tensor], torch.Tensor] | None = None
    before: list[Read] = field(default_factory=list)
    after: list[Read] = field(default_factory=list)
    stop: bool = False
    due: bool = False
    busy: bool = False
    reached: bool = False
    quick: torch.Tensor | None = None  # the whole of what is due, where that is one addition

    def set(
        self, edit: Any = None, before: Iterable[Read] = (), after: Iterable[Read] = (), stop: bool = False
    ) -> None:
        """What the next forward passes do here."""
        self.edit, self.before, self.after, self.stop = edit, list(before), list(after), stop
        self.due = bool(edit is not None or self.before or self.after or stop)
        reads = self.before or self.after or stop or self.tap.columns is not None
        self.quick = edit.delta if isinstance(edit, AddEdit) and not reads else None

    def set_stop(self) -> None:
        """End the next forward passes here."""
        self.stop, self.due, self.quick = True, True, None

    def visit(self, h: torch.Tensor, fresh: bool) -> torch.Tensor | None:
        """Read and edit the states [B, T, width]; the edited tensor, or None where it is unchanged or edited in place.

        `fresh` says that nobody else holds `h`, so that it may be edited in place.
        """
        self.reached = True
        columns = self.tap.columns
        part = h if columns is None else h[..., columns]
        for read in self.before:
            read(part)
        out = None
        if self.edit is not None:
            if columns is not None or not fresh or (torch.is_grad_enabled() and h.requires_grad):
                part = self.edit(part.clone())
                out = part if columns is None else _put(h, columns, part)
            else:
                edited = self.edit(part)
                if edited is not part:  # an edit that is differentiated gives a new tensor
                    out = part = edited
        for read in self.after:
            read(part)
        if self.stop:
            raise Stopped
        return out


def _put(h: torch.Tensor, columns: slice | torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    out = h.clone()
    out[..., columns] = part
    return out


class Stations:
    """The stations of one engine. `installed` hooks some sites for a while; a run sets them per forward."""

    def __init__(self, taps: dict[Site, Tap]) -> None:
        self.taps = taps
        self.active: dict[Site, Station] = {}

    def at(self, sites: Iterable[Site]) -> dict[Site, Station]:
        """Fresh stations, in forward order, that no module knows yet."""
        return {s: Station(self.taps[s]) for s in sorted(set(sites))}

    @contextmanager
    def installed(self, sites: Iterable[Site]) -> Iterator[dict[Site, Station]]:
        """Hooks at `sites`; removed at the end."""
        found = self.at(sites)
        with hooked(found.values()):
            yield found

    def last(self, sites: Iterable[Site]) -> Site:
        """The site that a forward pass reaches last."""
        return max(sites, key=lambda s: self.taps[s].order)


@contextmanager
def hooked(stations: Iterable[Station]) -> Iterator[None]:
    """Stations in their modules, in the order given (several may share a module); taken out at the end."""
    handles = [install(station) for station in stations]
    try:
        yield
    finally:
        for handle in reversed(handles):
            handle.remove()


class Handle:
    """Undoes one `install`."""

    def __init__(self, module: nn.Module, had: Any) -> None:
        self._module, self._had = module, had

    def remove(self) -> None:
        """Give the module its forward back."""
        if self._had is None:
            del self._module.forward
        else:
            self._module.forward = self._had


def install(station: Station) -> Handle:
    """Hook one station into its module.

    The hook is a `forward` of the instance around the one it had: an idle one costs a third of what a registered
    forward hook costs, and the user's own hooks see the edited states. Handles are removed in reverse order.
    """
    module = station.tap.module
    had = module.__dict__.get("forward")
    wrap = _around_input if station.tap.side == "input" else _around_output
    module.forward = functools.update_wrapper(wrap(station, module.forward), module.forward)
    return Handle(module, had)


def _around_output(station: Station, inner: Any) -> Any:
    bare = station.tap.key is None
    grad = torch.is_grad_enabled

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = inner(*args, **kwargs)
        if not station.busy:
            return output
        states = output if bare or isinstance(output, torch.Tensor) else output[0]
        quick = station.quick
        if quick is not None and not grad():
            station.reached = True
            states.add_(quick)
            return output
        edited = station.visit(states, True)
        if edited is None:
            return output
        return edited if states is output else type(output)((edited, *output[1:]))

    return forward


def _around_input(station: Station, inner: Any) -> Any:
    key = station.tap.key

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not station.busy:
            return inner(*args, **kwargs)
        # A caller may hand over as keyword what the probe saw by position, and the reverse.
        if isinstance(key, int) and key < len(args):
            edited = station.visit(args[key], False)
            return inner(*(args if edited is None else (*args[:key], edited, *args[key + 1 :])), **kwargs)
        name = key if isinstance(key, str) else next(iter(kwargs), "")
        if name in kwargs:
            edited = station.visit(kwargs[name], False)
            return inner(*args, **(kwargs if edited is None else {**kwargs, name: edited}))
        if not args:
            raise SteeringLost(f"the states of {station.tap.site} were not among the arguments of its module")
        edited = station.visit(args[0], False)
        return inner(*(args if edited is None else (edited, *args[1:])), **kwargs)

    return forward


@contextmanager
def running(stations: Iterable[Station]) -> Iterator[None]:
    """One forward pass with everything due; fails if the pass did not come by where it should have."""
    due = [s for s in stations if s.due]
    for station in due:
        station.busy, station.reached = True, False
    try:
        yield
    finally:
        for station in due:
            station.busy = False
    missed = [str(s.tap.site) for s in due if not s.reached]
    if missed:
        raise SteeringLost(f"a forward pass did not come by {', '.join(missed)}: its result is withheld")
