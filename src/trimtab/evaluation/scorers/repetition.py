"""Degeneracy of a text by itself: how much of it says again what it has said.

distinct-2 = distinct word bigrams ÷ word bigrams
repeated   = largest share of the words that the occurrences of one n-gram (n = 1 … 4) beyond its first hold
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.evaluation.scorers.scorer import Answered, Mark, TextScorer, WithoutSettings

LONGEST = 4


def distinct(words: Sequence[str], n: int = 2) -> float | None:
    """Share of n-grams that are distinct; None for a text without any."""
    grams = list(zip(*(words[i:] for i in range(n))))
    return len(set(grams)) / len(grams) if grams else None


def repeated_share(words: Sequence[str], longest: int = LONGEST) -> float | None:
    """Largest share of the words in repeats of one n-gram; None for an empty text.

    Repeats that overlap would be counted twice, so that an n-gram's next occurrence begins after its last ended.
    """
    if not words:
        return None
    worst = 0.0
    for n in range(1, longest + 1):
        seen: Counter[tuple[str, ...]] = Counter()
        ends: dict[tuple[str, ...], int] = {}
        for i in range(len(words) - n + 1):
            gram = tuple(words[i : i + n])
            if i >= ends.get(gram, 0):
                seen[gram] += 1
                ends[gram] = i + n
        if seen:
            worst = max(worst, (max(seen.values()) - 1) * n / len(words))
    return worst


@dataclass(frozen=True)
class Repetition(WithoutSettings, TextScorer):
    """Mark: 1 − the repeated share, so that 1 is a text that repeats nothing; distinct-2 and the end stand beside."""

    name = "repetition"

    @property
    def identity(self) -> str:
        """It has no settings that change it."""
        return "repetition"

    def score(self, rows: Sequence[Answered]) -> list[Mark]:
        """One mark per answer; an empty one has none."""
        return [self._mark(r) for r in rows]

    def _mark(self, row: Answered) -> Mark:
        words = row.answer.lower().split()
        share = repeated_share(words)
        if share is None:
            return Mark(None, "empty answer")
        detail = {"distinct_2": distinct(words), "words": len(words)}
        return Mark(
            1 - share, detail={**detail, "ended": None if row.finish is None else row.finish == "stop"}
        )


def end_rate(rows: Sequence[Answered]) -> float | None:
    """Share of answers that ended by themselves rather than at the token limit; None where nothing says so."""
    known = [r.finish == "stop" for r in rows if r.finish is not None]
    return sum(known) / len(known) if known else None
