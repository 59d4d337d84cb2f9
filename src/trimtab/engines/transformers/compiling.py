"""Edits of one site in one forward pass, compiled from the plans of a batch's rows.

`compile_edit` looks at the placements of every row at one site, at the positions that this forward processes, and
returns None (nothing acts), an `AddEdit` (only displacements: one in-place add) or a `GeneralEdit` (one pass per
placement, in plan order). Tokens that are not addressed keep their bits: an add of -0.0 changes no float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from trimtab.engines.placed import Placed
from trimtab.engines.transformers.kernel import AddEdit, Coordinates, GateKey, GeneralEdit, Pass
from trimtab.prompts import in_ranges
from trimtab.resolved import ResolvedGate, ResolvedPlacement
from trimtab.sites import Site


class Bank:
    """float32 tensors of plan vectors on one device, by content name; lives as long as a batch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._held: dict[str, torch.Tensor] = {}

    def get(self, name: str, vectors: Mapping[str, np.ndarray]) -> torch.Tensor:
        """The tensor of a named vector [width] or table [rows, width]."""
        if name not in self._held:
            self._held[name] = torch.tensor(vectors[name], dtype=torch.float32, device=self.device)
        return self._held[name]

    def stack(self, names: Sequence[tuple[str, Mapping[str, np.ndarray]] | None], width: int) -> torch.Tensor:
        """Rows [B, width]; None is a row of zeros."""
        index: dict[str, int] = {}
        rows = [torch.zeros(width, device=self.device)]
        picks = []
        for item in names:
            if item is None:
                picks.append(0)
                continue
            name, vectors = item
            if name not in index:
                index[name] = len(rows)
                rows.append(self.get(name, vectors))
            picks.append(index[name])
        return torch.stack(rows)[torch.tensor(picks, device=self.device)]


def activity(placement: ResolvedPlacement, positions: np.ndarray) -> np.ndarray:
    """Which of the absolute positions [T] a placement addresses; padding is -1 and never addressed."""
    mask = np.zeros(positions.shape, dtype=bool)
    for start, end in placement.ranges:
        mask |= (positions >= start) & (positions < (np.inf if end is None else end))
    return mask


def compile_edit(
    rows: Sequence[Sequence[Placed]],
    positions: np.ndarray,
    width: int,
    dtype: torch.dtype,
    bank: Bank,
    gates: list[GateKey],
    coordinates: Coordinates,
) -> AddEdit | GeneralEdit | None:
    """Compile one site: `rows[b]` are row b's placements there, `positions` [B, T] what this forward processes.

    Gate reads that the edit depends on are appended to `gates`; their values will be found in `coordinates`.
    """
    acting: list[list[tuple[Placed, np.ndarray]]] = []
    for placed, where in zip(rows, positions, strict=True):
        if len(where) == 1:
            here = int(where[0])
            found = [
                (p, np.ones(1, dtype=bool)) for p in placed if here >= 0 and in_ranges(here, p[0].ranges)
            ]
        else:
            found = [(p, m) for p in placed if (m := activity(p[0], where)).any()]
        acting.append(found)
    depth = max(map(len, acting), default=0)
    if not depth:
        return None
    columns = [[found[k] if k < len(found) else None for found in acting] for k in range(depth)]
    if all(_plain_add(p) for found in acting for (p, _), _ in found):
        return _compile_add(columns, positions, width, dtype, bank)
    return GeneralEdit(
        [_compile_pass(column, positions, width, bank, gates) for column in columns], coordinates
    )


def _plain_add(p: ResolvedPlacement) -> bool:
    return p.coefficients.adds and p.gate is None and not p.relative and not p.renormalise


Column = list[tuple[Placed, np.ndarray] | None]


def _names(column: Column) -> list[tuple[str, Mapping[str, np.ndarray]] | None]:
    """The unit vector of each row; None for no placement and for tables."""
    return [
        None if c is None or c[0][0].table_start is not None else (c[0][0].vector, c[0][1]) for c in column
    ]


def _compile_add(
    columns: list[Column], positions: np.ndarray, width: int, dtype: torch.dtype, bank: Bank
) -> AddEdit:
    units, weights, tables, covered = [], [], [], np.zeros(positions.shape, dtype=bool)
    for column in columns:
        weight = np.zeros(positions.shape, dtype=np.float32)
        for b, item in enumerate(column):
            if item is not None:
                weight[b] = item[1] * item[0][0].coefficients.shift
                covered[b] |= item[1]
        units.append(bank.stack(_names(column), width)[:, None])
        weights.append(weight)
        tables.append(_table(column, positions, width, bank))

    # Where every token of a row moves alike, one [B, 1, W] row is enough (padding may move along: nothing reads it).
    real, rows = positions >= 0, np.arange(len(positions))
    firsts = [w[rows, real.argmax(1)][:, None] for w in weights]
    alike = all(t is None for t in tables) and all(
        (w == f)[real].all() for w, f in zip(weights, firsts, strict=True)
    )
    if alike:
        weights, covered = firsts, covered.any(1, keepdims=True)
    scales = [torch.from_numpy(w).to(bank.device).unsqueeze(-1) for w in weights]
    untouched = torch.from_numpy(~covered).to(bank.device).unsqueeze(-1)

    def build() -> torch.Tensor:
        delta = torch.zeros((), device=bank.device)
        for unit, scale, table in zip(units, scales, tables, strict=True):
            delta = delta + unit * scale
            if table is not None:
                delta = delta + table
        return delta.masked_fill_(untouched, -0.0).to(dtype)

    return AddEdit(build() if alike or positions.shape[1] == 1 else None, build)


def _table(column: Column, positions: np.ndarray, width: int, bank: Bank) -> torch.Tensor | None:
    """Displacements [B, T, W] of the delta tables in a column; None without any."""
    if not any(c is not None and c[0][0].table_start is not None for c in column):
        return None
    out = torch.zeros(*positions.shape, width, device=bank.device)
    for b, item in enumerate(column):
        if item is None or item[0][0].table_start is None:
            continue
        (p, vectors), mask = item
        table = bank.get(p.vector, vectors)
        at = positions[b] - p.table_start
        inside = torch.from_numpy(mask & (at >= 0) & (at < len(table))).to(bank.device)
        index = torch.from_numpy(np.clip(at, 0, len(table) - 1)).to(bank.device)
        out[b] = torch.where(inside[:, None], table[index] * p.coefficients.shift, out[b])
    return out


def _compile_pass(
    column: Column, positions: np.ndarray, width: int, bank: Bank, gates: list[GateKey]
) -> Pass:
    shape = positions.shape
    base, slope = np.zeros((2, 3, *shape), dtype=np.float64)
    base[1], base[2] = -np.inf, np.inf
    relative, renormalise = np.zeros(shape), np.zeros((len(column), 1), dtype=bool)
    for b, item in enumerate(column):
        if item is None:
            continue
        p, mask = item[0][0], item[1]
        c, s = p.coefficients, item[0][0].coefficients.strength
        renormalise[b] = p.renormalise
        if p.table_start is not None:
            continue
        slope[0, b, mask] = s * (c.gain - 1.0)
        (relative if p.relative else base[0])[b, mask] = s * c.shift
        for i, bound in ((1, c.low), (2, c.high)):
            if np.isfinite(bound):
                base[i, b, mask], slope[i, b, mask] = s * bound, -s

    def tensor(a: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(a if a.dtype == bool else a.astype(np.float32)).to(bank.device).unsqueeze(-1)

    return Pass(
        rows=bank.stack(_names(column), width)[:, None],
        base=tensor(base),
        slope=tensor(slope),
        bounded=bool(np.isfinite(base[1:]).any()),
        relative=tensor(relative) if relative.any() else None,
        renormalise=tensor(renormalise) if renormalise.any() else None,
        table=_table(column, positions, width, bank),
        gates=_compile_gates(column, bank, gates),
    )


def _compile_gates(
    column: Column, bank: Bank, gates: list[GateKey]
) -> list[tuple[GateKey, torch.Tensor, torch.Tensor]]:
    """One comparison `coordinate * sign > threshold` per gate site; rows without a gate compare 0 > -1."""
    found: dict[tuple[Site, str], list[tuple[int, ResolvedGate, Mapping[str, np.ndarray]]]] = {}
    for b, item in enumerate(column):
        if item is not None and (gate := item[0][0].gate) is not None:
            found.setdefault((gate.site, gate.at), []).append((b, gate, item[0][1]))
    out = []
    for (site, at), members in found.items():
        names: list[tuple[str, Mapping[str, np.ndarray]] | None] = [None] * len(column)
        sign, threshold = torch.zeros(len(column), 1), torch.full((len(column), 1), -1.0)
        for b, gate, vectors in members:
            names[b] = (gate.vector, vectors)
            sign[b] = 1.0 if gate.above else -1.0
            threshold[b] = gate.threshold * float(sign[b])
        _, gate, vectors = members[0]
        key = GateKey(site, at, bank.stack(names, vectors[gate.vector].shape[-1]))
        gates.append(key)
        out.append((key, sign.to(bank.device), threshold.to(bank.device)))
    return out
