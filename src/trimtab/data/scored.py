"""Judged responses as JSON lines, for methods that choose rows by a judge's mark:

    {"concept": "poet", "system": "You are a poet.", "question": "…", "response": "…", "score": 3, "side": "pos"}

`concept` may be called `role` or `trait`. `side` is pos, neg or default; a default row without a concept serves all
concepts. A concept's negatives are its neg responses, or the default ones where it has none (`--against neg` or
`--against default` says which). A score of null is a refusal or a response nobody judged. All rows of both sides are
kept, with their scores: which of them count is the method's choice. The response is the assistant's turn, and is what
is read.

Where every question has as many positive as negative responses they are pairs: the first positive response to a
question with its first negative one, and so on, as the two instructions of one prompt stand in the published files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.data.contrast import Contrast, Item
from trimtab.data.options import Options
from trimtab.data.reading import first_record, records_of
from trimtab.errors import InputError, UnknownName

OPTIONS = frozenset({"against"})
NAMES = ("concept", "role", "trait")
SIDES = ("pos", "neg", "default")


@dataclass(frozen=True)
class _Row:
    concept: str | None
    side: str
    item: Item
    group: str
    score: float | None


def claims(path: Path) -> bool:
    """JSON lines whose first record has a response and a side or a score."""
    found = set(first_record(path))
    return "response" in found and bool({"side", "score"} & found)


def load(path: Path, options: Options) -> list[Contrast]:
    """One contrast with scores per concept, in order of appearance; paired by question where that is possible."""
    rows = [_read(row, where) for where, row in records_of(path)]
    concepts = list(dict.fromkeys(r.concept for r in rows if r.concept is not None))
    if not concepts:
        raise InputError(f"{path}: no row names a concept (keys concept, role or trait)")
    return [_contrast(concept, rows, options.against, path) for concept in concepts]


def _read(row: Any, where: str) -> _Row:
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: a response is an object, got {type(row).__name__}")
    for key in ("question", "response"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise InputError(f"{where}: {key!r} is missing, blank or not text")
    side = row.get("side")
    if side not in SIDES:
        raise UnknownName.of("side", side, SIDES, f"It stands in {where}.")
    score = row.get("score")
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or score != score
    ):
        raise InputError(f"{where}: score {score!r} is neither a number nor null")
    name = next((row[n] for n in NAMES if row.get(n)), None)
    if name is None and side != "default":
        raise InputError(f"{where}: a {side} row needs a concept (or role, or trait)")
    system = row.get("system") or ""
    if not isinstance(system, str):
        raise InputError(f"{where}: 'system' is not text")
    turns = [("system", system)] if system.strip() else []
    turns += [("user", row["question"]), ("assistant", row["response"])]
    item = tuple({"role": r, "content": c} for r, c in turns)
    return _Row(None if name is None else str(name), side, item, row["question"], score)


def _contrast(concept: str, rows: list[_Row], against: str | None, path: Path) -> Contrast:
    positive = [r for r in rows if r.concept == concept and r.side == "pos"]
    others = {
        side: [r for r in rows if r.side == side and r.concept in (concept, None)] for side in SIDES[1:]
    }
    chosen = against or ("neg" if others["neg"] else "default")
    if against is not None and not others[against]:
        raise InputError(f"{path}: {concept!r} has no {against} responses; leave --against {against} out")
    negative = others.pop(chosen)
    notes = [
        f"{len(left)} {side} responses to {concept!r} are left out: its negatives are the {chosen} ones "
        f"(--against {side} takes the others)"
        for side, left in others.items()
        if left
    ]
    odd = _unmatched(positive, negative)
    paired = bool(negative) and not odd
    if odd and positive and negative:
        notes.append(
            f"the responses to {concept!r} are not paired: {len(odd)} questions have not as many positive as "
            f"{chosen} ones, e.g. {odd[0][:60]!r}"
        )
    if paired:
        negative = _aligned(positive, negative)
    return Contrast(
        concept,
        tuple(r.item for r in positive),
        tuple(r.item for r in negative),
        paired=paired,
        groups=tuple(r.group for r in positive),
        negative_groups=() if paired else tuple(r.group for r in negative),
        scores=tuple(r.score for r in positive),
        negative_scores=tuple(r.score for r in negative),
        source=str(path),
        notes=tuple(notes),
    )


def _unmatched(positive: Sequence[_Row], negative: Sequence[_Row]) -> list[str]:
    """Questions that the two sides do not answer equally often."""
    first, second = (Counter(r.group for r in side) for side in (positive, negative))
    return [q for q in {**first, **second} if first[q] != second[q]]


def _aligned(positive: Sequence[_Row], negative: Sequence[_Row]) -> list[_Row]:
    """The negatives in the order of the positives that they pair with."""
    waiting: dict[str, list[_Row]] = {}
    for row in reversed(negative):
        waiting.setdefault(row.group, []).append(row)
    return [waiting[row.group].pop() for row in positive]
