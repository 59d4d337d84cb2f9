"""A sweep as a page that is kept: heatmaps of cell by dose, the chosen cell's curves, examples, and every number; and
its block for a model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trimtab.evaluation.cells import Cell
from trimtab.evaluation.curves import Curve, Point
from trimtab.evaluation.reporting import card, folder, parts
from trimtab.evaluation.reporting.charts import Mark, Square, dose_curve, heat, item_slopes
from trimtab.evaluation.reporting.ship import Ship
from trimtab.evaluation.statistics import Estimate
from trimtab.evaluation.strengths import strengths
from trimtab.evaluation.sweep import Sweep
from trimtab.evaluation.sweep_tables import About, chosen_row, chosen_table, numbers, strengths_table
from trimtab.pages.drawing import signed


def report(found: Sweep, about: About) -> folder.Report:
    """The page, the tables and the card."""
    final = found.final or tuple(c for c in found.curves if c.cell == found.choice.cell)
    chosen, tried = (
        chosen_table(found, final, about),
        numbers("cells", "Every cell at every dose", found.curves),
    )
    papers = [chosen, tried]
    if found.final:
        papers.append(
            numbers("curves", "The chosen cell at every dose, on items that chose nothing", found.final)
        )
    if about.files:
        papers.append(strengths_table(found, strengths(found.curves, about.files)))
    block = card.markdown([_card(c, found, about) for c in final], about.command)
    concepts = list(dict.fromkeys(c.concept for c in found.curves))
    maps = [
        parts.figure(k, heatmap([c for c in found.curves if c.concept == k], found.choice.cell))
        for k in concepts
    ]
    shown = (
        chosen.part(DID, chosen.title, chosen.notes),
        chosen.part(COSTS, "The same doses: beside the other baselines, and what they cost"),
    )
    body = parts.section("The chosen cell", "", "".join(t.html() for t in shown) + _warnings(found))
    body += parts.section("Where and how much", MAPS.format(score=about.score), parts.charts(maps))
    body += _final(found, final, about)
    for c in final:
        inside = parts.triplets(found.examples.get(c.concept, ()), about.score)
        body += parts.section(f"Examples: {c.concept}", "", inside) if inside else ""
    body += parts.section("Every number", "", parts.tables(papers[1:])) + parts.card(block)
    facts = (*about.facts, ("cells × concepts × doses tried", str(found.tried)), ("command", about.command))
    page = parts.page("trimtab sweep", f"Sweep of {about.model}", f"{found.choice.reason}.", facts, body)
    return folder.Report(page, tuple(papers), block)


MAPS = (
    "Each square is what a dose adds to the score ({score}) against the plain model: warm is more, cool is less. A "
    "dashed frame means that the text is no longer coherent; the thick frame is the best coherent dose of the "
    "chosen cell."
)
FINAL = "Mean score over doses, beside everything it must be compared with."
#: The columns of the chosen cell's table as a page shows them, in two parts.
DID = ("concept", "dose", "plain", "score", "null_q95", "prefix", "slope", "p", "anti_steered")
COSTS = (
    "concept", "dose", "against_prefix", "mean_difference", "against_mean_difference", "coherent", "safe", "fluency",
    "length", "cut", "n",
)  # fmt: skip
OPTIMISTIC = "Every item took part in the choice: the figures are optimistic."


def _final(found: Sweep, final: Sequence[Curve], about: About) -> str:
    ships = {c.concept: about.ships.get(c.concept) or _coherent(c) for c in final}
    figures, slopes = [], []
    for c in final:
        ship = ships[c.concept]
        figures.append(
            parts.figure(c.concept, chart(c, found, ship), f"Shaded: {ship.said}." if ship else "")
        )
        if sum(p.finite for p in c.points) > 1:
            s = c.study()
            words = f"{s.against:.0%} of {len(s.slopes)} items go the other way; mean {_est(s.slope)}"
            drawing = item_slopes(f"{c.concept}: slope of every item", s.slopes)
            slopes.append(parts.figure(f"{c.concept}: each item's own slope", drawing, words))
    null = (
        "grey: random directions of the same length, lowest to 95 % quantile"
        if any(c.null for c in final)
        else ""
    )
    told = "words in front of the prompt instead of a vector" if found.prefixes else ""
    legend = parts.curve_legend(null, told, parts.shaded_words(list(ships.values())))
    title = "The chosen cell, on items that chose nothing" if found.final else "The chosen cell"
    drawn = parts.charts(figures, legend) + (parts.charts(slopes) if slopes else "")
    return parts.section(title, FINAL if found.final else OPTIMISTIC, drawn)


def heatmap(curves: Sequence[Curve], chosen: Cell) -> str:
    """One concept: cells down, doses across."""
    doses = sorted({p.dose for c in curves for p in c.points})
    gains = {
        (i, p.dose): float(p.items.mean() - c.plain.items.mean())
        for i, c in enumerate(curves)
        for p in c.points
        if p.finite
    }
    top = max((abs(v) for v in gains.values()), default=0.0) or 1.0
    shared = [j for j, d in enumerate(doses) if all(d in {p.dose for p in c.points} for c in curves)]
    rows = []
    for i, curve in enumerate(curves):
        mine = curve.cell == chosen
        at = {p.dose: _square(gains.get((i, p.dose)), top, p, mine and p is curve.best) for p in curve.points}
        rows.append((curve.cell.name, mine, [at.get(d) for d in doses]))
    label = f"{curves[0].concept}: gain of every cell at every dose, at most {top:.2g}"
    return heat(label, rows, [signed(d) for d in doses], shared)


def _square(gain: float | None, top: float, p: Point, chosen: bool) -> Square:
    tip = "" if gain is None else f"{gain:+.3g}{'' if p.good else ', not coherent'}"
    return Square(gain, 0.0 if gain is None else gain / top, tip, p.good, chosen)


def chart(curve: Curve, found: Sweep, ship: Ship | None) -> str:
    """Score over doses of one concept, with its null band, the prompt baseline and the shaded range."""
    points = {p.dose: p for p in curve.points}
    marks = [
        Mark(
            r.dose, r.score, r.low, r.high, points[r.dose].good,
            f"dose {signed(r.dose)}: {r.score:.3g} [{r.low:.3g}, {r.high:.3g}], fluency {r.coherence:.3g}, n = {r.n}",
        )
        for r in curve.rows()
    ]  # fmt: skip
    ends = {s: (min(v), max(curve.band(s) or min(v), min(v))) for s, v in curve.null.items() if v}
    plain = float(curve.plain.items.mean())
    null = [(m.dose, *ends[abs(m.dose)]) for m in marks if abs(m.dose) in ends]
    null += [(0.0, plain, plain)] if null else []
    told = found.prefixes.get(curve.concept)
    prompts = [] if told is None else [("words in front of the prompt", told.mean)]
    return dose_curve(f"{curve.concept}: score over doses", marks, null, prompts, ship)


def _coherent(curve: Curve) -> Ship | None:
    if sum(p.finite for p in curve.points) < 2:
        return None
    low, high = curve.study().coherence_range
    return Ship(low, high, "coherent in this run", calibrated=False) if np.isfinite(low) else None


def _warnings(found: Sweep) -> str:
    said = [f"{c.cell.name}, {c.concept}: {w}" for c in found.final for w in c.warnings]
    said += [
        f"{c.cell.name}, {c.concept}, on the items that chose: {w}" for c in found.curves for w in c.warnings
    ]
    optimistic = "" if found.final else parts.warnings([OPTIMISTIC])
    return optimistic + parts.warnings(said)


def _card(curve: Curve, found: Sweep, about: About) -> card.Card:
    row = chosen_row(curve, found, about.ships.get(curve.concept))
    ship, dose = about.ships.get(curve.concept), row["dose"]
    beyond = (
        "; beyond the calibrated safe range" if ship is not None and not ship.low <= dose <= ship.high else ""
    )
    facts = [
        ("Vector", about.vectors.get(curve.concept, curve.concept)),
        ("Model", card.model_words(about.model, about.revision)), ("Method", curve.cell.method),
        ("Layer", about.where or curve.cell.name), ("Dose", f"{signed(dose)}, chosen on other items{beyond}"),
        ("Calibrated safe range", card.NOT_CALIBRATED if ship is None else ship.said),
    ]  # fmt: skip
    if "score" in row:
        null = row["null_q95"]
        base = f"{row['plain']:.3f} untouched, {_est(row['score'])} steered (n = {row['n']} items, {about.score})"
        if row["prefix"] is not None:
            base += f"; a prompt reaches {_est(row['prefix'])}"
        if row.get("mean_difference") is not None:
            base += f"; the mean difference at the same place and dose reaches {_est(row['mean_difference'])}"
        facts += [
            ("Effect", base),
            ("Random directions of the same norm", "none" if null is None else f"95 % stay under {null:.3f}"),
            ("Coherence", _coherence(row, about)), ("Cells tried", str(found.tried)),
        ]  # fmt: skip
    if not found.final:
        facts[4] = ("Dose", f"{signed(dose)}, chosen on the same items (optimistic){beyond}")
    return card.Card(f"Steering: {curve.concept}", tuple(facts))


def _coherence(row: dict[str, Any], about: About) -> str:
    low, high = row.get("coherent", (float("nan"), float("nan")))
    said = f"{about.fluency} {row['fluency']:.3f}; coherent from {signed(low)} to {signed(high)}"
    if np.isfinite(row["length"]):
        said += f"; replies of {row['length']:.1f} tokens, {row['cut']:.0%} cut at the limit"
    return said


def _est(e: Estimate) -> str:
    return f"{e.mean:.3f} [{e.low:.3f}, {e.high:.3f}]".replace("-", "−")
