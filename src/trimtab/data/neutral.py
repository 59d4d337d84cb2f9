"""The neutral pool: short everyday texts, shipped with the package, on which typical norms and means are
measured, and the questions that they answer.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources


@functools.cache
def neutral_texts() -> tuple[str, ...]:
    """Facts and instructions without strong feeling, 20 to 60 words each, one per line of `neutral.txt`."""
    return _lines("neutral.txt")


@functools.cache
def neutral_questions() -> tuple[str, ...]:
    """One question per neutral text, in the same order: what a user asks for whom the text is the reply."""
    return _lines("neutral_questions.txt")


@functools.cache
def neutral_hash() -> str:
    """Hash of the texts; it goes into every manifest, because norms measured on other texts differ."""
    return _hash(neutral_texts())


@functools.cache
def questions_hash() -> str:
    """Hash of the questions, for manifests whose means were measured on replies to them."""
    return _hash(neutral_questions())


def _lines(name: str) -> tuple[str, ...]:
    text = resources.files("trimtab.data").joinpath(name).read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _hash(lines: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]
