"""A sweep as a page that is kept: heatmaps of cell by dose, the chosen cell's curves, examples, and every number; its
tables, and its block for a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.evaluation.cells import Cell
from trimtab.evaluation.curves import Curve, Point
from trimtab.evaluation.reporting import card, folder, parts
from trimtab.evaluation.reporting.charts import Mark, Square, dose_curve, heat, item_slopes
from trimtab.evaluation.reporting.paper import Column, Paper
from trimtab.evaluation.reporting.ship import Ship
from trimtab.evaluation.statistics import Estimate
from trimtab.evaluation.strengths import Strength, strengths
from trimtab.evaluation.sweep import Sweep
from trimtab.pages.drawing import signed


@dataclass(frozen=True)
class About:
    """What was swept: `facts` (name, words) for the top; `ships` are the calibrated ranges of the chosen cell, by
    concept; `vectors` and `where` name it in the card; the command line repeats it. `files` (method → its vectors) are
    what doses are turned into scales with."""

    model: str
    score: str
    fluency: str
    facts: tuple[tuple[str, str], ...] = ()
    revision: str | None = None
    command: str = "trimtab sweep"
    ships: Mapping[str, Ship] = field(default_factory=dict)
    vectors: Mapping[str, str] = field(default_factory=dict)
    where: str = ""
    files: Mapping[str, ConceptVectors] = field(default_factory=dict)


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
    body = parts.section("The chosen cell", "", chosen.html() + _warnings(found))
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
OPTIMISTIC = "Every item took part in the choice: the figures are optimistic."


def _final(found: Sweep, final: Sequence[Curve], about: About) -> str:
    ships = {c.concept: about.ships.get(c.concept) or _coherent(c) for c in final}
    figures = []
    for c in final:
        ship = ships[c.concept]
        figures.append(
            parts.figure(c.concept, chart(c, found, ship), f"Shaded: {ship.said}." if ship else "")
        )
        if sum(p.finite for p in c.points) > 1:
            s = c.study()
            words = f"{s.against:.0%} of {len(s.slopes)} items go the other way; mean {_est(s.slope)}"
            drawing = item_slopes(f"{c.concept}: slope of every item", s.slopes)
            figures.append(parts.figure(f"{c.concept}: each item's own slope", drawing, words))
    null = (
        "grey: random directions of the same length, lowest to 95 % quantile"
        if any(c.null for c in final)
        else ""
    )
    told = "words in front of the prompt instead of a vector" if found.prefixes else ""
    legend = parts.curve_legend(null, told, parts.shaded_words(list(ships.values())))
    title = "The chosen cell, on items that chose nothing" if found.final else "The chosen cell"
    return parts.section(title, FINAL if found.final else OPTIMISTIC, parts.charts(figures, legend))


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


# --- tables


MEANS = (
    Column("mean_difference", "mean difference", ".3f", "estimate"),
    Column("against_mean_difference", "less mean difference", "+.3f", "estimate"),
)


def chosen_table(found: Sweep, final: Sequence[Curve], about: About) -> Paper:
    """One row per concept: the chosen cell at the dose that the choosing items gave."""
    columns = (
        Column("concept", "concept", kind="text"), Column("cell", "cell", kind="text"), Column("dose", "dose", "+.3g"),
        Column("plain", "plain", ".3f"), Column("score", about.score, ".3f", "estimate"),
        Column("null_q95", "random 95 %", ".3f"), Column("prefix", "prompt", ".3f", "estimate"),
        Column("against_prefix", "less prompt", "+.3f", "estimate"), *(MEANS if found.means else ()),
        Column("slope", "slope per item", "+.3f", "estimate"), Column("p", "p", ".2g"),
        Column("anti_steered", "anti-steered", ".0%"), Column("coherent", "coherent", ".3g", "range"),
        Column("safe", "calibrated safe", ".3g", "range"), Column("fluency", "fluency", ".3f"),
        Column("length", "tokens", ".1f"), Column("cut", "cut", ".0%"), Column("n", "n"),
    )  # fmt: skip
    rows = tuple(_chosen(c, found, about.ships.get(c.concept)) for c in final)
    where = "on items that chose nothing" if found.final else "on the items that chose it (optimistic)"
    notes = (
        f"{where.capitalize()}; score: {about.score}, fluency: {about.fluency}. {found.tried} cells × concepts × doses "
        "were tried. Intervals are 95 % BCa over items; random: the 95 % quantile of directions of the same size.",
    )
    return Paper("chosen", f"{found.choice.cell.name}, {where}", columns, rows, notes)


def _chosen(curve: Curve, found: Sweep, ship: Ship | None) -> dict[str, Any]:
    dose = found.choice.doses[curve.concept]
    point = next(p for p in curve.points if p.dose == dose)
    row = {"concept": curve.concept, "cell": curve.cell.name, "dose": dose, "n": len(point.items)}
    if not (point.finite and curve.plain.finite):
        return row
    row |= _point(curve, point) | {
        "plain": float(curve.plain.items.mean()),
        "prefix": found.prefixes.get(curve.concept),
        "against_prefix": found.against_prefix.get(curve.concept),
        "safe": None if ship is None else (ship.low, ship.high),
    }
    if found.means:
        row["mean_difference"] = found.means.get(curve.concept)
        row["against_mean_difference"] = found.against_means.get(curve.concept)
    if sum(p.finite for p in curve.points) < 2:
        return row
    s = curve.study()
    return row | {"slope": s.slope, "p": s.p_items, "anti_steered": s.against, "coherent": s.coherence_range}


def _point(curve: Curve, p: Point) -> dict[str, Any]:
    """One finite dose, as `Curve.to_json` has it."""
    r = next(r for r in curve.rows() if r.dose == p.dose)
    return {
        "score": Estimate(r.score, r.low, r.high, r.n), "null_q95": curve.band(p.dose), "fluency": p.fluency,
        "length": p.length, "cut": p.cut, "n": r.n,
    }  # fmt: skip


def numbers(name: str, title: str, curves: Sequence[Curve]) -> Paper:
    """Every cell and concept at every dose."""
    columns = (
        Column("cell", "cell", kind="text"), Column("concept", "concept", kind="text"), Column("dose", "dose", "+.3g"),
        Column("score", "score", ".3f", "estimate"), Column("null_q95", "random 95 %", ".3f"),
        Column("fluency", "fluency", ".3f"), Column("coherent", "coherent", kind="text"),
        Column("length", "tokens", ".1f"), Column("cut", "cut", ".0%"), Column("n", "n"),
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    best, dim = set(), set()
    for curve in curves:
        made = {r.dose: r for r in curve.rows()}
        for p in (p for p in curve.points if p.finite):
            r = made[p.dose]
            (best if p is curve.best and p.dose else dim if not p.good else set()).add(len(rows))
            rows.append({
                "cell": curve.cell.name, "concept": curve.concept, "dose": p.dose,
                "score": Estimate(r.score, r.low, r.high, r.n), "null_q95": curve.band(p.dose), "fluency": p.fluency,
                "coherent": "yes" if p.good else "no", "length": p.length, "cut": p.cut, "n": r.n,
            })  # fmt: skip
    return Paper(name, title, columns, tuple(rows), best=frozenset(best), dim=frozenset(dim))


def strengths_table(found: Sweep, sizes: Sequence[Strength]) -> Paper:
    """Norms of every cell, and its best coherent dose beside what the rule of thumb allows."""
    columns = (
        Column("cell", "cell", kind="text"), Column("concept", "concept", kind="text"),
        Column("separability", "separability", "+.2f"), Column("typical_norm", "typical norm", ".4g"),
        Column("raw_norm", "raw norm", ".4g"), Column("dose", "best dose", "+.3g"),
        Column("scale", "as a scale", ".3g"), Column("rule_300_scale", "300 / ‖v‖", ".3g"),
        Column("rule_300_dose", "as a dose", ".3g"),
    )  # fmt: skip
    rows = tuple(
        {"cell": s.cell.name, "concept": s.concept, "separability": s.separation, "typical_norm": s.typical_norm,
         "raw_norm": s.raw_norm, "dose": s.dose, "scale": s.scale, "rule_300_scale": s.rule_scale,
         "rule_300_dose": s.rule_dose}
        for s in sizes
    )  # fmt: skip
    notes = (
        "Norms at each cell's middle layer. The rule of thumb allows a scale of 300 / ‖v‖, a displacement of 300 in "
        "units of the residual stream, whatever the model; a dose is a share of the typical norm.",
    )
    best = frozenset(i for i, s in enumerate(sizes) if s.cell == found.choice.cell)
    return Paper("strengths", "Norms, and the rule of thumb", columns, rows, notes, best)


def _warnings(found: Sweep) -> str:
    said = [f"{c.cell.name}, {c.concept}: {w}" for c in found.final for w in c.warnings]
    said += [
        f"{c.cell.name}, {c.concept}, on the items that chose: {w}" for c in found.curves for w in c.warnings
    ]
    optimistic = "" if found.final else parts.warnings([OPTIMISTIC])
    return optimistic + parts.warnings(said)


def _card(curve: Curve, found: Sweep, about: About) -> card.Card:
    row = _chosen(curve, found, about.ships.get(curve.concept))
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
