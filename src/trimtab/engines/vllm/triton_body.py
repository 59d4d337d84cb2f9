"""The arithmetic of `edits.GeneralEdit` as one Triton kernel: a program for each row that is edited.

Every placement of every row, in plan order, in one launch: numbers by row and placement, no branches on their kind. The
kernel has run under Triton's interpreter, where the tests hold it to the torch body; it has never run on a GPU, and the
engine refuses GPUs until it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from trimtab.engines.vllm.edits import GeneralEdit, Pass, Rows

#: Per row and placement: base 0, 1, 2, slope 0, 1, 2, relative.
NUMBERS = 7


@triton.jit
def _edit_rows(
    hidden, residual, bank, rows, units, numbers, turned, opened, tables, n, width, hidden_stride, residual_stride,
    SPLIT: tl.constexpr, TABLES: tl.constexpr, DEPTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0)
    row = tl.load(rows + i).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    place = hidden + row * hidden_stride + at
    part = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    x = part
    if SPLIT:
        x += tl.load(residual + row * residual_stride + at, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(DEPTH):  # pyright: ignore[reportGeneralTypeIssues]
        unit = tl.load(units + k * n + i).to(tl.int64)
        u = tl.load(bank + unit * width + at, mask=inside, other=0.0)
        q = numbers + k * 7 * n + i
        p = tl.sum(x * u, 0)
        change = tl.load(q) + p * tl.load(q + 3 * n)
        change += tl.load(q + 6 * n) * tl.sqrt(tl.sum(x * x, 0))
        change = tl.maximum(change, tl.load(q + n) + p * tl.load(q + 4 * n))
        change = tl.minimum(change, tl.load(q + 2 * n) + p * tl.load(q + 5 * n))
        moved = change * u
        if TABLES:
            moved += tl.load(tables + (k * n + i).to(tl.int64) * width + at, mask=inside, other=0.0)
        after = x + moved
        now = tl.sqrt(tl.sum(after * after, 0))
        some = tl.max(tl.where(moved != 0.0, 1, 0), 0)
        if (tl.load(turned + k * n + i) != 0) & (now > 0.0) & (some != 0):
            moved = after * (tl.sqrt(tl.sum(x * x, 0)) / now) - x
        moved = tl.where(tl.load(opened + k * n + i) != 0, moved, 0.0)
        x += moved
        total += moved
    touched = tl.max(tl.where(total != 0.0, 1, 0), 0) + tl.zeros([BLOCK], tl.int32)
    # A row that nothing moves is not written, and keeps its bits.
    tl.store(place, (part + total).to(hidden.dtype.element_ty), mask=inside & (touched > 0))


@dataclass(eq=False)
class Launch:
    """A `GeneralEdit` laid out for the kernel; gates are looked at when it is called: other layers feed them."""

    edit: GeneralEdit
    bank: torch.Tensor
    rows: torch.Tensor
    units: torch.Tensor
    numbers: torch.Tensor
    turned: torch.Tensor
    tables: torch.Tensor | None

    @classmethod
    def of(cls, edit: GeneralEdit) -> Launch:
        """Spread every number over the rows [n]."""
        bank = edit.passes[0].units.bank
        rows = _index(edit.rows, bank.device)
        n, passes = len(rows), edit.passes
        tables = None
        if any(p.table is not None for p in passes):
            empty = torch.zeros(n, bank.shape[1], device=bank.device)
            tables = torch.stack([empty if p.table is None else p.table for p in passes])
        return cls(
            edit, bank, rows,
            torch.stack([_units(p, n) for p in passes]),
            torch.stack([_numbers(p, n) for p in passes]),
            torch.stack([_spread(p.renormalise, n, bank.device).to(torch.int32) for p in passes]),
            tables,
        )  # fmt: skip

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Edit `hidden` in place."""
        n, width = len(self.rows), hidden.shape[1]
        opened = torch.ones(len(self.edit.passes), n, dtype=torch.int32, device=hidden.device)
        for k, step in enumerate(self.edit.passes):
            for gate in step.gates:
                opened[k] *= gate.opened()
        launch: Any = _edit_rows[(n,)]
        launch(
            hidden, hidden if residual is None else residual, self.bank, self.rows, self.units, self.numbers,
            self.turned, opened, opened if self.tables is None else self.tables, n, width, hidden.stride(0),
            0 if residual is None else residual.stride(0), SPLIT=residual is not None,
            TABLES=self.tables is not None, DEPTH=len(self.edit.passes), BLOCK=triton.next_power_of_2(width),
        )  # fmt: skip


def _index(rows: Rows, device: torch.device) -> torch.Tensor:
    if isinstance(rows, slice):
        return torch.arange(rows.start, rows.stop, dtype=torch.int32, device=device)
    return rows.to(device, torch.int32)


def _units(step: Pass, n: int) -> torch.Tensor:
    index, device = step.units.index, step.units.bank.device
    if isinstance(index, int):
        return torch.full((n,), index, dtype=torch.int32, device=device)
    return index.to(device, torch.int32)


def _spread(values: torch.Tensor | None, n: int, device: torch.device) -> torch.Tensor:
    """[n] of [n or 1, 1]; zeros for none."""
    return torch.zeros(n, device=device) if values is None else values.squeeze(-1).expand(n)


def _numbers(step: Pass, n: int) -> torch.Tensor:
    """[7, n]; a row without bounds has infinite ones."""
    parts = [*step.base, *step.slope, step.relative]
    return torch.stack([_spread(v, n, step.base.device) for v in parts]).contiguous()
