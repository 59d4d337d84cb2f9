"""Scored notes to labelled texts: `{"text": "…", "scores": {"joy": 0.9, "grief": 0.1}}`, one per line.

Per concept a note scored at the upper threshold or above is a positive, one below the lower threshold is a
negative; between, and where the concept has no score, it is left out and counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.data.reading import records_of
from trimtab.errors import InputError, UnknownName

PLACES: tuple[str, ...] = ("positive", "negative", "between", "unscored")


@dataclass(frozen=True)
class Threshold:
    """A score of `high` or more is a positive, one below `low` a negative."""

    concept: str
    low: float
    high: float

    @classmethod
    def of(cls, text: str) -> Threshold:
        """CONCEPT=HIGH (low is the same) or CONCEPT=LOW:HIGH."""
        concept, equals, numbers = text.rpartition("=")
        try:
            low, high = (float(n) for n in (numbers.split(":") * 2)[:2])
        except ValueError:
            low, high = 1.0, 0.0
        if not equals or not concept.strip() or not low <= high or numbers.count(":") > 1:
            raise InputError(
                f"a threshold is CONCEPT=HIGH or CONCEPT=LOW:HIGH with LOW <= HIGH, got {text!r}"
            )
        return cls(concept.strip(), low, high)


def label_notes(
    path: Path, thresholds: Sequence[Threshold]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, int]]]:
    """Rows of the layout `labelled`, and per concept how many notes went where."""
    notes = [_read(row, where) for where, row in records_of(path)]
    known = {name for _, scores in notes for name in scores}
    if not thresholds:
        raise InputError(
            f"give --threshold CONCEPT=NUMBER; {path} scores {', '.join(sorted(known)) or 'nothing'}"
        )
    rows: list[dict[str, Any]] = []
    counts: dict[str, dict[str, int]] = {}
    for limit in thresholds:
        if limit.concept not in known:
            raise UnknownName.of("concept", limit.concept, known, f"{path} has no score for it.")
        if limit.concept in counts:
            raise InputError(f"two thresholds for {limit.concept!r}; give one")
        found = counts[limit.concept] = dict.fromkeys(PLACES, 0)
        for text, scores in notes:
            place = _place(scores.get(limit.concept), limit)
            found[place] += 1
            if place in ("positive", "negative"):
                rows.append({"concept": limit.concept, "label": int(place == "positive"), "text": text})
        for side in ("positive", "negative"):
            if not found[side]:
                raise InputError(
                    f"no note of {path} is {side} for {limit.concept!r}: {found}; move its thresholds"
                )
    return rows, counts


def write_rows(rows: Sequence[Mapping[str, Any]], target: Path) -> None:
    """JSON lines."""
    target.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")


def _place(score: float | None, limit: Threshold) -> str:
    if score is None:
        return "unscored"
    if score >= limit.high:
        return "positive"
    return "negative" if score < limit.low else "between"


def _read(row: Any, where: str) -> tuple[str, dict[str, float]]:
    if not isinstance(row, Mapping) or not isinstance(row.get("text"), str) or not row["text"].strip():
        raise InputError(f'{where}: a note is {{"text": "…", "scores": {{"joy": 0.9}}}} with a text')
    scores = row.get("scores")
    if not isinstance(scores, Mapping):
        raise InputError(f"{where}: 'scores' maps concepts to numbers")
    for name, value in scores.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"{where}: the score of {name!r}, {value!r}, is not a number")
    return row["text"].strip(), {str(n): v for n, v in scores.items() if v is not None}
