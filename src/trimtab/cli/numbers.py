"""Lists of numbers as people type them."""

from __future__ import annotations

import math

from trimtab.errors import InputError


def numbers(text: str, flag: str) -> list[float]:
    """`0.25,0.5,1` as numbers; refuses what is none, and repeats."""
    try:
        found = [float(part) for part in str(text).split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{flag} is a list of numbers such as 0.25,0.5,1, got {text!r}") from None
    if not found or not all(map(math.isfinite, found)):
        raise InputError(f"{flag} needs at least one number, all of them finite, got {text!r}")
    if len(set(found)) < len(found):
        raise InputError(f"{flag} names a number twice: {text!r}")
    return found
