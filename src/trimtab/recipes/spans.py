"""The stretches of text where a concept reads most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.errors import InputError
from trimtab.recipes.transcripts import TokenReadings
from trimtab.sites import Site


@dataclass(frozen=True)
class TextSpan:
    """Tokens [start, end) of a text, the mean reading over them, and what they say."""

    name: str
    start: int
    end: int
    mean: float
    text: str


def top_spans(
    readings: Sequence[TokenReadings],
    concept: str,
    site: Site | None = None,
    count: int = 5,
    least: int = 5,
) -> list[TextSpan]:
    """The `count` spans of at least `least` tokens with the highest mean, over all texts, none overlapping another.

    Special tokens, markup and what was read from a sink interrupt a span. A span of the highest mean is never twice
    as long as the least (one of its halves would read higher), so only those lengths are tried.
    """
    if count < 0 or least < 1:
        raise InputError(f"spans have 1 token or more and their number is 0 or more, got {least} and {count}")
    found = [
        (mean, -text, -start, length)
        for text, reading in enumerate(readings)
        for mean, start, length in _candidates(reading.of(concept, site), reading.counted, least)
    ]
    taken = [np.zeros(len(r), dtype=bool) for r in readings]
    chosen: list[TextSpan] = []
    for mean, text, start, length in sorted(found, reverse=True):
        text, start = -text, -start
        if len(chosen) == count:
            break
        if not taken[text][start : start + length].any():
            taken[text][start : start + length] = True
            reading = readings[text]
            said = "".join(reading.pieces[start : start + length])
            chosen.append(TextSpan(reading.name, start, start + length, mean, said))
    return chosen


def _candidates(values: np.ndarray, counted: np.ndarray, least: int) -> Iterator[tuple[float, int, int]]:
    """(mean, start, length) of every span inside a run of counted tokens."""
    inside = np.flatnonzero(np.diff(np.concatenate([[0], counted.astype(np.int8), [0]])))
    for start, end in zip(inside[::2], inside[1::2]):
        sums = np.concatenate([[0.0], np.cumsum(values[start:end], dtype=np.float64)])
        for length in range(least, min(2 * least, end - start + 1)):
            means = (sums[length:] - sums[:-length]) / length
            yield from zip(means.tolist(), range(int(start), int(end)), [length] * len(means))
