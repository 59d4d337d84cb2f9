"""Tables for a paper: one set of figures as Markdown, as CSV in full precision, and as HTML."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.errors import InputError
from trimtab.evaluation.statistics import Estimate
from trimtab.pages import document

NONE = "–"
KINDS = ("text", "number", "estimate", "range")


@dataclass(frozen=True)
class Column:
    """`key` is its name in the CSV, `head` in print; `form` formats each number. An "estimate" is three columns of the
    CSV (key, key_low, key_high), a "range" two."""

    key: str
    head: str
    form: str = ""
    kind: str = "number"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"a column holds {', '.join(KINDS)}; got {self.kind!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """Its columns in the CSV."""
        ends = (f"{self.key}_low", f"{self.key}_high")
        return {"estimate": (self.key, *ends), "range": ends}.get(self.kind, (self.key,))

    def shown(self, value: Any) -> str:
        """One cell in print."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return NONE
        if isinstance(value, Estimate):
            bounds = f" [{self._number(value.low)}, {self._number(value.high)}]"
            return self._number(value.mean) + ("" if math.isnan(value.low) else bounds)
        if isinstance(value, tuple):
            return f"{self._number(value[0])} to {self._number(value[1])}"
        if isinstance(value, bool):
            return "yes" if value else "no"
        return str(value) if self.kind == "text" else self._number(value)

    def _number(self, value: float) -> str:
        return NONE if math.isnan(value) else format(value, self.form).replace("-", "−")

    def figures(self, value: Any) -> list[Any]:
        """One cell's columns of the CSV, unrounded; empty where there is no number."""
        if isinstance(value, Estimate):
            found: list[Any] = [value.mean, value.low, value.high]
        elif self.kind == "range" and value is not None:
            found = [float(v) for v in value]
        else:
            found = [value] + [None] * (len(self.names) - 1)
        return ["" if v is None or (isinstance(v, float) and math.isnan(v)) else v for v in found]


@dataclass(frozen=True)
class Paper:
    """A table under a `title`. `rows` map a column's key to its cell; `notes` say what n is and what was tried. `best`
    and `dim` are the indices of rows to point out and to step back, on a page."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()
    best: frozenset[int] = frozenset()
    dim: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        keys = {c.key for c in self.columns}
        for row in self.rows:
            if extra := set(row) - keys:
                raise InputError(f"the table {self.name!r} has no column {', '.join(sorted(extra))}")

    def part(self, keys: Sequence[str], title: str, notes: tuple[str, ...] = ()) -> Paper:
        """Some of its columns, for a page on which all of them side by side would not be read."""
        columns = tuple(c for c in self.columns if c.key in keys)
        rows = tuple({k: v for k, v in row.items() if k in keys} for row in self.rows)
        return Paper(self.name, title, columns, rows, notes, self.best, self.dim)

    def cells(self) -> list[list[str]]:
        """Every row in print."""
        return [[c.shown(row.get(c.key)) for c in self.columns] for row in self.rows]

    def markdown(self) -> str:
        """A pipe table with its title and notes."""
        lines = [[c.head for c in self.columns], *self.cells()]
        marks = ["---" if c.kind == "text" else "---:" for c in self.columns]
        table = [_piped(lines[0]), _piped(marks), *map(_piped, lines[1:])]
        return "\n".join([f"## {self.title}", "", *table, *(f"\n{n}" for n in self.notes)]) + "\n"

    def csv(self) -> str:
        """Header and rows; numbers as they were measured."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([n for c in self.columns for n in c.names])
        for row in self.rows:
            writer.writerow([v for c in self.columns for v in c.figures(row.get(c.key))])
        return out.getvalue()

    def html(self) -> str:
        """For a page."""
        rows = [
            ("bestrow" if i in self.best else "dim" if i in self.dim else "", [html.escape(c) for c in cells])
            for i, cells in enumerate(self.cells())
        ]
        kind = "left" if sum(c.kind == "text" for c in self.columns) > 1 else ""
        heads = [html.escape(c.head) for c in self.columns]
        notes = "".join(f'<p class="soft small">{html.escape(n)}</p>' for n in self.notes)
        return document.table(heads, rows, html.escape(self.title), kind) + notes


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"
