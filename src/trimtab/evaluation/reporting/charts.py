"""Drawings of evaluations as inline SVG: a dose curve with everything it must be compared with, bars of values, the
slopes of items, and heatmaps. Colour is never the only carrier: signs, hollow marks and dashes say the same."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.evaluation.reporting.ship import Ship
from trimtab.evaluation.statistics import Estimate
from trimtab.pages.drawing import LEFT, RIGHT, WIDTH, Axis, band, line, short, signed, spaced, svg, text

STYLE = """
.chart .heat { fill: var(--warm-fill); } .chart .heat.less { fill: var(--cool-fill); }
.chart .heat-text { font-size: 10px; fill: var(--ink); } .chart .salad { stroke: var(--null); stroke-width: 1.5; }
.chart .chosen { fill: none; stroke: var(--ink); stroke-width: 2; }
.chart text.bold { font-weight: 700; fill: var(--ink); }
.chart .ship { fill: var(--cool-fill); opacity: .16; }
.chart .shore { stroke: var(--cool); stroke-width: 1; opacity: .6; }
.chart .told { stroke: var(--cool); stroke-dasharray: 6 4; stroke-width: 1.5; }
.chart .curve.low { stroke: var(--cool); stroke-dasharray: 5 3; } .chart .dot.low { fill: var(--cool); }
.chart .dot.low.hollow { fill: var(--card); stroke: var(--cool); }
.chart .limit { stroke: var(--ink); stroke-dasharray: 2 3; }
.chart .up { fill: var(--warm-fill); } .chart .down { fill: var(--cool-fill); }
.chart .whisker { stroke: var(--ink); stroke-width: 1.2; }
.chart .against { fill: var(--card); stroke: var(--cool); stroke-width: 1.5; } .chart .along { fill: var(--warm); }
.charts > figure:only-child { max-width: 560px; }
.left td:nth-child(2), .left th:nth-child(2) { text-align: left; }
.triplet { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 14px 16px;
  margin: 14px 0; }
.triplet .asked { margin: 0 0 10px; color: var(--soft); white-space: pre-line; }
.triplet .three { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 14px; }
.triplet .three > div { border-top: 3px solid var(--null); padding-top: 6px; }
.triplet .three > .minus { border-color: var(--cool); } .triplet .three > .plus { border-color: var(--warm); }
.triplet p { margin: 4px 0; white-space: pre-line; overflow-wrap: anywhere; }
"""

#: The plot's top and bottom, and where a name of a bar ends.
TOP, BOTTOM, NAMES = 14, 196, 128
#: Width of a column of a heatmap below which its figures are left out.
FIGURE = 22


@dataclass(frozen=True)
class Mark:
    """A dose of a curve: mean with interval (NaN bounds: none), whether the text is still coherent, and its tip."""

    dose: float
    mean: float
    low: float
    high: float
    good: bool
    tip: str


def dose_curve(
    label: str,
    marks: Sequence[Mark],
    null: Sequence[tuple[float, float, float]] = (),
    told: Sequence[tuple[str, float]] = (),
    ship: Ship | None = None,
    unit: str = "dose",
) -> str:
    """A score over doses with its intervals. `null` are (dose, low, high) of random directions, `told` prompts (name,
    score), `ship` the shaded range, which is cut off where nothing was measured."""
    marks = sorted((m for m in marks if math.isfinite(m.mean)), key=lambda m: m.dose)
    if not marks:
        return ""
    values = [v for m in marks for v in (m.low, m.high, m.mean) if math.isfinite(v)]
    values += [v for _, *pair in null for v in pair] + [v for _, v in told]
    first, last = min(marks[0].dose, 0.0), max(marks[-1].dose, 0.0)
    pad = 0.05 * ((max(values) - min(values)) or 1.0)
    x = Axis(first, last if last > first else first + 1.0, LEFT + 8, WIDTH - RIGHT - 6)
    y = Axis(min(values) - pad, max(values) + pad, BOTTOM, TOP)
    parts = _shaded(ship, x, first, last)
    parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="{TOP}" y2="{BOTTOM}"/>')
    if null:
        parts.append(band(x, y, sorted(null), "null"))
    parts.append(band(x, y, [(m.dose, m.low, m.high) for m in marks if math.isfinite(m.low)], "band"))
    for a, b in itertools.pairwise(marks):
        kind = "curve" if a.good and b.good else "curve broken"
        parts.append(line([(x(a.dose), y(a.mean)), (x(b.dose), y(b.mean))], kind))
    for name, value in told:
        tip = f"<title>{html.escape(name)}: {value:.3g}</title>"
        parts.append(
            f'<line class="told" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value)}" y2="{y(value)}">{tip}</line>'
        )
    for m in marks:
        kind = "dot" if m.good else "dot hollow"
        tip = f"<title>{html.escape(m.tip)}</title>"
        parts.append(f'<circle class="{kind}" cx="{x(m.dose)}" cy="{y(m.mean)}" r="4">{tip}</circle>')
    parts += [
        text(x(d), BOTTOM + 16, signed(round(d, 3)), "tick") for d in spaced([m.dose for m in marks], x)
    ]
    parts += [text(LEFT, y(v) + 4, short(v), "tick", "end") for v in (min(values), max(values))]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, BOTTOM + 32, f"total {unit}", "tick"))
    return svg(BOTTOM + 38, label, parts)


def _shaded(ship: Ship | None, x: Axis, first: float, last: float) -> list[str]:
    if ship is None:
        return []
    low, high = max(ship.low, first), min(ship.high, last)
    if high <= low:
        return []
    box = f'<rect class="ship" x="{x(low)}" y="{TOP}" width="{x(high) - x(low):.1f}" height="{BOTTOM - TOP}">'
    parts = [f"{box}<title>{html.escape(ship.said)}</title></rect>"]
    for end, inside in ((ship.low, ship.low > first), (ship.high, ship.high < last)):
        if inside:
            parts.append(f'<line class="shore" x1="{x(end)}" x2="{x(end)}" y1="{TOP}" y2="{BOTTOM}"/>')
    return parts


@dataclass(frozen=True)
class Bar:
    """One value: its change at + and at −, with the band that random directions reach; `bold` is the target."""

    name: str
    plus: Estimate
    minus: Estimate
    null: tuple[float, float] | None = None
    bold: bool = False


def bars(label: str, rows: Sequence[Bar]) -> str:
    """Values down, change across: + above −, whiskers are 95 % intervals, grey is what chance reaches."""
    ends = [v for r in rows for e in (r.plus, r.minus) for v in (e.mean, e.low, e.high) if math.isfinite(v)]
    ends += [v for r in rows for v in (r.null or ())] + [0.0]
    x = Axis(min(ends), max(ends) if max(ends) > min(ends) else min(ends) + 1.0, NAMES, WIDTH - RIGHT)
    parts = []
    for i, r in enumerate(rows):
        at = 4 + i * 30
        if r.null is not None:
            low, high = (x(v) for v in r.null)
            parts.append(f'<rect class="null" x="{low}" y="{at}" width="{high - low:.1f}" height="26"/>')
        parts.append(text(NAMES - 6, at + 17, r.name[-20:], "bold" if r.bold else "tick", "end"))
        for e, kind, sign, top in ((r.plus, "up", "+", at + 2), (r.minus, "down", "−", at + 14)):
            parts += _bar(x, e, kind, f"{r.name} at {sign}", top)
    bottom = 4 + 30 * len(rows)
    parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="2" y2="{bottom}"/>')
    for v in dict.fromkeys((min(ends), 0.0, max(ends))):
        if v == 0 or abs(x(v) - x(0)) > 26:
            parts.append(text(x(v), bottom + 14, "0" if v == 0 else short(v), "tick"))
    return svg(bottom + 20, label, parts)


def _bar(x: Axis, e: Estimate, kind: str, name: str, top: float) -> list[str]:
    start, end = sorted((x(0), x(e.mean)))
    tip = f"<title>{html.escape(name)}: {e.mean:+.3g} [{e.low:+.3g}, {e.high:+.3g}], n = {e.n}</title>"
    parts = [
        f'<rect class="{kind}" x="{start}" y="{top}" width="{max(end - start, 0.5):.1f}" height="10">{tip}</rect>'
    ]
    if math.isfinite(e.low):
        middle = top + 5
        parts.append(f'<line class="whisker" x1="{x(e.low)}" x2="{x(e.high)}" y1="{middle}" y2="{middle}"/>')
    return parts


def item_slopes(label: str, slopes: Sequence[float]) -> str:
    """Every item's own slope, by size; those that go the wrong way are hollow."""
    ordered = sorted(slopes)
    low, high = min(*ordered, 0.0), max(*ordered, 0.0)
    x = Axis(0, max(len(ordered) - 1, 1), LEFT + 8, WIDTH - RIGHT - 6)
    y = Axis(low, high if high > low else low + 1.0, 120, 12)
    parts = [f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(0)}" y2="{y(0)}"/>']
    for i, s in enumerate(ordered):
        kind = "against" if s < 0 else "along"
        parts.append(f'<circle class="{kind}" cx="{x(i)}" cy="{y(s)}" r="3"><title>{s:+.3g}</title></circle>')
    parts += [text(LEFT, y(v) + 4, short(v) if v else "0", "tick", "end") for v in dict.fromkeys((low, high))]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, 140, f"{len(ordered)} items, by slope", "tick"))
    return svg(146, label, parts)


@dataclass(frozen=True)
class Square:
    """One cell of a heatmap: the number shown (None: n/a), its tint from −1 to 1, its tip; `good` False is dashed."""

    value: float | None
    tint: float
    tip: str
    good: bool = True
    chosen: bool = False


#: Height of a heatmap's row, room for the names of its rows, and for a label above a column.
ROW, HEAT_NAMES, LABEL = 24, 118, 32


def heat(
    label: str,
    rows: Sequence[tuple[str, bool, Sequence[Square | None]]],
    heads: Sequence[str],
    first: Sequence[int] = (),
) -> str:
    """A grid: rows are (name, whether bold, squares; None leaves a place empty). `first` are columns whose heads are
    placed before the others where not all of them fit."""
    step = (WIDTH - HEAT_NAMES - RIGHT) / len(heads)
    parts = [text(x, 14, heads[j], "tick") for x, j in _heads(heads, first, step)]
    for i, (name, bold, squares) in enumerate(rows):
        y = 20 + i * ROW
        parts.append(text(HEAT_NAMES - 6, y + 16, name[-20:], "bold" if bold else "tick", "end"))
        for j, square in enumerate(squares):
            if square is not None:
                parts += _square(HEAT_NAMES + j * step, y, step, square)
    return svg(24 + len(rows) * ROW, label, parts)


def _heads(heads: Sequence[str], first: Sequence[int], step: float) -> list[tuple[float, int]]:
    placed: list[tuple[float, int]] = []
    room = max(LABEL, *(6.2 * len(h) for h in heads))
    for j in [*first, *(j for j in range(len(heads)) if j not in first)]:
        x = HEAT_NAMES + (j + 0.5) * step
        if all(abs(x - other) >= room for other, _ in placed):
            placed.append((x, j))
    return sorted(placed)


def _square(x: float, y: float, step: float, s: Square) -> list[str]:
    frame = f'x="{x + 1:.1f}" y="{y + 1}" width="{step - 2:.1f}" height="{ROW - 2}"'
    if s.value is None:
        return [text(x + step / 2, y + 16, "n/a", "tick")]
    kind = ("heat" if s.tint >= 0 else "heat less") + ("" if s.good else " salad")
    dashes = "" if s.good else ' stroke-dasharray="3 2"'
    opacity = f'fill-opacity="{0.06 + 0.9 * min(1.0, abs(s.tint)):.2f}"'
    found = [f'<rect class="{kind}" {frame} {opacity}{dashes}><title>{html.escape(s.tip)}</title></rect>']
    if step >= FIGURE:
        found.append(text(x + step / 2, y + 16, short(s.value), "heat-text"))
    return found + ([f'<rect class="chosen" {frame}/>'] if s.chosen else [])


@dataclass(frozen=True)
class Cost:
    """One side of a calibration: measured (strength, cost), and the bound that was found."""

    sign: int
    points: Sequence[tuple[float, float]]
    bound: float


def cost_curve(label: str, sides: Sequence[Cost], limit: float) -> str:
    """Cost over the size of a push, both on one picture: + solid and warm, − dashed and cool. Strength is drawn on a
    logarithmic axis and cost up to 2.5 times the limit, where points that lie higher are drawn hollow."""
    top = 2.5 * limit
    sizes = [s for side in sides for s, _ in side.points]
    x = Axis(math.log(min(sizes)), math.log(max(sizes)), LEFT + 8, WIDTH - RIGHT - 6)
    y = Axis(min(0.0, *(c for side in sides for _, c in side.points)), top, BOTTOM, TOP)
    parts = []
    low = min(side.bound for side in sides)
    if low > min(sizes):
        width = x(math.log(low)) - x.start
        parts.append(
            f'<rect class="ship" x="{x.start}" y="{TOP}" width="{width:.1f}" height="{BOTTOM - TOP}"/>'
        )
    parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(limit)}" y2="{y(limit)}"/>')
    for side in sides:
        kind = "" if side.sign > 0 else " low"
        drawn = [(x(math.log(s)), y(min(c, top)), s, c) for s, c in side.points]
        parts.append(line([(a, b) for a, b, *_ in drawn], f"curve{kind}"))
        for a, b, s, c in drawn:
            tip = f"<title>{'+' if side.sign > 0 else '−'}{s:.3g}: {c:.3g}</title>"
            hollow = " hollow" if c > top else ""
            parts.append(f'<circle class="dot{kind}{hollow}" cx="{a}" cy="{b}" r="3.5">{tip}</circle>')
    marks = dict.fromkeys([min(sizes), *(side.bound for side in sides if side.bound > 0), max(sizes)])
    placed: list[float] = []
    for s in marks:
        if all(abs(x(math.log(s)) - p) > 30 for p in placed):
            placed.append(x(math.log(s)))
            parts.append(text(placed[-1], BOTTOM + 16, f"{s:.2g}", "tick"))
    parts += [text(LEFT, y(v) + 4, f"{v:.2g}", "tick", "end") for v in (0.0, limit, top)]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, BOTTOM + 32, "size of the push (log)", "tick"))
    return svg(BOTTOM + 38, label, parts)
