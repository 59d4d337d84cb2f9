"""Coherence by novelty: 1 − the share of a text's word trigrams that a fixed reference corpus never used.

The reference is fixed before any result is seen. The measure fits a small closed world, where fluent text
reuses trigrams and word salad does not; it says nothing about truth or sense, and it is only comparable
under one reference.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab.directions import frozen
from trimtab.errors import FormatError, InputError

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
#: A row is coherent when its coherence is at least the unsteered value minus this.
SLACK = 0.05


def words(text: str) -> list[str]:
    """Lower-case words, apostrophes kept inside: the tokenisation that the reference was hashed with."""
    return _WORD.findall(text.lower())


def trigram_hashes(text: str) -> np.ndarray:
    """crc32 of each word trigram "w1 w2 w3" of one text, uint32 [max(0, words − 2)]."""
    w = words(text)
    return np.fromiter(
        (zlib.crc32(" ".join(w[i : i + 3]).encode()) for i in range(len(w) - 2)), dtype=np.uint32
    )


@dataclass(frozen=True, eq=False)
class Reference:
    """Sorted distinct trigram hashes of the reference corpus, uint32."""

    hashes: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "hashes", frozen(np.unique(self.hashes), "uint32"))
        if not len(self.hashes):
            raise InputError("the reference corpus holds no trigrams: give texts of three words or more")

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> Reference:
        """From texts; each is one unit, no trigram crosses its ends."""
        found = [trigram_hashes(t) for t in texts]
        return cls(np.concatenate(found) if found else np.zeros(0, np.uint32))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Reference:
        """From an .npz file with the key `hashes`."""
        if not Path(path).exists():
            raise FormatError(f"no such reference file: {path}")
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(file["hashes"])
        except (OSError, ValueError, KeyError) as error:
            raise FormatError(f'{path} is not a trigram reference (.npz with "hashes"): {error}') from error

    def known(self, text: str) -> np.ndarray:
        """For each trigram of the text, whether the reference has it; bool [trigrams]."""
        hashes = trigram_hashes(text)
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return self.hashes[at] == hashes

    def coherence(self, texts: Sequence[str]) -> float:
        """1 − novel share over all trigrams of all texts together; NaN where no text has three words.

        Pooled rather than averaged per text, so that one-sentence answers do not count as much as long ones.
        """
        known = np.concatenate([self.known(t) for t in texts]) if texts else np.zeros(0, bool)
        return float(known.mean()) if len(known) else float("nan")


def coherent(value: float, unsteered: float, slack: float = SLACK) -> bool:
    """Whether a coherence is within `slack` of the unsteered one; NaN (no text at all) is not coherent."""
    return bool(value >= unsteered - slack)


def novel_spans(reference: Reference, text: str) -> Iterator[tuple[int, int]]:
    """Character ranges of the trigrams that the reference does not know: what to mark in a report."""
    spans = [m.span() for m in _WORD.finditer(text.lower())]
    for i, known in enumerate(reference.known(text)):
        if not known:
            yield spans[i][0], spans[i + 2][1]
