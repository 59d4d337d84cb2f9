"""A table of labelled statements: CSV with `statement` (or `text`) and `label`, 1 for and 0 against (RepE's
facts).
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from trimtab.data.contrast import Contrast
from trimtab.data.reading import text_of
from trimtab.errors import FormatError, InputError

TEXT_COLUMNS = ("statement", "text")
LABELS = {"1": "positive", "true": "positive", "0": "negative", "false": "negative"}


def claims(path: Path) -> bool:
    """CSV files."""
    return path.suffix == ".csv"


def load(path: Path, negatives: Path | None = None) -> list[Contrast]:
    """One unpaired contrast, named after the file; repeats are read once, contradictions not at all."""
    if negatives is not None:
        raise InputError(f"{path} has labels, which bring their own negatives; leave --negatives out")
    rows = csv.DictReader(io.StringIO(text_of(path)))
    header = rows.fieldnames or []
    column = next((c for c in TEXT_COLUMNS if c in header), None)
    if column is None or "label" not in header:
        raise FormatError(
            f"{path} needs the columns statement (or text) and label; it has {', '.join(header)}"
        )
    sides: dict[str, dict[str, int]] = {"positive": {}, "negative": {}}
    repeated = 0
    for row in rows:
        where = f"{path} line {rows.line_num}"
        side = LABELS.get((row["label"] or "").strip().lower())
        if side is None:
            raise InputError(f"{where}: label {row['label']!r} is not 1 or 0")
        text = (row[column] or "").strip()
        if not text:
            raise InputError(f"{where}: the statement is blank")
        repeated += text in sides[side]
        sides[side].setdefault(text, rows.line_num)
    notes = [f"{repeated} repeated statements are read once"] if repeated else []
    both = sides["positive"].keys() & sides["negative"].keys()
    if both:  # the published facts call the Nile the longest river both true and false
        notes.append(f"{len(both)} statements with both labels are left out, e.g. {min(both)!r}")
    positive, negative = (tuple(t for t in sides[s] if t not in both) for s in ("positive", "negative"))
    return [Contrast(path.stem, positive, negative, source=str(path), notes=tuple(notes))]
