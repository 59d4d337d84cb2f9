"""A table of pairs: CSV or TSV with the columns `positive` and `negative`, and perhaps `concept` and `group`.

A table of exactly two columns may leave the names out: the first column is then positive. Where the first row
could be names after all (a cell that is one word), it is refused: guessing would either lose a pair or read a
heading as a text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from trimtab.data.contrast import Contrast
from trimtab.data.options import Options
from trimtab.data.pairs import KEYS, contrasts_of
from trimtab.data.reading import text_of
from trimtab.errors import FormatError, InputError

OPTIONS: frozenset[str] = frozenset()


def claims(path: Path) -> bool:
    """CSV and TSV files."""
    return path.is_file() and path.suffix in (".csv", ".tsv")


def load(path: Path, options: Options) -> list[Contrast]:
    """One paired contrast per concept."""
    rows = list(rows_of(path))
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if {"positive", "negative"} <= set(header):
        unknown = [name for name in header if name not in KEYS]
        notes = (f"columns of {path.name} that are not read: {', '.join(unknown)}",) if unknown else ()
        return contrasts_of(((w, _named(w, header, r)) for w, r in rows[1:]), path, notes)
    _check_nameless(path, rows)
    notes = (f"{path.name} has no column names: its first column is positive, its second negative",)
    return contrasts_of(((w, dict(zip(KEYS, r))) for w, r in rows), path, notes)


def rows_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(where, cells) of every row that is not blank; the suffix says comma or tab."""
    tabs = path.suffix == ".tsv"
    # A tab-separated file has no quoting by custom: a text that opens with a quotation mark is only that.
    reader = csv.reader(
        io.StringIO(text_of(path), newline=""),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
    )
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield f"{path} line {reader.line_num}", row
    except csv.Error as error:
        raise FormatError(f"{path} line {reader.line_num}: not a table: {error}") from error


def _named(where: str, header: list[str], row: list[str]) -> dict[str, str]:
    if len(row) != len(header):
        raise FormatError(
            f"{where} has {len(row)} cells, and the header has {len(header)}; quote commas in texts"
        )
    return {name: cell for name, cell in zip(header, row) if name in KEYS}


def _check_nameless(path: Path, rows: list[tuple[str, list[str]]]) -> None:
    for where, row in rows:
        if len(row) != 2:
            raise FormatError(
                f"{where}: a table needs the columns positive and negative, or exactly two columns without "
                f"names; this row has {len(row)}: {', '.join(row)[:80]}"
            )
    first = rows[0][1]
    if any(len(cell.split()) < 2 for cell in first):
        raise InputError(
            f"{path} needs the columns positive and negative (or statement and label); its first row, "
            f"{', '.join(first)[:80]!r}, may be names or a pair: name the columns in a first line "
            f"positive{'<tab>' if path.suffix == '.tsv' else ','}negative"
        )
