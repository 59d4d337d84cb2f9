"""The statements of Yes/No question files (Anthropic's persona evaluations, arXiv 2212.09251), read as texts:
those that the behaviour agrees with against those that it rejects. The same files are read as question and
answer by default; this reading is chosen by name, `--layout statements`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trimtab.data.answers import MATCHING
from trimtab.data.contrast import Contrast
from trimtab.data.labelled import contrasts_of
from trimtab.data.options import Options
from trimtab.data.reading import records_of
from trimtab.errors import InputError

OPTIONS: frozenset[str] = frozenset()
LABELS = {"yes": 1, "no": 0}


def claims(path: Path) -> bool:
    """Never by itself: see the layout `answers`."""
    return False


def load(path: Path, options: Options) -> list[Contrast]:
    """One unpaired contrast of bare statements, named after the file."""
    return contrasts_of(_labelled(path), path)


def _labelled(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, row in records_of(path):
        if not isinstance(row, Mapping) or not {"statement", MATCHING} <= set(row):
            raise InputError(f"{where} needs the keys statement and {MATCHING}")
        label = LABELS.get(str(row[MATCHING]).strip().lower())
        if label is None:
            raise InputError(f"{where}: the answer that matches, {row[MATCHING]!r}, is not Yes or No")
        yield where, {"statement": row["statement"], "label": label}
