"""Texts as words: what checks and counts of a corpus are made of."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from trimtab.data.contrast import Contrast, Item

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def plain(item: Item) -> str:
    """A text, or the contents of messages one below the other."""
    return item if isinstance(item, str) else "\n".join(m["content"] for m in item)


def words_of(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def word_prefixes(text: str) -> list[str]:
    """Every beginning of a text in whole words, shortest first, the text itself left out."""
    words = text.split()
    return [" ".join(words[:n]) for n in range(1, len(words))]


def sides(contrast: Contrast) -> tuple[list[str], list[str]]:
    """Plain texts of both sides."""
    return [plain(i) for i in contrast.positive], [plain(i) for i in contrast.negative]


def prefix_nodes(texts: Iterable[str]) -> tuple[int, int]:
    """(words of the distinct texts, nodes of their prefix tree): what a run of every text, and one that runs each
    shared prefix once, would process. Words stand for tokens, which need a tokenizer.
    """
    rows = sorted({tuple(text.split()) for text in texts})
    shared = sum(_shared(a, b) for a, b in itertools.pairwise(rows))
    total = sum(map(len, rows))
    return total, total - shared  # in sorted order each row's longest shared prefix is with its predecessor


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def ngrams(text: str, longest: int) -> Iterator[tuple[str, ...]]:
    """Runs of 1 to `longest` words."""
    words = words_of(text)
    for n in range(1, longest + 1):
        yield from (tuple(words[i : i + n]) for i in range(len(words) - n + 1))
