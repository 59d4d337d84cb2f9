"""What replies look like, per condition and per question: length, ends, repetition, how many words they differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.scorers.repetition import distinct, repeated_share
from trimtab.evaluation.statistics import Estimate, by_item, mean_interval

#: A share of replies cut at the token limit that differs by more than this between conditions makes them incomparable.
CUT_DIFFERENCE = 0.05


@dataclass(frozen=True)
class Summary:
    """Replies of one condition (or to one question): mean tokens with its interval over items, share cut at the token
    limit, share that is empty, mean distinct-2 and largest repeated share."""

    name: str
    replies: int
    items: int
    tokens: Estimate
    cut: float
    empty: float
    distinct_2: float | None
    repeated: float | None


def summarise(rows: Sequence[Mapping[str, Any]], key: str) -> list[Summary]:
    """One summary per value of `key` ("condition" or "item"), in order of appearance."""
    if not rows:
        raise InputError("there are no replies")
    other = "item" if key == "condition" else "condition"
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row[key]), []).append(row)
    return [_summary(name, part, other) for name, part in groups.items()]


def _summary(name: str, rows: Sequence[Mapping[str, Any]], unit: str) -> Summary:
    tokens = by_item([float(r["tokens"]) for r in rows], [r[unit] for r in rows])
    words = [str(r["answer"]).lower().split() for r in rows]
    pairs = [d for w in words if (d := distinct(w)) is not None]
    repeats = [s for w in words if (s := repeated_share(w)) is not None]
    return Summary(
        name,
        len(rows),
        len(tokens),
        mean_interval(tokens),
        float(np.mean([r["finish"] == "length" for r in rows])),
        float(np.mean([not w for w in words])),
        float(np.mean(pairs)) if pairs else None,
        float(np.mean(repeats)) if repeats else None,
    )


def cut_warning(conditions: Sequence[Summary]) -> str | None:
    """What must be said where replies are cut at the limit more often under one condition than under another."""
    cuts = [s.cut for s in conditions]
    if max(cuts) - min(cuts) <= CUT_DIFFERENCE:
        return None
    return (
        f"the share of replies cut at the token limit runs from {min(cuts):.0%} to {max(cuts):.0%} between conditions: "
        "go on with them before comparing (the same command with --continue-to N)"
    )
