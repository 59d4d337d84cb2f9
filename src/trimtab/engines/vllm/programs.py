"""Programs: the placements of a plan that act together on a stretch of tokens.

Ranges are the host's business. Where a plan's ranges begin and end cuts the positions of a request into stretches, and
on each stretch a fixed set of placements acts: that set, without its ranges, is a program. Requests that do the same
thing share it, wherever they do it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trimtab.engines.vllm.bank import Bank
from trimtab.resolved import ResolvedGate, ResolvedPlacement, ResolvedPlan
from trimtab.sites import Site


@dataclass(frozen=True)
class Slot:
    """One placement, ready for the device: rows of the bank instead of names."""

    placement: ResolvedPlacement
    row: int
    gate_row: int = 0

    @property
    def gate(self) -> ResolvedGate | None:
        return self.placement.gate


@dataclass(eq=False)
class Program:
    """`slots[site]` in plan order. `key` identifies it; `uses` counts the requests that hold it."""

    key: str
    slots: Mapping[Site, tuple[Slot, ...]]
    names: tuple[str, ...]
    uses: int = 0

    @property
    def moves_with_position(self) -> bool:
        """Whether tokens of one stretch differ by their position: tables do that."""
        return any(s.placement.table_start is not None for slots in self.slots.values() for s in slots)


@dataclass(frozen=True)
class Stretch:
    """Absolute positions [start, end) (None: open) on which one program acts."""

    start: int
    end: int | None
    program: Program


class Programs:
    """Interns programs and holds their vectors in the bank for as long as a request uses them."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self._held: dict[str, Program] = {}

    def __len__(self) -> int:
        return len(self._held)

    def acquire(self, plan: ResolvedPlan) -> tuple[Stretch, ...]:
        """The stretches of a plan, in order, without the ones on which nothing acts; owed one `release`."""
        found: list[Stretch] = []
        try:
            for start, end in stretches(plan):
                acting = tuple(p for p in plan.effective if p.acts_on(start))
                if acting:
                    found.append(Stretch(start, end, self._intern(acting, plan.vectors)))
        except BaseException:
            self.release(found)
            raise
        return tuple(found)

    def release(self, held: tuple[Stretch, ...] | list[Stretch]) -> None:
        """Give back what `acquire` gave."""
        for stretch in held:
            program = stretch.program
            program.uses -= 1
            if not program.uses:
                del self._held[program.key]
                for name in program.names:
                    self.bank.release(name)

    def _intern(self, acting: tuple[ResolvedPlacement, ...], vectors: Mapping[str, np.ndarray]) -> Program:
        key = json.dumps([essence(p) for p in acting], separators=(",", ":"))
        if key not in self._held:
            self._held[key] = self._build(key, acting, vectors)
        program = self._held[key]
        program.uses += 1
        return program

    def _build(
        self, key: str, acting: tuple[ResolvedPlacement, ...], vectors: Mapping[str, np.ndarray]
    ) -> Program:
        taken: list[str] = []

        def row(name: str) -> int:
            found = self.bank.acquire(name, vectors)
            taken.append(name)
            return found

        slots: dict[Site, list[Slot]] = {}
        try:
            for p in acting:
                slot = Slot(p, row(p.vector), row(p.gate.vector) if p.gate else 0)
                slots.setdefault(p.site, []).append(slot)
        except BaseException:
            for name in taken:
                self.bank.release(name)
            raise
        return Program(key, {s: tuple(v) for s, v in slots.items()}, tuple(taken))


def stretches(plan: ResolvedPlan) -> list[tuple[int, int | None]]:
    """Where the set of acting placements is constant: [start, end) from position 0 on, the last one open."""
    cuts = {0}
    for placement in plan.effective:
        for start, end in placement.ranges:
            cuts.update((start,) if end is None else (start, end))
    starts = sorted(cuts)
    return list(zip(starts, [*starts[1:], None]))


def essence(placement: ResolvedPlacement) -> list[object]:
    """What a placement does to a token that it addresses: its essence without the ranges."""
    site, vector, numbers, _, *flags = placement.essence()
    return [site, vector, numbers, *flags]
