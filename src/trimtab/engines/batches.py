"""What batches of rows have in common, whatever computes them: which run together, who reads with what, who leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trimtab.engines.joining import Part, Place
from trimtab.engines.requests import Request
from trimtab.engines.rows import Row
from trimtab.engines.tokenized import Tokenized
from trimtab.readouts import Readout
from trimtab.resolved import sites_of
from trimtab.sites import Site


def places_of(requests: Sequence[Request]) -> list[Place]:
    """A place for every sample of every request."""
    return [(i, j, r) for i, r in enumerate(requests) for j in range(r.sampling.n)]


def rows_at(engine: Tokenized, places: Iterable[Place], stream: bool) -> list[Row]:
    """A row per place; `stream` says that somebody sees its text as it grows."""
    return [Row(*place, engine.encoder, engine.ends, stream, engine.info.widths) for place in places]


def batches(lengths: Sequence[int], tokens: int, rows: int) -> list[list[int]]:
    """Indices in batches of similar length: at most `rows` rows and about `tokens` tokens, padding included."""
    out: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not out or len(out[-1]) >= rows or (len(out[-1]) + 1) * lengths[i] > tokens:
            out.append([])
        out[-1].append(i)
    return out


def readers(rows: Sequence[Row]) -> list[tuple[Readout, list[int]]]:
    """Each readout among the rows that run, with the indices of the rows that have it."""
    found: dict[int, tuple[Readout, list[int]]] = {}
    for i, row in enumerate(rows):
        readout = row.spec.readout
        if readout is not None and row.finish is None:
            found.setdefault(id(readout), (readout, []))[1].append(i)
    return list(found.values())


class RowPart(Part):
    """A part of a batch that is made of rows."""

    rows: list[Row]

    def keys(self) -> list[int]:
        """The requests of the rows that run."""
        return [r.request for r in self.rows if r.finish is None]

    def leave(self, key: int) -> None:
        """Stop the rows of a request; they are dropped with those that finish."""
        for row in self.rows:
            if row.request == key and row.finish is None:
                row.finish = "left"

    def wanted(self) -> set[Site]:
        """Sites that the rows edit or read, now or when a monitor says so."""
        found = sites_of(r.plan for r in self.rows)
        for row in self.rows:
            found |= set(row.states) | set(row.spec.readout.sites if row.spec.readout else ())
            found |= sites_of(row.spec.monitor.plans) if row.spec.monitor else set()
        return found
