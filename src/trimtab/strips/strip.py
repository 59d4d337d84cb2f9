"""`Strip`: the pieces of a text with their readings, and their averages over sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_SENTENCE_END = re.compile(r"""[.!?]["']?\s*$""")


@dataclass(frozen=True, eq=False)
class Strip:
    """A text token by token: `pieces` [T] and `z` [T, C], in standard deviations (NaN: not read); `truth` [T] labels
    stretches of it (a passage's concept, a turn's speaker); "" labels nothing.
    """

    pieces: tuple[str, ...]
    z: np.ndarray
    truth: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[tuple[int, int]]:
        """Token ranges of sentences; a label that changes ends one too."""
        ends = [i + 1 for i, p in enumerate(self.pieces) if _SENTENCE_END.search(p)]
        ends = sorted({*ends, *(i for i in range(1, len(self.truth)) if self.truth[i] != self.truth[i - 1])})
        if not ends or ends[-1] < len(self.pieces):
            ends.append(len(self.pieces))
        return [(a, b) for a, b in zip([0, *ends], ends) if b > a]

    @property
    def smooth(self) -> np.ndarray:
        """Readings averaged over each sentence, [T, C]; what was not read does not count."""
        found = self.z.copy()
        for a, b in self.sentences:
            part = self.z[a:b]
            read = np.isfinite(part)
            counts = read.sum(0)
            means = np.where(read, part, 0).sum(0) / np.maximum(counts, 1)
            found[a:b] = np.where(counts > 0, means, np.nan)
        return found
