"""What one forward pass gives: a token for every row, and what was read and captured of the states before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from trimtab.engines.batches import readers
from trimtab.engines.mlx.capture import Gather
from trimtab.engines.mlx.schedule import Reads
from trimtab.engines.requests import Event
from trimtab.engines.rows import Row
from trimtab.readouts import Readout
from trimtab.sites import Site

#: States of some rows at one site, in order, and how many are whose.
Captured = tuple[Site, Gather, list[tuple[Row, int]]]


@dataclass(eq=False)
class Step:
    """What one forward pass gives, still on the device: a token per row, and what was read of the states before it."""

    rows: list[Row]
    tokens: mx.array
    logprobs: mx.array
    readings: list[Scores] = field(default_factory=list)
    captured: list[Captured] = field(default_factory=list)

    @property
    def arrays(self) -> list[mx.array | None]:
        """Everything to evaluate."""
        found: list[mx.array | None] = [self.tokens, self.logprobs]
        found += [a for r in self.readings for a in r.found.values()]
        return found + [g.states for _, g, _ in self.captured]

    def deliver(self) -> Iterator[Event]:
        """Hand every row that still runs its token, with what was captured and read for it."""
        tokens: Any = self.tokens.tolist()
        logprobs: Any = self.logprobs.tolist()
        readings = {i: v for r in self.readings for i, v in zip(r.rows, r.values(), strict=True)}
        for site, gather, places in self.captured:
            table = np.array(gather.states)
            at = 0
            for row, count in places:
                if row.finish is None:
                    row.states[site].append(table[at : at + count])
                at += count
        for i, row in enumerate(self.rows):
            if row.finish is None:
                event = row.advance(tokens[i], logprobs[i], readings.get(i))
                if event is not None:
                    yield event
                if row.finish is not None:
                    yield row.close()

    def extend(self, other: Step) -> None:
        """Go on with the rows of another step behind one's own."""
        for scores in other.readings:
            scores.rows = [len(self.rows) + i for i in scores.rows]
        self.rows = [*self.rows, *other.rows]
        self.tokens = mx.concatenate([self.tokens, other.tokens])
        self.logprobs = mx.concatenate([self.logprobs, other.logprobs])
        self.readings = [*self.readings, *other.readings]
        self.captured = [*self.captured, *other.captured]


class Scores:
    """Coordinates of one readout over some rows' last states, one matrix product per site."""

    def __init__(self, readout: Readout, rows: list[int], source: Sequence[int]) -> None:
        self.readout, self.rows, self._source = readout, rows, mx.array(list(source))
        self.found: dict[Site, mx.array] = {}

    def reader(self, site: Site):
        """What keeps the coordinates when `site` passes by."""

        def read(h: mx.array) -> None:
            self.found[site] = h[self._source, -1].astype(mx.float32) @ mx.array(self.readout.rows[site]).T

        return read

    def values(self) -> np.ndarray:
        """Calibrated scores [rows, L, C] float32."""
        r = self.readout
        scores = [(np.array(self.found[s]) - r.offset[s]) / r.scale[s] for s in r.sites]
        return np.stack(scores, axis=1).astype(np.float32)


def observe(rows: Sequence[Row], source: Sequence[int], reads: Reads) -> list[Scores]:
    """Reads of the last column for every readout among the rows; row i is batch row `source[i]`."""
    found = []
    for readout, index in readers(rows):
        found.append(Scores(readout, index, [source[i] for i in index]))
        for site in readout.sites:
            reads.setdefault((site, readout.at), []).append(found[-1].reader(site))
    return found


def gathered(key: tuple[Site, str], members: Sequence[tuple[Row, np.ndarray, int]], reads: Reads) -> Captured:
    """A gather of the states at `key` for rows with their columns and batch rows."""
    rows = np.concatenate([np.full(len(columns), u) for _, columns, u in members])
    gather = Gather(rows, np.concatenate([columns for _, columns, _ in members]))
    reads.setdefault(key, []).append(gather)
    return key[0], gather, [(row, len(columns)) for row, columns, _ in members]
