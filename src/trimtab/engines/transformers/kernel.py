"""The kernel: what an edit does to the states of one site in one forward pass.

An `AddEdit` is one in-place add of displacements that no state decides; a `GeneralEdit` is the table of
`interventions.edit`, one pass per placement, in plan order, in float32, and a change of 0 is exact. `compiling` makes
both from plans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from trimtab.sites import Site

#: Coordinates of gate rows, filled in by the stations that a forward passes earlier.
Coordinates = dict["GateKey", torch.Tensor]


@dataclass(frozen=True, eq=False)
class GateKey:
    """One gate read: the rows [B, width] whose coordinates a later edit of the same forward compares."""

    site: Site
    at: str
    rows: torch.Tensor

    def measure(self, h: torch.Tensor, into: Coordinates) -> None:
        """Store the coordinates [B, T] of the states at the gate's site."""
        into[self] = coordinate(h.float(), self.rows.to(h.device)[:, None])


def coordinate(h: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """h . u over the last axis: [B, T, W] and [B, 1, W] give [B, T]."""
    return torch.linalg.vecdot(h, u)


class AddEdit:
    """Displacements that do not depend on the state: h += delta. `delta` broadcasts against [B, T, W]."""

    __slots__ = ("_build", "delta")

    def __init__(self, delta: torch.Tensor | None, build: Callable[[], torch.Tensor] | None = None) -> None:
        self.delta, self._build = delta, build

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        """Edit in place; a delta per token is built here, so that only one site's table exists at a time."""
        delta = self.delta
        return h.add_(self._build() if delta is None else delta)  # type: ignore[misc]


@dataclass(eq=False)
class Pass:
    """The k-th placement of every row, with the strength s of each token multiplied in beforehand.

    `rows` [B, 1, W] are the units; with p [B, T, 1] the coordinates, `base + slope * p` [3, B, T, 1] are s times
    (gain - 1) p + shift, low - p and high - p, and the change is the first held between the other two. A token that is
    not addressed has (0, -inf, inf), and so a change of exactly 0.
    """

    rows: torch.Tensor
    base: torch.Tensor
    slope: torch.Tensor
    bounded: bool = True
    relative: torch.Tensor | None = None  # s * shift [B, T, 1] to be multiplied by the token's norm
    renormalise: torch.Tensor | None = None  # [B, 1, 1]
    table: torch.Tensor | None = None  # finished displacements [B, T, W] of delta tables
    gates: list[tuple[GateKey, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plain = self.renormalise is None and self.table is None and not self.gates
        # Buffers of the right size: small tensors cost more to allocate than to fill.
        self._columns = self.rows.transpose(1, 2).contiguous()
        self._p = self.base.new_empty(self.base.shape[1:])
        self._lines = torch.empty_like(self.base)
        self._parts = self._lines.unbind(0)

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """The change along each row's unit, [B, T, 1]."""
        if torch.is_grad_enabled() and x.requires_grad:  # buffers cannot carry a gradient
            return self._differentiable(x)
        p, (change, low, high) = self._p, self._parts
        torch.bmm(x, self._columns, out=p)
        if not self.bounded:
            torch.addcmul(self.base[0], p, self.slope[0], out=change)
        else:
            torch.addcmul(self.base, p, self.slope, out=self._lines)
        if self.relative is not None:
            change.addcmul_(self.relative, torch.linalg.vector_norm(x, dim=-1, keepdim=True))
        return torch.clamp(change, low, high, out=change) if self.bounded else change

    def _differentiable(self, x: torch.Tensor) -> torch.Tensor:
        change, low, high = torch.addcmul(self.base, torch.bmm(x, self._columns), self.slope).unbind(0)
        if self.relative is not None:
            change = change + self.relative * torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return torch.clamp(change, low, high)


class GeneralEdit:
    """Any placements, in plan order. Computed in float32; the finished change is cast once."""

    __slots__ = ("coordinates", "passes")

    def __init__(self, passes: list[Pass], coordinates: Coordinates) -> None:
        self.passes, self.coordinates = passes, coordinates

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        """Edit in place."""
        for step in self.passes:
            if h.dtype == torch.float32 and step.plain:
                h.addcmul_(step.change(h), step.rows)
                continue
            x = h.float()
            move = step.change(x) * step.rows
            if step.plain:
                h.add_(move.to(h.dtype))
            else:
                _finish(h, x, move, step, self.coordinates)
        return h


def _finish(
    h: torch.Tensor, x: torch.Tensor, move: torch.Tensor, step: Pass, coordinates: Coordinates
) -> None:
    """The rest of a pass: delta tables, gates and renormalisation."""
    if step.table is not None:
        move = move + step.table
    touched = (move != 0).any(-1, keepdim=True)
    for key, sign, threshold in step.gates:
        touched &= (coordinates[key].to(h.device) * sign > threshold).unsqueeze(-1)
    moved = x + move
    if step.renormalise is not None:
        before, after = (torch.linalg.vector_norm(v, dim=-1, keepdim=True) for v in (x, moved))
        moved = torch.where((after > 0) & step.renormalise, moved * (before / after), moved)
    h.copy_(torch.where(touched, moved.to(h.dtype), h))
