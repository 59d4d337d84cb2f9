"""The arithmetic of one layer in one step: `interventions.edit` for some rows of a batch, in float32.

vLLM keeps the residual stream in two tensors: what the last branch added, `hidden`, and what came before, `residual`.
The state is their sum (or `hidden` alone), and an edit moves `hidden` in place. What does not move keeps its bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

Rows = slice | torch.Tensor


def states(hidden: torch.Tensor, residual: torch.Tensor | None, rows: Rows) -> torch.Tensor:
    """The states [n, width] of some rows, float32."""
    part = hidden[rows].float()
    return part if residual is None else part + residual[rows].float()


@dataclass(eq=False)
class Units:
    """Unit vectors of some rows of a batch: one row of the bank for all, or one for each, gathered when used."""

    bank: torch.Tensor
    index: int | torch.Tensor

    def get(self) -> torch.Tensor:
        """[1 or n, width] float32."""
        if isinstance(self.index, int):
            return self.bank[self.index : self.index + 1]
        return self.bank[self.index]


@dataclass(eq=False)
class Measure:
    """Coordinates [n] of some rows at a gate's site, in `layer`, read by a later edit of the same step."""

    rows: Rows
    units: Units
    found: torch.Tensor | None = None
    layer: int = 0

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        self.found = torch.linalg.vecdot(states(hidden, residual, self.rows), self.units.get())


@dataclass(eq=False)
class GateCheck:
    """`coordinate * sign > threshold` [n]; a row without a gate has sign 0 and threshold -1."""

    measure: Measure
    sign: torch.Tensor
    threshold: torch.Tensor

    def opened(self) -> torch.Tensor:
        """Which rows [n] may move."""
        assert self.measure.found is not None, "a gate was read before its site was passed"
        return self.measure.found * self.sign > self.threshold


@dataclass(eq=False)
class Pass:
    """The k-th placement of every row of an edit; a row without one has no change.

    With p the coordinate along the row's unit and the strength s multiplied in, the change is
    `base[0] + slope[0] p (+ relative * norm)` held between `base[1] + slope[1] p` and `base[2] + slope[2] p`,
    each [n or 1, 1].
    """

    units: Units
    base: torch.Tensor
    slope: torch.Tensor
    bounded: bool
    relative: torch.Tensor | None = None
    renormalise: torch.Tensor | None = None  # bool [n or 1, 1]
    table: torch.Tensor | None = None  # finished displacements [n, width]
    gates: list[GateCheck] = field(default_factory=list)

    def move(self, x: torch.Tensor) -> torch.Tensor:
        """The displacement [n, width] of states x [n, width]."""
        units = self.units.get()
        p = torch.linalg.vecdot(x, units).unsqueeze(-1)
        change = torch.addcmul(self.base[0], p, self.slope[0])
        if self.relative is not None:
            change = change + self.relative * torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        if self.bounded:
            change = torch.clamp(
                change,
                torch.addcmul(self.base[1], p, self.slope[1]),
                torch.addcmul(self.base[2], p, self.slope[2]),
            )
        moved = change * units
        if self.table is not None:
            moved = moved + self.table
        if self.renormalise is not None:
            moved = self._turn(x, moved)
        for gate in self.gates:
            moved = torch.where(gate.opened().unsqueeze(-1), moved, 0.0)
        return moved

    def _turn(self, x: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        after = x + moved
        was, now = (torch.linalg.vector_norm(v, dim=-1, keepdim=True) for v in (x, after))
        turn = (now > 0) & (moved != 0).any(-1, keepdim=True) & self.renormalise
        return torch.where(turn, after * (was / now) - x, moved)


@dataclass(eq=False)
class GeneralEdit:
    """Any placements, in plan order; the finished change is cast to the activation's type once."""

    rows: Rows
    passes: Sequence[Pass]

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        x = states(hidden, residual, self.rows)
        total = torch.zeros_like(x)
        for step in self.passes:
            moved = step.move(x)
            x, total = x + moved, total + moved
        part = hidden[self.rows]
        touched = (total != 0).any(-1, keepdim=True)
        hidden[self.rows] = torch.where(touched, (part.float() + total).to(hidden.dtype), part)


@dataclass(eq=False)
class AddEdit:
    """Displacements [n or 1, width] that do not depend on the state."""

    rows: Rows
    delta: torch.Tensor

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        if isinstance(self.rows, slice):
            hidden[self.rows].add_(self.delta)
        else:
            hidden[self.rows] = (hidden[self.rows] + self.delta).to(hidden.dtype)


@dataclass(eq=False)
class Grab:
    """States [n, width] float32 of some rows, for captures and readings."""

    rows: Rows
    found: torch.Tensor | None = None

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        found = states(hidden, residual, self.rows)
        # What is read is looked at after the forward pass, when edits, and compiled code, have used the memory again.
        shared = found.untyped_storage().data_ptr() == hidden.untyped_storage().data_ptr()
        self.found = found.clone() if shared else found


#: What moves states: called with `hidden` and `residual`, it moves `hidden` in place.
Edit = Callable[[torch.Tensor, torch.Tensor | None], None]


@dataclass(eq=False)
class Stage:
    """What one layer does in one step: look, edit, look again."""

    before: list[Measure | Grab] = field(default_factory=list)
    edit: Edit | None = None
    after: list[Measure | Grab] = field(default_factory=list)

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        for look in self.before:
            look(hidden, residual)
        if self.edit is not None:
            self.edit(hidden, residual)
        for look in self.after:
            look(hidden, residual)
