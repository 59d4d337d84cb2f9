"""`Options`: what a caller may ask of a layout. A layout names in `OPTIONS` those it understands; one that it
does not understand is refused, never ignored.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.errors import InputError, UnknownName

#: All token prefixes of a text, shortest first, as texts (see `trimtab.recipes.token_prefixes`).
Prefixes = Callable[[str], Sequence[str]]
#: Sides of judged responses that may be the negatives.
AGAINST = ("neg", "default")


class CorpusWarning(UserWarning):
    """A corpus that can be read and whose vectors may still mislead."""


@dataclass(frozen=True)
class Options:
    """`negatives`: a second file. `chat`: messages (True) or bare text (False); None leaves it to the layout.
    `questions`: at most so many questions. `prefixes`: how a tokenizer cuts. `strict`: refuse what would be
    skipped. `min_positives`: refuse a concept with fewer. `against`: which judged responses are the negatives, neg or
    default.
    """

    negatives: Path | None = None
    chat: bool | None = None
    questions: int | None = None
    prefixes: Prefixes | None = None
    strict: bool = False
    min_positives: int = 1
    against: str | None = None

    def __post_init__(self) -> None:
        if self.against not in (None, *AGAINST):
            raise UnknownName.of("side for --against,", self.against, AGAINST)
        for name in ("questions", "min_positives"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}")

    @property
    def given(self) -> frozenset[str]:
        """The options that only some layouts understand and that were given."""
        names = ("negatives", "chat", "questions", "against")
        return frozenset(n for n in names if getattr(self, n) is not None)

    def skip_empty(self, names: Sequence[str]) -> tuple[str, ...]:
        """The note that names and counts empty files; with `strict` an error instead."""
        if not names:
            return ()
        shown = ", ".join(names[:10]) + (f", … ({len(names) - 10} more)" if len(names) > 10 else "")
        if self.strict:
            raise InputError(
                f"{len(names)} empty file{_s(names)} (--strict): {shown}; fill or remove {_them(names)}"
            )
        return (f"skipped {len(names)} empty file{_s(names)}: {shown}",)


def _s(names: Sequence[str]) -> str:
    return "" if len(names) == 1 else "s"


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def warn(message: str) -> None:
    """Give a `CorpusWarning`, which the command line shows and records."""
    warnings.warn(message, CorpusWarning, stacklevel=3)
