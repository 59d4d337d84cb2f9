"""The kernel: edits of one site in one forward pass, compiled from the plans of a batch's rows.

`compile_edit` returns None (nothing acts), an addition (displacements that no state decides) or the general edit: the
table of `interventions.edit`, one pass per placement, in plan order, in float32. The finished edit is cast once to the
dtype of the states, and a token that is not addressed, or whose change is 0, keeps its bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from trimtab.engines.mlx.stations import Edit
from trimtab.engines.placed import Placed
from trimtab.prompts import in_ranges
from trimtab.resolved import ResolvedGate, ResolvedPlacement
from trimtab.sites import Site

#: A placement with the vectors of its plan, and where it acts among the tokens [T] of its row.
Acting = tuple[ResolvedPlacement, Mapping[str, np.ndarray], np.ndarray]
#: The k-th placement of every row; None where a row has fewer, or its k-th does not act on these tokens.
Column = list[Acting | None]


@dataclass(eq=False)
class GateRead:
    """The coordinates that gates of a later edit compare: unit rows [B, 1, width], taken where `site` passes by."""

    site: Site
    at: str
    rows: mx.array
    found: mx.array | None = None

    def __call__(self, h: mx.array) -> None:
        """Keep the coordinates [B, T, 1] of the states."""
        self.found = (h.astype(mx.float32) * self.rows).sum(-1, keepdims=True)


@dataclass(eq=False)
class Pass:
    """The k-th placement of every row. All arrays broadcast against [B, T, 1]; a token that is not addressed has
    `active` false. With p the coordinates, the change along the unit row is strength * clamp(x, low - p, high - p),
    where x = (gain - 1) p + shift."""

    units: mx.array
    gain: mx.array
    shift: mx.array
    low: mx.array
    high: mx.array
    strength: mx.array
    active: mx.array
    relative: mx.array | None = None
    renormalise: mx.array | None = None
    table: mx.array | None = None
    gates: list[tuple[GateRead, mx.array, mx.array]] = field(default_factory=list)

    def __call__(self, wide: mx.array) -> tuple[mx.array, mx.array]:
        """(changed states [B, T, W] float32, which tokens changed [B, T, 1])."""
        p = (wide * self.units).sum(-1, keepdims=True)
        norm = mx.linalg.norm(wide, axis=-1, keepdims=True)
        shift = (
            self.shift if self.relative is None else mx.where(self.relative, self.shift * norm, self.shift)
        )
        change = (
            mx.minimum(mx.maximum((self.gain - 1) * p + shift, self.low - p), self.high - p) * self.strength
        )
        delta = change * self.units
        active = mx.logical_and(self.active, change != 0)
        if self.table is not None:
            delta = delta + self.table
            active = mx.logical_or(active, mx.any(self.table != 0, axis=-1, keepdims=True))
        for read, sign, threshold in self.gates:
            assert read.found is not None
            active = mx.logical_and(active, sign * read.found > threshold)
        moved = wide + delta
        if self.renormalise is not None:
            length = mx.linalg.norm(moved, axis=-1, keepdims=True)
            kept = moved * (norm / mx.where(length > 0, length, 1.0))
            moved = mx.where(mx.logical_and(self.renormalise, length > 0), kept, moved)
        return mx.where(active, moved, wide), active


def general(passes: Sequence[Pass]) -> Edit:
    """All placements in order; untouched tokens keep their bits."""

    def edit(h: mx.array) -> mx.array:
        wide, touched = h.astype(mx.float32), None
        for step in passes:
            wide, active = step(wide)
            touched = active if touched is None else mx.logical_or(touched, active)
        assert touched is not None
        return mx.where(touched, wide.astype(h.dtype), h)

    return edit


def addition(delta: mx.array) -> Edit:
    """h + delta, with delta [B or 1, T or 1, W] of the states' dtype and -0.0 where nothing is added."""
    return lambda h: h + delta


def compile_edit(
    placed: Sequence[Sequence[Placed]],
    positions: np.ndarray,
    width: int,
    dtype: mx.Dtype,
    reads: list[GateRead],
) -> Edit | None:
    """The edit of one site for tokens at absolute `positions` [B, T] (-1: padding), or None. Appends gate reads."""
    columns = _columns(placed, positions)
    if not columns:
        return None
    items = [item for column in columns for item in column if item is not None]
    if all(p.coefficients.adds and not (p.relative or p.renormalise or p.gate) for p, _, _ in items):
        return addition(_delta(columns, positions, width).astype(dtype))
    return general([_compile_pass(column, positions, width, reads) for column in columns])


def _columns(placed: Sequence[Sequence[Placed]], positions: np.ndarray) -> list[Column]:
    rows: list[list[Acting]] = []
    for b, items in enumerate(placed):
        acting = []
        for p, vectors in items:
            mask = np.array([t >= 0 and in_ranges(int(t), p.ranges) for t in positions[b]])
            if mask.any():
                acting.append((p, vectors, mask))
        rows.append(acting)
    depth = max(map(len, rows), default=0)
    return [[row[k] if k < len(row) else None for row in rows] for k in range(depth)]


def _delta(columns: Sequence[Column], positions: np.ndarray, width: int) -> mx.array:
    """The sum of all displacements; one token stands for a row whose tokens are all displaced alike."""
    batch, length = positions.shape
    uniform = all(
        item is None or (item[0].table_start is None and item[2][positions[b] >= 0].all())
        for column in columns
        for b, item in enumerate(column)
    )
    out = np.zeros((batch, 1 if uniform else length, width), dtype=np.float64)
    touched = np.zeros((batch, out.shape[1], 1), dtype=bool)
    for column in columns:
        for b, item in enumerate(column):
            if item is None:
                continue
            p, vectors, mask = item
            if p.table_start is not None:
                rows, inside = _table_rows(p, vectors, positions[b], mask)
                out[b][inside] += rows
                touched[b][inside] = True
                continue
            at = slice(None) if uniform else mask
            out[b, at] += p.coefficients.shift * vectors[p.vector].astype(np.float64)
            touched[b, at] = True
    same = uniform and batch > 1 and np.array_equal(out, np.broadcast_to(out[:1], out.shape))
    out = np.where(touched, out, -0.0).astype(np.float32)
    return mx.array(out[:1] if same else out)


def _table_rows(
    p: ResolvedPlacement, vectors: Mapping[str, np.ndarray], positions: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(displacements [n, width], which tokens [T] they belong to) of a delta table."""
    assert p.table_start is not None
    table, at = vectors[p.vector], positions - p.table_start
    inside = mask & (at >= 0) & (at < len(table))
    return p.coefficients.shift * table[at[inside]].astype(np.float64), inside


def _compile_pass(column: Column, positions: np.ndarray, width: int, reads: list[GateRead]) -> Pass:
    batch, length = positions.shape
    names = ("gain", "shift", "low", "high", "strength")
    numbers = {n: np.zeros((batch, 1, 1), np.float32) for n in names}
    numbers["low"][:], numbers["high"][:] = -np.inf, np.inf
    units = np.zeros((batch, 1, width), np.float32)
    active, relative, renormalise = (np.zeros((batch, n, 1), bool) for n in (length, 1, 1))
    numbers["gain"][:] = 1
    table = None
    for b, item in enumerate(column):
        if item is None:
            continue
        p, vectors, mask = item
        renormalise[b], relative[b] = p.renormalise, p.relative
        if p.table_start is not None:
            table = np.zeros((batch, length, width), np.float32) if table is None else table
            rows, inside = _table_rows(p, vectors, positions[b], mask)
            table[b][inside] = rows
            continue
        active[b, :, 0], units[b, 0] = mask, vectors[p.vector]
        for n in names:
            numbers[n][b] = getattr(p.coefficients, n)
    return Pass(
        units=mx.array(units),
        active=mx.array(active),
        relative=mx.array(relative) if relative.any() else None,
        renormalise=mx.array(renormalise) if renormalise.any() else None,
        table=None if table is None else mx.array(table),
        gates=_compile_gates(column, reads),
        **{n: mx.array(v) for n, v in numbers.items()},
    )


def _compile_gates(column: Column, reads: list[GateRead]) -> list[tuple[GateRead, mx.array, mx.array]]:
    """One comparison `sign * coordinate > threshold` per gate site; rows without a gate compare 0 > -1."""
    found: dict[tuple[Site, str], list[tuple[int, ResolvedGate, np.ndarray]]] = {}
    for b, item in enumerate(column):
        if item is not None and (gate := item[0].gate) is not None:
            found.setdefault((gate.site, gate.at), []).append((b, gate, item[1][gate.vector]))
    out = []
    for (site, at), members in found.items():
        rows = np.zeros((len(column), 1, members[0][2].shape[-1]), np.float32)
        sign, threshold = (
            np.zeros((len(column), 1, 1), np.float32),
            np.full((len(column), 1, 1), -1.0, np.float32),
        )
        for b, gate, vector in members:
            rows[b, 0] = vector
            sign[b] = 1.0 if gate.above else -1.0
            threshold[b] = gate.threshold * (1.0 if gate.above else -1.0)
        reads.append(GateRead(site, at, mx.array(rows)))
        out.append((reads[-1], mx.array(sign), mx.array(threshold)))
    return out
