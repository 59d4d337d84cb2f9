"""Could the sides be told apart without any model? Words that mark a side, and length.

A vector of such data may be the marker's and not the concept's; it will then read the marker. Words that name the
concept itself are left aside: a persona prompt must say them.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from trimtab.data.contrast import Contrast
from trimtab.data.words import sides
from trimtab.evaluation.statistics import auc

#: A word that so large a share of one side has, and of the other has not, marks the side.
MARKS = 0.9
#: An AUC of length alone from here on is a confound.
LENGTH_AUC = 0.95
#: Fewer texts on a side show a marking word, or such an AUC, by luck.
MIN_TEXTS, MIN_LENGTHS = 4, 8
_WORDS = re.compile(r"\w+|[^\w\s]+|\n+|[ \t]{2,}|[ \t]+$")


@dataclass(frozen=True)
class Shortcuts:
    """`markers` are (word, share of positives, share of negatives); `length_auc` is how well character counts alone
    tell the sides apart (.5 is not at all; below .5 the negatives are longer), and `enough` whether there are texts
    enough to take that seriously."""

    markers: tuple[tuple[str, float, float], ...]
    length_auc: float
    enough: bool = True

    @property
    def found(self) -> tuple[str, ...]:
        """What a reader should know, in words; empty where there is nothing."""
        said = [
            f"{word!r} stands in {a:.0%} of the positive and {b:.0%} of the negative texts"
            for word, a, b in self.markers[:3]
        ]
        if self.enough and max(self.length_auc, 1 - self.length_auc) >= LENGTH_AUC:
            longer = "longer" if self.length_auc > 0.5 else "shorter"
            said.append(
                f"positives are {longer}: length alone has AUC {max(self.length_auc, 1 - self.length_auc):.2f}"
            )
        return tuple(said)


def shortcuts(contrast: Contrast) -> Shortcuts:
    """Of the texts alone; needs no model."""
    texts = sides(contrast)
    counts = [Counter(w for t in side for w in {w.lower() for w in _WORDS.findall(t)}) for side in texts]
    markers = []
    for word in counts[0].keys() | counts[1].keys():
        a, b = (c[word] / len(s) for c, s in zip(counts, texts))
        if abs(a - b) >= MARKS and not _names(word, contrast.concept):
            markers.append((word, a, b))
    if min(map(len, texts)) < MIN_TEXTS:  # a word that one of two texts has marks nothing
        markers = []
    markers.sort(key=lambda m: (-abs(m[1] - m[2]), m[0]))
    lengths = [np.array([len(t) for t in side], np.float64) for side in texts]
    return Shortcuts(tuple(markers), auc(*lengths), min(map(len, texts)) >= MIN_LENGTHS)


def _names(word: str, concept: str) -> bool:
    """Whether a word is a form of the concept's name: happy and happiness."""
    return any(
        len(word) >= 4 and len(part) >= 4 and (word[:4] == part[:4])
        for part in re.findall(r"\w+", concept.lower())
    )
