"""Hooks at the sites that a run touches. A station reads, edits, reads again; it costs nothing where nothing is due."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from trimtab.engines.transformers.kernel import (
    AddEdit,
    Bank,
    Coordinates,
    GateKey,
    GeneralEdit,
    Placed,
    compile_edit,
)
from trimtab.engines.transformers.taps import Tap
from trimtab.errors import SteeringLost, Unsupported
from trimtab.prompts import in_ranges
from trimtab.resolved import ResolvedPlan
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
        """Read and edit the states; returns the edited tensor, or None where it is unchanged or edited in place.

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

    def check(self, plan: ResolvedPlan) -> None:
        """Refuse a gate that this model computes only after the edit that depends on it."""
        for p in plan.effective:
            if p.gate is not None and self.taps[p.gate.site].order > self.taps[p.site].order:
                raise Unsupported(
                    f"this model computes {p.gate.site} after {p.site}: a gate there cannot act on that edit"
                )


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


# --- a batch of plans -------------------------------------------------------------------------------------------


class Schedule:
    """The edits of a batch of rows, compiled once, and again only when a range begins or ends."""

    def __init__(self, stations: dict[Site, Station], plans: Sequence[ResolvedPlan]) -> None:
        self.stations = stations
        self._banks: dict[torch.device, Bank] = {}
        self._coordinates: Coordinates = {}
        grouped = {id(p): _by_site(p) for p in plans}
        self.rows = [grouped[id(p)] for p in plans]
        self.sites = sorted({s for placed in self.rows for s in placed})
        self.gates: dict[tuple[Site, str], list[Read]] = {}
        self._edits: dict[Site, Any] = {}
        self._had_reads = True
        self._fresh_for = 0

    def select(self, keep: Sequence[int]) -> None:
        """Go on with some of the rows (or with rows repeated)."""
        self.rows = [self.rows[i] for i in keep]
        self._fresh_for = 0

    def compile(self, positions: np.ndarray) -> dict[Site, Any]:
        """Edits for a forward pass over absolute positions [B, T] (-1 for padding), and gate reads at their sites."""
        gates: list[GateKey] = []
        edits: dict[Site, Any] = {}
        self._coordinates.clear()
        for site in self.sites:
            tap = self.stations[site].tap
            bank = self._banks.setdefault(tap.device, Bank(tap.device))
            placed = [row.get(site, ()) for row in self.rows]
            edit = compile_edit(placed, positions, tap.width, tap.dtype, bank, gates, self._coordinates)
            if edit is not None:
                edits[site] = edit
        self.gates = {}
        for key in gates:
            read = lambda h, k=key: k.measure(h, self._coordinates)  # noqa: E731
            self.gates.setdefault((key.site, key.at), []).append(read)
        return edits

    def prepare(self, positions: np.ndarray, reads: dict[tuple[Site, str], list[Read]]) -> None:
        """Set every station for a forward pass over `positions`."""
        self._apply(self.compile(positions), reads)
        self._fresh_for = 0

    def step(self, positions: np.ndarray, reads: dict[tuple[Site, str], list[Read]]) -> None:
        """Set every station for one decode step at absolute positions [B]; compiles only where something changes."""
        if self._fresh_for > 0 and not reads and not self._had_reads:
            self._fresh_for -= 1
            return
        if self._fresh_for > 0:
            self._fresh_for -= 1
            self._apply(self._edits, reads)
            return
        self._edits = self.compile(positions[:, None])
        self._fresh_for = self._steps_until_change(positions) - 1
        self._apply(self._edits, reads)

    def _apply(self, edits: dict[Site, Any], reads: dict[tuple[Site, str], list[Read]]) -> None:
        self._had_reads = bool(reads)
        for site, station in self.stations.items():
            before = [*self.gates.get((site, "before"), ()), *reads.get((site, "before"), ())]
            after = [*self.gates.get((site, "after"), ()), *reads.get((site, "after"), ())]
            station.set(edits.get(site), before, after)

    def _steps_until_change(self, positions: np.ndarray) -> int:
        """How many decode steps, from these positions on, the compiled edits stay right."""
        steps = 1 << 30
        for row, position in zip(self.rows, positions, strict=True):
            for placed in row.values():
                for p, _ in placed:
                    if p.table_start is not None and in_ranges(int(position), p.ranges):
                        return 1
                    edges = [e for r in p.ranges for e in r if e is not None and e > position]
                    steps = min([steps, *(e - int(position) for e in edges)])
        return steps


def _by_site(plan: ResolvedPlan) -> dict[Site, tuple[Placed, ...]]:
    return {site: tuple((p, plan.vectors) for p in plan.at(site)) for site in plan.sites}
