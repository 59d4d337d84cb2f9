"""A strip for a terminal: one line per sentence, its mean in front; colour and underline say the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rich.text import Text

from trimtab.strips.strip import Strip

WARM, COOL = "dark_orange", "dodger_blue1"


def legend(what: str) -> Text:
    """What the marks mean; `what` names the reading."""
    head = Text(f"{what}; ")
    head.append("orange underlined", style=f"underline {WARM}").append(" above, ")
    return head.append("blue", style=COOL).append(" below by more than one standard deviation")


def lines(strip: Strip, column: int) -> Iterator[Text]:
    """One line per sentence of a strip, tinted by one column."""
    for start, end in strip.sentences:
        yield tinted(strip.pieces[start:end], strip.z[start:end, column])


def tinted(pieces: tuple[str, ...], z: np.ndarray) -> Text:
    """The pieces in one line behind their mean; beyond ±1 they are tinted, beyond 2 bold."""
    line = Text()
    read = z[np.isfinite(z)]
    mean = f"{read.mean():+5.1f}  ".replace("-", "−") if len(read) else "    –  "
    line.append(mean, style="dim")
    for piece, value in zip((pieces[0].lstrip(), *pieces[1:]), z):
        line.append(piece.replace("\n", " "), style=tint(float(value)))
    return line


def tint(z: float) -> str:
    """The style of one reading in standard deviations; "" for what lies within one, or was not read."""
    if z > 1:
        return f"bold underline {WARM}" if z > 2 else f"underline {WARM}"
    return COOL if z < -1 else ""
