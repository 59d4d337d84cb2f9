"""Scoring a finished run again: rows hold all that a score reads, so no model is needed and nothing is generated."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.data.reading import SAMPLES, rows_of_run
from trimtab.errors import FormatError, InputError
from trimtab.evaluation.samples import Record, by_condition, item_scores
from trimtab.evaluation.scorers.scorer import Scorer
from trimtab.evaluation.statistics import Estimate, mean_interval, paired_difference

#: What a row must hold for a score that needs this.
HOLDS = {"text": "text", "continuations": "continuations", "readings": "readings", "options": "options"}


def read_rows(folder: str | os.PathLike[str]) -> list[Record]:
    """The scored rows of a run folder, in order; a last line that a kill has torn is left out."""
    file = Path(folder) / SAMPLES
    if not file.is_file():
        raise FormatError(f"{folder} is no run folder: it has no samples.jsonl")
    found = [dict(row) for _, row in rows_of_run(Path(folder)) if {"item", "condition", "scores"} <= set(row)]
    if not found:
        raise FormatError(f"{file} holds no rows of an evaluation; `trimtab sweep` writes such a run")
    return found


def concepts_of(rows: Sequence[Record]) -> list[str]:
    """The concepts that a run was scored for, in order."""
    return list(dict.fromkeys(c for r in rows for values in r["scores"].values() for c in values))


@dataclass(frozen=True)
class Line:
    """One condition and concept: mean over the items that have a number, and its difference from the plain model on the
    items that both have; `missing` items have none, and with no item left there is no value."""

    condition: str
    kind: str
    concept: str
    dose: float | None
    value: Estimate | None
    difference: Estimate | None
    missing: int = 0

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "condition": self.condition,
            "kind": self.kind,
            "concept": self.concept,
            "dose": self.dose,
            **({} if self.value is None else vars(self.value)),
            "missing": self.missing,
            "less_plain": None if self.difference is None else vars(self.difference),
        }


def rescore(rows: Sequence[Record], score: Scorer, concepts: Sequence[str]) -> list[Record]:
    """Copies of the rows with the score's numbers added (older scores stay)."""
    lacking = [r for r in rows if HOLDS[score.needs] not in r]
    if lacking:
        raise InputError(
            f"the score {score.name!r} reads {score.needs}, which {len(lacking)} of {len(rows)} rows do not hold"
        )
    copies = [{**r, "scores": {k: dict(v) for k, v in r["scores"].items()}} for r in rows]
    for concept in concepts:
        for row, value in zip(copies, score.values(rows, concept), strict=True):
            row["scores"].setdefault(score.name, {})[concept] = float(value)
    return copies


def summary(rows: Sequence[Record], score: str, concepts: Sequence[str], seed: int = 0) -> list[Line]:
    """A line per condition for the concept that it is about (every concept for plain and random conditions)."""
    by = by_condition(rows)
    plain = [r for own in by.values() if own[0]["kind"] == "plain" for r in own]
    known = _items(plain)
    found = []
    for name, own in by.items():
        for concept in _about(own[0], concepts):
            values = item_scores(own, score, concept)
            kept = np.isfinite(values)
            difference = None
            if (
                own[0]["kind"] != "plain" and _items(own) <= known
            ):  # the plain model may have answered others, too
                base = [r for r in plain if r["item"] in _items(own)]
                before = item_scores(base, score, concept)
                both = kept & np.isfinite(before)
                difference = paired_difference(values[both], before[both], seed=seed) if both.any() else None
            estimate = mean_interval(values[kept], seed=seed) if kept.any() else None
            missing = int((~kept).sum())
            found.append(Line(name, own[0]["kind"], concept, own[0]["dose"], estimate, difference, missing))
    return found


def _items(rows: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(r["item"] for r in rows)


def _about(row: Mapping[str, Any], concepts: Sequence[str]) -> list[str]:
    return (
        [row["concept"]]
        if row["kind"] in ("steered", "prefix") and row["concept"] in concepts
        else list(concepts)
    )
