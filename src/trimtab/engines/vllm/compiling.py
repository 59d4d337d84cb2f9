"""From segments of a batch to the edit of each layer: rows, bank indices and numbers, a column per placement depth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trimtab.engines.vllm.bank import Bank
from trimtab.engines.vllm.edits import (
    AddEdit,
    GateCheck,
    GeneralEdit,
    Measure,
    Pass,
    Rows,
    Stage,
    Units,
)
from trimtab.engines.vllm.programs import Program, Slot
from trimtab.sites import Site


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) of the batch, at absolute positions from `position` on, under one program."""

    start: int
    stop: int
    position: int
    program: Program

    @property
    def count(self) -> int:
        return self.stop - self.start


#: The segments that a layer edits, each with its slots there.
Members = list[tuple[Segment, tuple[Slot, ...]]]


def compile_edits(segments: Sequence[Segment], bank: Bank, stages: dict[int, Stage]) -> None:
    """Add the edits, and the gate measures that they need, to the stages of their layers."""
    by_site: dict[Site, Members] = {}
    for segment in segments:
        for site, slots in segment.program.slots.items():
            by_site.setdefault(site, []).append((segment, slots))
    for site, members in by_site.items():
        rows = rows_of_spans([(s.start, s.stop) for s, _ in members])
        columns = [
            [slots[k] if k < len(slots) else None for _, slots in members]
            for k in range(max(len(slots) for _, slots in members))
        ]
        segs = [s for s, _ in members]
        if all(slot is None or _plain_add(slot) for column in columns for slot in column):
            edit: AddEdit | GeneralEdit = _compile_add(rows, segs, columns, bank)
        else:
            passes = [_compile_pass(rows, segs, column, bank, stages) for column in columns]
            edit = GeneralEdit(rows, passes)
        stages.setdefault(site.layer, Stage()).edit = edit


def rows_of_spans(spans: Sequence[tuple[int, int]]) -> Rows:
    """The rows of ascending half-open spans: a slice where they touch, an index where they do not."""
    if all(a[1] == b[0] for a, b in itertools.pairwise(spans)):
        return slice(spans[0][0], spans[-1][1])
    return torch.from_numpy(np.concatenate([np.arange(a, b) for a, b in spans]))


def _plain_add(slot: Slot) -> bool:
    p = slot.placement
    return p.coefficients.adds and p.gate is None and not p.relative and not p.renormalise


def _spread(values: np.ndarray, segments: Sequence[Segment], device: torch.device) -> torch.Tensor:
    """A number per segment [..., m] as a number per row [..., n, 1]; one segment stays one row."""
    if len(segments) > 1:
        values = np.repeat(values, [s.count for s in segments], axis=-1)
    kept = values if values.dtype == bool else values.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(kept)).to(device).unsqueeze(-1)


def _units(index: Sequence[int], segments: Sequence[Segment], bank: Bank) -> Units:
    if len(set(index)) == 1:
        return Units(bank.rows, index[0])
    spread = np.repeat(np.array(index, dtype=np.int64), [s.count for s in segments])
    return Units(bank.rows, torch.from_numpy(spread).to(bank.rows.device))


def _row(slot: Slot | None) -> int:
    return 0 if slot is None else slot.row


def _compile_add(
    rows: Rows, segments: list[Segment], columns: list[list[Slot | None]], bank: Bank
) -> AddEdit:
    delta = torch.zeros(1, bank.rows.shape[1], device=bank.rows.device)
    for column in columns:
        shift = np.array(
            [
                0.0 if c is None or c.placement.table_start is not None else c.placement.coefficients.shift
                for c in column
            ]
        )
        units = _units([_row(c) for c in column], segments, bank)
        delta = delta + units.get() * _spread(shift, segments, bank.rows.device)
        table = _table(column, segments, bank)
        if table is not None:
            delta = delta + table
    return AddEdit(rows, delta)


def _compile_pass(
    rows: Rows, segments: list[Segment], column: list[Slot | None], bank: Bank, stages: dict[int, Stage]
) -> Pass:
    m, device = len(segments), bank.rows.device
    base, slope = np.zeros((2, 3, m))
    base[1], base[2] = -np.inf, np.inf
    relative, renormalise = np.zeros(m), np.zeros(m, dtype=bool)
    for i, slot in enumerate(column):
        if slot is None:
            continue
        p, c = slot.placement, slot.placement.coefficients
        renormalise[i] = p.renormalise
        if p.table_start is not None:
            continue
        slope[0, i] = c.strength * (c.gain - 1.0)
        (relative if p.relative else base[0])[i] = c.strength * c.shift
        for k, bound in ((1, c.low), (2, c.high)):
            if np.isfinite(bound):
                base[k, i], slope[k, i] = c.strength * bound, -c.strength
    return Pass(
        units=_units([_row(c) for c in column], segments, bank),
        base=_spread(base, segments, device),
        slope=_spread(slope, segments, device),
        bounded=bool(np.isfinite(base[1:]).any()),
        relative=_spread(relative, segments, device) if relative.any() else None,
        renormalise=_spread(renormalise, segments, device) if renormalise.any() else None,
        table=_table(column, segments, bank),
        gates=_gates(rows, segments, column, bank, stages),
    )


def _table(column: list[Slot | None], segments: list[Segment], bank: Bank) -> torch.Tensor | None:
    """Displacements [n, width] of the delta tables in a column; None without any."""
    if not any(c is not None and c.placement.table_start is not None for c in column):
        return None
    out = torch.zeros(sum(s.count for s in segments), bank.rows.shape[1], device=bank.rows.device)
    at = 0
    for slot, segment in zip(column, segments):
        if slot is not None and slot.placement.table_start is not None:
            table = bank.tables[slot.placement.vector]
            first = segment.position - slot.placement.table_start
            low, high = max(first, 0), min(first + segment.count, len(table))
            if low < high:
                rows = out[at + low - first : at + high - first]
                torch.mul(table[low:high], slot.placement.coefficients.shift, out=rows)
        at += segment.count
    return out


def _gates(
    rows: Rows, segments: list[Segment], column: list[Slot | None], bank: Bank, stages: dict[int, Stage]
) -> list[GateCheck]:
    """One check per gate site and time; segments whose gate is elsewhere, or that have none, pass it."""
    found: dict[tuple[int, str], list[int]] = {}
    for i, slot in enumerate(column):
        if slot is not None and slot.gate is not None:
            found.setdefault((slot.gate.site.layer, slot.gate.at), []).append(i)
    checks = []
    for (layer, at), members in found.items():
        index, sign, threshold = [0] * len(column), np.zeros(len(column)), np.full(len(column), -1.0)
        for i in members:
            slot = column[i]
            assert slot is not None and slot.gate is not None
            sign[i] = 1.0 if slot.gate.above else -1.0
            index[i], threshold[i] = slot.gate_row, slot.gate.threshold * sign[i]
        measure = Measure(rows, _units(index, segments, bank), layer=layer)
        stage = stages.setdefault(layer, Stage())
        (stage.before if at == "before" else stage.after).append(measure)
        device = bank.rows.device
        checks.append(
            GateCheck(
                measure,
                _spread(sign, segments, device).squeeze(-1),
                _spread(threshold, segments, device).squeeze(-1),
            )
        )
    return checks
