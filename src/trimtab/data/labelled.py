"""Labelled statements: CSV, TSV or JSON lines of `statement` (or `text`) and `label`, 1 for and 0 against (RepE's
facts), with `concept` where a file holds several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trimtab.data.contrast import Contrast
from trimtab.data.options import Options
from trimtab.data.reading import first_record, is_blank, records_of
from trimtab.data.table import rows_of
from trimtab.errors import FormatError, InputError

OPTIONS: frozenset[str] = frozenset()
TEXT_COLUMNS = ("statement", "text")
LABELS = {"1": "positive", "true": "positive", "0": "negative", "false": "negative"}


def claims(path: Path) -> bool:
    """Tables with a column `label`, and JSON lines whose first record has a label."""
    if not path.is_file():
        return False
    if path.suffix in (".csv", ".tsv"):
        return not is_blank(path) and "label" in _header(next(rows_of(path))[1])
    return "label" in first_record(path)


def load(path: Path, options: Options) -> list[Contrast]:
    """One unpaired contrast per concept (the file's name where none is given)."""
    if path.suffix in (".csv", ".tsv"):
        rows = list(rows_of(path))
        header = _header(rows[0][1])
        return contrasts_of(((w, dict(zip(header, r))) for w, r in rows[1:]), path, header)
    return contrasts_of(records_of(path), path)


def contrasts_of(
    rows: Iterable[tuple[str, Any]], path: Path, header: Iterable[str] | None = None
) -> list[Contrast]:
    """Labelled rows, each with where it stands; repeats are read once, contradictions not at all."""
    if header is not None:
        _text_column(header, path)
    found: dict[str, tuple[dict[str, dict[str, None]], list[int]]] = {}
    for where, row in rows:
        if not isinstance(row, Mapping):
            raise InputError(f'{where}: a statement is {{"text": …, "label": 1}}, got {type(row).__name__}')
        column = _text_column(row, where)
        side = LABELS.get(str(row["label"]).strip().lower())
        if side is None:
            raise InputError(f"{where}: label {row['label']!r} is not 1 or 0")
        text = row[column]
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: the {column} is {'blank' if isinstance(text, str) else 'not text'}")
        name = str(row.get("concept") or path.stem)
        sides, repeated = found.setdefault(name, ({"positive": {}, "negative": {}}, [0]))
        repeated[0] += text.strip() in sides[side]
        sides[side][text.strip()] = None
    if not found and header is not None:
        raise InputError(f"{path} holds no texts below its column names")
    return [_contrast(name, *held, path) for name, held in found.items()]


def _contrast(name: str, sides: dict[str, dict[str, None]], repeated: list[int], path: Path) -> Contrast:
    notes = [f"{repeated[0]} repeated statements are read once"] if repeated[0] else []
    both = sides["positive"].keys() & sides["negative"].keys()
    if both:  # the published facts call the Nile the longest river both true and false
        notes.append(f"{len(both)} statements with both labels are left out, e.g. {min(both)!r}")
    positive, negative = (tuple(t for t in sides[s] if t not in both) for s in ("positive", "negative"))
    return Contrast(name, positive, negative, source=str(path), notes=tuple(notes))


def _header(cells: list[str]) -> list[str]:
    return [cell.strip().lower() for cell in cells]


def _text_column(names: Iterable[str], where: Path | str) -> str:
    names = list(names)
    column = next((c for c in TEXT_COLUMNS if c in names), None)
    if column is None or "label" not in names:
        raise FormatError(
            f"{where} needs the columns statement (or text) and label; it has {', '.join(map(str, names))}"
        )
    return column
