"""The block for a model card: what a vector did on which model, and the command that shows it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NOT_CALIBRATED = "not calibrated; `trimtab calibrate` measures it"


@dataclass(frozen=True)
class Card:
    """`facts` are (name, words), in print order; empty words are left out."""

    title: str
    facts: tuple[tuple[str, str], ...]


def vector_words(name: str, hash: str) -> str:
    """A vector and the first digits of its content hash."""
    return f"`{name}` (content `{hash[:16]}`)"


def model_words(model: str, revision: str | None) -> str:
    """A model at its revision."""
    return f"`{model}`" + (f" at revision `{revision}`" if revision else ", no revision known")


def model_at(model: str, revision: str | None) -> str:
    """As `model_words`, for the top of a page."""
    return model + (f" at {revision[:16]}" if revision else "")


def markdown(cards: Sequence[Card], command: str) -> str:
    """One section per card, and how to reproduce them."""
    parts = []
    for card in cards:
        lines = "\n".join(f"- **{name}:** {words}" for name, words in card.facts if words)
        parts.append(f"## {card.title}\n\n{lines}\n")
    return "\n".join(parts) + f"\nReproduce:\n\n```console\n$ {command}\n```\n"
