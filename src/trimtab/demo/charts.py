"""The report's charts as inline SVG. Colours are CSS classes, so that light and dark pages share one drawing; every
colour has a second carrier (dashes, shapes, labels)."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.demo.feelings import Curve
from trimtab.demo.honesty import Honesty, HonestyRow
from trimtab.evaluation.coherence import SLACK, coherent
from trimtab.pages.drawing import LEFT, RIGHT, WIDTH, Axis, band, line, short, signed, spaced, svg, text


def dose_chart(curve: Curve) -> str:
    """Score with its band over doses, random directions as a grey band, the persona prompt as a dashed line; below it
    the coherence of the same doses with its limit."""
    doses = [r.dose for r in curve.rows]
    x = Axis(min(doses), max(doses), LEFT + 6, WIDTH - RIGHT - 6)
    y = Axis(0, 1, 196, 16)
    c = Axis(0.5, 1, 266, 226)
    parts = _frame(x, y, doses, 272)
    parts += _null(curve, x, y) + _persona(curve, y) + _score(curve, x, y) + _coherence(curve, x, c)
    best = curve.best
    label = (
        f"{curve.concept}: score rises from {short(curve.rows[0].score)} at dose {signed(doses[0])} to "
        f"{short(best.score)} at {signed(best.dose)}, the best coherent dose; the persona prompt reaches "
        f"{short(curve.persona.score)}"
    )
    return svg(300, label, parts)


def _frame(x: Axis, y: Axis, doses: Sequence[float], bottom: float) -> list[str]:
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        if tick in (0, 0.5, 1):
            parts.append(text(LEFT - 6, y(tick) + 4, f"{tick:g}", "tick", "end"))
    parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="16" y2="{bottom - 6}"/>')
    parts += [text(x(d), bottom + 12, signed(d), "tick") for d in spaced(doses, x, gap=30)]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, bottom + 26, "total dose", "tick"))
    return parts


def _null(curve: Curve, x: Axis, y: Axis) -> list[str]:
    sides = [[r for r in curve.random if r.row.dose < 0], [r for r in curve.random if r.row.dose > 0]]
    start = next((r for r in curve.rows if r.dose == 0), None)
    zero = [] if start is None else [(0.0, start.score, start.score)]
    left = [(r.row.dose, min(r.scores), r.q95) for r in sides[0]]
    right = [(r.row.dose, min(r.scores), r.q95) for r in sides[1]]
    return [band(x, y, left + zero + right, "null")]


def _persona(curve: Curve, y: Axis) -> list[str]:
    at, p = y(curve.persona.score), curve.persona
    ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}"'
    tip = f"persona prompt: {p.score:.2f} [{p.low:.2f}, {p.high:.2f}], coherence {p.coherence:.2f}, n = {p.n}"
    # The label sits over the left half, where the curve is low.
    return [
        f'<line class="persona" {ends} y1="{at}" y2="{at}"><title>{tip}</title></line>',
        text(
            LEFT + 4,
            at - 5 if at > 30 else at + 13,
            f"persona prompt {short(p.score)}",
            "persona-label",
            "start",
        ),
    ]


def _score(curve: Curve, x: Axis, y: Axis) -> list[str]:
    good = [coherent(r.coherence, curve.unsteered) for r in curve.rows]
    parts = [band(x, y, [(r.dose, r.low, r.high) for r in curve.rows], "band")]
    for (a, ok_a), (b, ok_b) in zip(zip(curve.rows, good), list(zip(curve.rows, good))[1:]):
        kind = "curve" if ok_a and ok_b else "curve broken"
        parts.append(line([(x(a.dose), y(a.score)), (x(b.dose), y(b.score))], kind))
    for row, ok in zip(curve.rows, good):
        tip = (
            f"dose {signed(row.dose)}: score {row.score:.2f} [{row.low:.2f}, {row.high:.2f}], "
            f"coherence {row.coherence:.2f}{'' if ok else ' (not coherent)'}, n = {row.n}"
        )
        kind = "dot" if ok else "dot hollow"
        parts.append(
            f'<circle class="{kind}" cx="{x(row.dose)}" cy="{y(row.score)}" r="4"><title>{tip}</title></circle>'
        )
    best = curve.best
    parts.append(f'<circle class="best" cx="{x(best.dose)}" cy="{y(best.score)}" r="8"/>')
    anchor = "end" if x(best.dose) > WIDTH * 0.6 else "middle"
    parts.append(text(x(best.dose) - 4, y(best.score) - 13, short(best.score), "best-label", anchor))
    return parts


def _coherence(curve: Curve, x: Axis, c: Axis) -> list[str]:
    limit = curve.unsteered - SLACK
    points = [(x(r.dose), c(max(0.5, r.coherence))) for r in curve.rows]
    dots = "".join(
        f'<circle class="co-dot{"" if coherent(r.coherence, curve.unsteered) else " hollow"}" cx="{px}" cy="{py}" '
        f'r="2.5"><title>coherence {r.coherence:.2f} at dose {signed(r.dose)}</title></circle>'
        for r, (px, py) in zip(curve.rows, points)
    )
    return [
        text(LEFT + 4, c(1) - 8, "coherence", "tick", "start"),
        f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{c(limit)}" y2="{c(limit)}"/>',
        text(LEFT - 6, c(1) + 4, "1", "tick", "end"),
        text(LEFT - 6, c(0.5) + 4, ".5", "tick", "end"),
        line(points, "co"),
        dots,
    ]


def honesty_chart(rows: Sequence[HonestyRow], title: str, names: Sequence[str], ceiling: float) -> str:
    """Mean signed log-ratio with its interval over doses (or the learned vector's −1, 0, +1), accuracy as labels."""
    x = Axis(0, len(rows) - 1, LEFT + 24, WIDTH - RIGHT - 20)
    y = Axis(-ceiling, ceiling, 196, 20)
    parts = [f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(0)}" y2="{y(0)}"/>']
    parts += [
        text(LEFT - 6, y(v) + 4, f"{v:+g}".replace("-", "−") if v else "0", "tick", "end")
        for v in (-round(ceiling * 0.8), 0, round(ceiling * 0.8))
    ]
    parts += [text(LEFT + 4, 14, "honest ↑", "tick", "start"), text(LEFT + 4, 208, "lie ↓", "tick", "start")]
    parts.append(line([(x(i), y(r.log_ratio)) for i, r in enumerate(rows)], "curve"))
    for i, r in enumerate(rows):
        tip = (
            f"{title} {names[i]}: log-ratio {r.log_ratio:+.2f} [{r.low:+.2f}, {r.high:+.2f}], accuracy "
            f"{r.accuracy:.2f}, coherence {r.coherence:.2f}, n = {r.n}"
        )
        parts.append(f'<line class="bar" x1="{x(i)}" x2="{x(i)}" y1="{y(r.low)}" y2="{y(r.high)}"/>')
        parts.append(
            f'<circle class="dot" cx="{x(i)}" cy="{y(r.log_ratio)}" r="5"><title>{tip}</title></circle>'
        )
        parts.append(text(x(i), 228, names[i], "tick"))
        parts.append(text(x(i), 246, f"{r.accuracy:.0%}", "best-label"))
    parts.append(text(LEFT - 6, 246, "right", "tick", "end"))
    return svg(256, f"{title}: accuracy {', '.join(f'{r.accuracy:.0%}' for r in rows)}", parts)


def honesty_charts(h: Honesty) -> tuple[str, str]:
    """Both directions on one scale, side by side."""
    learned = (h.minus, h.zero, h.plus)
    ceiling = 1.15 * max(abs(v) for r in (*h.mean_diff, *learned) for v in (r.low, r.high, r.log_ratio))
    left = honesty_chart(h.mean_diff, "mean difference, dose", [signed(r.dose) for r in h.mean_diff], ceiling)
    right = honesty_chart(learned, "learned vector", ["−1", "0", "+1"], ceiling)
    return left, right
