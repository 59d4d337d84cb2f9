"""Leave examples out by their id, as the quality report prints them: `joy:3` is the third pair of joy, and
`joy:positive:3` the third positive text of data without pairs. Numbers start at 1 and count the corpus as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from trimtab.data.contrast import SIDES, Contrast
from trimtab.data.reading import text_of
from trimtab.errors import FormatError, InputError, UnknownName

#: concept -> side -> indices that stay
Kept = Mapping[str, Mapping[str, Sequence[int]]]
_ID = re.compile(r"(?:(?P<concept>.+?):)?(?:(?P<side>positive|negative):)?(?P<number>[1-9]\d*)")


def identity(concept: str, side: str | None, index: int) -> str:
    """The id of a pair (`side` None) or of one text; `index` counts from 0."""
    return ":".join([concept, *([side] if side else []), str(index + 1)])


def ids_of(given: str) -> list[str]:
    """Ids from a comma-separated list, or from a file that holds one per line (`#` begins a comment)."""
    path = Path(given)
    try:
        is_file = path.is_file()
    except OSError:  # a long list of ids is no file name
        is_file = False
    if is_file:
        lines = (line.split("#", 1)[0].strip() for line in text_of(path).splitlines())
        found = [line for line in lines if line]
    else:
        found = [part.strip() for part in given.split(",") if part.strip()]
        if len(found) == 1 and not _ID.fullmatch(found[0]):
            raise FormatError(f"{given!r} is neither a file nor an id; ids look like joy:3 or joy:positive:3")
    if not found:
        raise InputError(f"{given!r} names no example to exclude; leave --exclude out")
    return found


def remaining(contrasts: Sequence[Contrast], ids: Iterable[str]) -> Kept:
    """What stays, per concept and side, as indices into the corpus as it stands; an id that fits none is refused."""
    names = [c.concept for c in contrasts]
    gone: dict[str, dict[str, set[int]]] = {n: {s: set() for s in SIDES} for n in names}
    for given in ids:
        match = _ID.fullmatch(given)
        if match is None:
            raise InputError(
                f"{given!r} is not an id; ids look like joy:3 (a pair) or joy:positive:3 (a text)"
            )
        concept = match["concept"]
        if concept is None and len(names) > 1:
            raise InputError(
                f"id {given!r} names no concept, and the corpus has {len(names)}: {', '.join(names)}"
            )
        if concept is not None and concept not in names:
            raise UnknownName.of("concept", concept, names, f"It stands in the id {given!r}.")
        contrast = contrasts[0] if concept is None else contrasts[names.index(concept)]
        for side in _sides(contrast, match["side"], given):
            count, number = len(getattr(contrast, side)), int(match["number"])
            if number > count:
                raise InputError(f"id {given!r}: {contrast.concept!r} has only {count} {side} texts")
            gone[contrast.concept][side].add(number - 1)
    return {
        c.concept: {s: [i for i in range(len(getattr(c, s))) if i not in gone[c.concept][s]] for s in SIDES}
        for c in contrasts
    }


def exclude(contrasts: Sequence[Contrast], kept: Kept) -> list[Contrast]:
    """The corpus with only what `remaining` left of it."""
    return [_only(c, kept[c.concept]) for c in contrasts]


def _sides(contrast: Contrast, side: str | None, given: str) -> tuple[str, ...]:
    if contrast.paired and side is not None:
        raise InputError(f"id {given!r} names one side of a pair; pairs go whole: {contrast.concept}:NUMBER")
    if not contrast.paired and side is None:
        raise InputError(
            f"id {given!r}: {contrast.concept!r} is not paired; write {contrast.concept}:positive:NUMBER or "
            f"{contrast.concept}:negative:NUMBER"
        )
    return SIDES if side is None else (side,)


def _only(contrast: Contrast, kept: Mapping[str, Sequence[int]]) -> Contrast:
    left_out = {s: len(getattr(contrast, s)) - len(kept[s]) for s in SIDES}
    if not any(left_out.values()):
        return contrast
    for side in SIDES:
        if not kept[side]:
            raise InputError(f"excluding every {side} text of {contrast.concept!r} leaves nothing to compare")
    columns = dict.fromkeys(("positive", "groups", "scores"), "positive")
    columns |= dict.fromkeys(("negative", "negative_groups", "negative_scores"), "negative")
    changed = {
        name: tuple(getattr(contrast, name)[i] for i in kept[side])
        for name, side in columns.items()
        if getattr(contrast, name)
    }
    count = left_out["positive"] if contrast.paired else sum(left_out.values())
    note = (
        f"{count} {'pairs' if contrast.paired else 'texts'} of {contrast.concept!r} are left out by --exclude"
    )
    return replace(contrast, **changed, notes=(*contrast.notes, note))
