"""Pairs as JSON lines (or a JSON list): `{"positive": …, "negative": …, "concept": "happy", "group": "scene 3"}`.

Each side is text or `{"messages": [{"role": …, "content": …}, …]}`. Without "concept" the file's name is the
concept; without "group" each pair is its own group. "positive_score" and "negative_score" are a judge's marks,
for methods that select by them; a text without one has no mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from trimtab.data.contrast import Contrast, Item, as_item
from trimtab.data.options import Options
from trimtab.data.reading import first_record, records_of
from trimtab.errors import InputError, UnknownName

OPTIONS: frozenset[str] = frozenset()
MARKS = ("positive_score", "negative_score")
KEYS = ("positive", "negative", "concept", "group", *MARKS)
Pair = tuple[Item, Item, str, float | None, float | None]


def claims(path: Path) -> bool:
    """Files of JSON lines, and JSON lists of pairs."""
    if path.suffix == ".json":
        return bool({"positive", "negative"} & set(first_record(path)))
    return path.is_file() and path.suffix in (".jsonl", ".ndjson")


def load(path: Path, options: Options) -> list[Contrast]:
    """One paired contrast per concept, in order of appearance."""
    return contrasts_of(records_of(path), path)


def contrasts_of(rows: Iterable[tuple[str, Any]], path: Path, notes: tuple[str, ...] = ()) -> list[Contrast]:
    """Rows of pairs, each with where it stands, as one paired contrast per concept; notes go to the first."""
    found: dict[str, list[Pair]] = {}
    for where, row in rows:
        concept, pair = _read(row, path, where)
        found.setdefault(concept, []).append(pair)
    made = [_contrast(concept, pairs, path) for concept, pairs in found.items()]
    return [made[0].noted(notes), *made[1:]] if made and notes else made


def _read(row: Any, path: Path, where: str) -> tuple[str, Pair]:
    if not isinstance(row, Mapping):
        raise InputError(f'{where}: a pair is {{"positive": …, "negative": …}}, got {type(row).__name__}')
    for key in row:
        if key not in KEYS:
            raise UnknownName.of("key", key, KEYS, f"It stands in {where}.")
    for side in ("positive", "negative"):
        if row.get(side) in (None, "", []):
            raise InputError(f"{where} is one-sided: {side!r} is missing or empty; a pair needs both sides")
    positive, negative = (as_item(row[s], f"{where}, {s!r}") for s in ("positive", "negative"))
    group = row.get("group") or where.removeprefix(f"{path} ")
    first, second = (_mark(row.get(key), f"{where}, {key!r}") for key in MARKS)
    return str(row.get("concept") or path.stem), (positive, negative, str(group), first, second)


def _mark(value: Any, where: str) -> float | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)):
        return value
    raise InputError(f"{where}: a judge's mark is a number or null, got {value!r}")


def _contrast(concept: str, pairs: list[Pair], path: Path) -> Contrast:
    positive, negative, groups, *marks = zip(*pairs, strict=True)
    judged = any(m is not None for side in marks for m in side)
    scores, negative_scores = marks if judged else ((), ())
    return Contrast(
        concept,
        positive,
        negative,
        paired=True,
        groups=groups,
        source=str(path),
        scores=scores,
        negative_scores=negative_scores,
    )
