"""A sweep as one self-contained page: heatmaps of cell by dose, the chosen cell's curves, and every number."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.evaluation.cells import Cell
from trimtab.evaluation.curves import Curve
from trimtab.evaluation.strengths import strengths
from trimtab.evaluation.sweep import Sweep
from trimtab.pages.document import document, table
from trimtab.pages.drawing import LEFT, RIGHT, WIDTH, Axis, band, line, short, signed, svg, text

#: Height of a heatmap's row, room for the names of cells, for a dose above a column and for a figure in a square.
ROW, NAMES, LABEL, FIGURE = 24, 118, 32, 22
#: So many warnings stand in the open; more are folded.
OPEN_WARNINGS = 3

STYLE = """
.chart .heat { fill: var(--warm-fill); } .chart .heat.less { fill: var(--cool-fill); }
.chart .heat-text { font-size: 10px; fill: var(--ink); } .chart .salad { stroke: var(--null); stroke-width: 1.5; }
.chart .chosen { fill: none; stroke: var(--ink); stroke-width: 2; }
.chart text.bold { font-weight: 700; fill: var(--ink); }
.chart .ship { fill: var(--cool-fill); opacity: .12; }
.chart .told { stroke: var(--cool); stroke-dasharray: 6 4; stroke-width: 1.5; }
"""


def page(
    found: Sweep,
    title: str,
    about: Sequence[tuple[str, str]],
    score: str,
    fluency: str,
    files: Mapping[str, ConceptVectors],
) -> str:
    """The whole page; `about` are facts (name, value) of the run, `files` the vectors of each method."""
    facts = "".join(f"<li>{html.escape(k)}: <b>{html.escape(v)}</b></li>" for k, v in about)
    concepts = list(dict.fromkeys(c.concept for c in found.curves))
    maps = "".join(
        f"<figure><figcaption><h3>{html.escape(c)}</h3></figcaption>"
        f"{heatmap([k for k in found.curves if k.concept == c], found.choice.cell)}</figure>"
        for c in concepts
    )
    lines = "".join(
        f"<figure><figcaption><h3>{html.escape(c.concept)}</h3></figcaption>{chart(c, found)}</figure>"
        for c in found.final
    )
    final = (
        f"<section><h2>The chosen cell, on items that chose nothing</h2>"
        f"<p>Line: mean score with its 95 % interval over items; grey: random directions of the same length (lowest to "
        f"95 % quantile); dashed: words in front of the prompt; shaded: doses at which the text stays coherent.</p>"
        f'<div class="charts">{lines}</div>{_numbers(found.final, score, fluency)}</section>'
        if found.final
        else '<p class="warn">Every item took part in the choice: the figures above are optimistic.</p>'
    )
    body = f"""<header class="top"><p class="eyebrow">trimtab sweep</p><h1>{html.escape(title)}</h1>
<p class="lede">{html.escape(found.choice.reason)}.</p><ul class="plain">{facts}<li>cells × concepts × doses tried:
<b>{found.tried}</b></li></ul></header><main>
<section><h2>Where and how much</h2><p>Each square is what a dose adds to the score ({html.escape(score)}) against the
plain model: warm is more, cool is less. A dashed frame means that the text is no longer coherent; the thick frame is
the best coherent dose of the chosen cell.</p><div class="charts">{maps}</div>
{_numbers(found.curves, score, fluency)}{_norms(found, files)}</section>{final}</main>"""
    return document(title, body, style=STYLE)


def heatmap(curves: Sequence[Curve], chosen: Cell) -> str:
    """One concept: cells down, doses across."""
    doses = sorted({p.dose for c in curves for p in c.points})
    step = (WIDTH - NAMES - RIGHT) / len(doses)
    gains = {
        (i, p.dose): float(p.items.mean() - c.plain.items.mean())
        for i, c in enumerate(curves)
        for p in c.points
        if p.finite
    }
    top = max((abs(v) for v in gains.values()), default=0.0) or 1.0
    shared = [d for d in doses if all(d in {p.dose for p in c.points} for c in curves)]
    parts = [text(x, 14, signed(d), "tick") for x, d in _labelled(doses, shared, step)]
    for i, curve in enumerate(curves):
        y = 20 + i * ROW
        name = curve.cell.name
        parts.append(text(NAMES - 6, y + 16, name[-20:], "bold" if curve.cell == chosen else "tick", "end"))
        for p in curve.points:
            x = NAMES + doses.index(p.dose) * step
            gain = gains.get((i, p.dose))
            parts += _square(x, y, step, gain, top, p.good)
            if curve.cell == chosen and p is curve.best:
                parts.append(
                    f'<rect class="chosen" x="{x + 1:.1f}" y="{y + 1}" width="{step - 2:.1f}" height="{ROW - 2}"/>'
                )
    label = f"{curves[0].concept}: gain of every cell at every dose, at most {top:.2g}"
    return svg(24 + len(curves) * ROW, label, parts)


def _labelled(doses: Sequence[float], first: Sequence[float], step: float) -> list[tuple[float, float]]:
    """(x, dose) of the labels that fit beside each other; those of `first` are placed before the others."""
    placed: list[tuple[float, float]] = []
    for d in [*first, *(d for d in doses if d not in first)]:
        x = NAMES + (doses.index(d) + 0.5) * step
        if all(abs(x - other) >= LABEL for other, _ in placed):
            placed.append((x, d))
    return sorted(placed)


def _square(x: float, y: float, step: float, gain: float | None, top: float, good: bool) -> list[str]:
    frame = f'x="{x + 1:.1f}" y="{y + 1}" width="{step - 2:.1f}" height="{ROW - 2}"'
    if gain is None:
        return [text(x + step / 2, y + 16, "n/a", "tick")]
    kind = "heat" if gain >= 0 else "heat less"
    salad = "" if good else ' stroke-dasharray="3 2"'
    kind += "" if good else " salad"
    square = (
        f'<rect class="{kind}" {frame} fill-opacity="{0.06 + 0.9 * abs(gain) / top:.2f}"{salad}>'
        f"<title>{gain:+.3g}{'' if good else ', not coherent'}</title></rect>"
    )
    return [square, text(x + step / 2, y + 16, short(gain), "heat-text")] if step >= FIGURE else [square]


def chart(curve: Curve, found: Sweep) -> str:
    """Score over doses of one concept, with its null band and the prompt baseline."""
    rows = curve.rows()
    told = found.prefixes.get(curve.concept)
    null = {s: (min(v), max(curve.band(s) or min(v), min(v))) for s, v in curve.null.items() if v}
    values = [v for r in rows for v in (r.low, r.high, r.score) if np.isfinite(v)]
    values += [v for pair in null.values() for v in pair] + ([told.mean] if told else [])
    pad = 0.05 * ((max(values) - min(values)) or 1.0)
    x = Axis(min(r.dose for r in rows), max(r.dose for r in rows), LEFT + 8, WIDTH - RIGHT - 6)
    y = Axis(min(values) - pad, max(values) + pad, 190, 12)
    parts = []
    low, high = curve.study().coherence_range
    if np.isfinite(low) and high > low:
        parts.append(f'<rect class="ship" x="{x(low)}" y="12" width="{x(high) - x(low):.1f}" height="178"/>')
    parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="12" y2="190"/>')
    plain = float(curve.plain.items.mean())
    nulls = [(r.dose, *(null.get(abs(r.dose), (plain, plain)) if r.dose else (plain, plain))) for r in rows]
    parts.append(band(x, y, nulls, "null"))
    parts.append(band(x, y, [(r.dose, r.low, r.high) for r in rows if np.isfinite(r.low)], "band"))
    parts.append(line([(x(r.dose), y(r.score)) for r in rows], "curve"))
    if told:
        parts.append(
            f'<line class="told" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(told.mean)}" y2="{y(told.mean)}"/>'
        )
    good = {p.dose: p.good for p in curve.points}
    for r in rows:
        tip = f"dose {signed(r.dose)}: {r.score:.3g} [{r.low:.3g}, {r.high:.3g}], fluency {r.coherence:.3g}, n = {r.n}"
        kind = "dot" if good[r.dose] else "dot hollow"
        parts.append(
            f'<circle class="{kind}" cx="{x(r.dose)}" cy="{y(r.score)}" r="4"><title>{tip}</title></circle>'
        )
    ticks = [min(r.dose for r in rows), 0.0, max(r.dose for r in rows)]
    parts += [text(x(d), 208, signed(round(d, 3)), "tick") for d in dict.fromkeys(ticks)]
    parts += [text(LEFT, y(v) + 4, short(v), "tick", "end") for v in (min(values), max(values))]
    return svg(216, f"{curve.concept}: score over doses", parts)


HEAD = (
    "cell, concept", "dose", "score", "95 % interval", "random 95 %", "fluency", "coherent", "tokens", "cut", "n",
)  # fmt: skip


def _numbers(curves: Sequence[Curve], score: str, fluency: str) -> str:
    rows: list[tuple[str, Sequence[str]]] = []
    for curve in curves:
        for r, p in zip(curve.rows(), (p for p in curve.points if p.finite), strict=True):
            null = curve.band(p.dose)
            cells = (
                html.escape(f"{curve.cell.name}, {curve.concept}"), signed(p.dose), f"{r.score:.3f}",
                f"[{r.low:.3f}, {r.high:.3f}]", "" if null is None else f"{null:.3f}", f"{p.fluency:.3f}",
                "yes" if p.good else "no", "" if np.isnan(p.length) else f"{p.length:.1f}",
                "" if np.isnan(p.cut) else f"{p.cut:.0%}", str(r.n),
            )  # fmt: skip
            rows.append(("bestrow" if p is curve.best and p.dose else "" if p.good else "dim", cells))
    notes = [
        f'<p class="warn">{html.escape(f"{c.cell.name}, {c.concept}: {w}")}</p>'
        for c in curves
        for w in c.warnings
    ]
    warned = "".join(notes)
    if len(notes) > OPEN_WARNINGS:
        warned = f"<details><summary>{len(notes)} warnings</summary>{warned}</details>"
    inside = table(HEAD, rows, f"score: {html.escape(score)}; fluency: {html.escape(fluency)}")
    return f"<details><summary>every number</summary>{inside}</details>{warned}"


NORMS = (
    "cell, concept", "separability", "typical norm", "raw norm", "best dose", "as a scale", "300 / ‖v‖", "as a dose",
)  # fmt: skip


def _norms(found: Sweep, files: Mapping[str, ConceptVectors]) -> str:
    """Norms of every cell, and its best coherent dose beside what the rule of thumb allows."""
    rows: list[tuple[str, Sequence[str]]] = []
    for s in strengths(found.curves, files):
        cells = (
            html.escape(f"{s.cell.name}, {s.concept}"), "" if s.separation is None else f"{s.separation:+.2f}",
            f"{s.typical_norm:.4g}", f"{s.raw_norm:.4g}", signed(s.dose), f"{s.scale:.3g}", f"{s.rule_scale:.3g}",
            f"{s.rule_dose:.3g}",
        )  # fmt: skip
        rows.append(("bestrow" if s.cell == found.choice.cell else "", cells))
    caption = (
        "Norms at each cell's middle layer. The rule of thumb allows a scale of 300 / ‖v‖, a displacement of 300 in "
        "units of the residual stream, whatever the model; a dose is a share of the typical norm."
    )
    return f"<details><summary>norms, and the rule of thumb</summary>{table(NORMS, rows, caption)}</details>"
