"""Drawing with inline SVG. Colours are CSS classes of page.css, so that light and dark pages share one drawing."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, LEFT, RIGHT = 360, 38, 12


@dataclass(frozen=True)
class Axis:
    """A linear map from data [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def signed(value: float) -> str:
    """A dose with its sign, a true minus and no needless digits: −0.8, 0, +1.2."""
    return "0" if not value else f"{value:+g}".replace("-", "−")


def short(value: float) -> str:
    """Two digits without the leading zero: .73."""
    text = f"{value:.2f}"
    return (
        text.replace("-0.", "−.").replace("-", "−").removeprefix("0")
        if abs(value) < 1
        else text.replace("-", "−")
    )


def line(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A polyline of class `kind`."""
    where = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline class="{kind}" points="{where}"/>'


def band(x: Axis, y: Axis, rows: Sequence[tuple[float, float, float]], kind: str) -> str:
    """A filled band through (dose, low, high)."""
    upper = [(x(d), y(h)) for d, _, h in rows]
    lower = [(x(d), y(low)) for d, low, _ in reversed(rows)]
    where = " ".join(f"{a},{b}" for a, b in upper + lower)
    return f'<polygon class="{kind}" points="{where}"/>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    """A label."""
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{html.escape(words)}</text>'


def svg(height: float, label: str, parts: Sequence[str]) -> str:
    """The frame; `label` is read aloud in its place."""
    body = "".join(parts)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(label)}">'
        f"{body}</svg>"
    )


def legend(marks: Sequence[tuple[str, str]]) -> str:
    """What marks mean: (SVG parts in a box of 34 × 18, words)."""
    rows = "".join(
        f'<div><svg class="chart mark" width="34" height="18" aria-hidden="true">{mark}</svg>{words}</div>'
        for mark, words in marks
    )
    return f'<div class="legend">{rows}</div>'


def spaced(doses: Sequence[float], x: Axis, gap: float = 34) -> list[float]:
    """Doses whose labels have room, the ends and 0 first."""
    kept: list[float] = []
    for d in sorted(doses, key=lambda d: (d not in (min(doses), max(doses), 0.0), d)):
        if all(abs(x(d) - x(k)) >= gap for k in kept):
            kept.append(d)
    return kept
