"""Phrase lists: how the lexicon files write many short templates in little space."""

from __future__ import annotations


def phrases(text: str) -> tuple[str, ...]:
    """Split ``"one | two | three"`` (over any number of lines) into a tuple of stripped phrases."""
    flat = " ".join(text.split())
    return tuple(part.strip() for part in flat.split("|") if part.strip())


def links(text: str) -> tuple[tuple[str, str], ...]:
    """Split ``"event => noun phrase | ..."`` into pairs: an event and how later sentences refer to it."""
    pairs = []
    for part in phrases(text):
        event, _, reference = part.partition("=>")
        pairs.append((event.strip(), reference.strip()))
    return tuple(pairs)
