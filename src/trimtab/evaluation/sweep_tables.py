"""Tables of a sweep for a paper: the chosen cell, every cell at every dose, and doses beside the rule of thumb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.directions import ConceptVectors
from trimtab.evaluation.curves import Curve, Point
from trimtab.evaluation.reporting.paper import Column, Paper
from trimtab.evaluation.reporting.ship import Ship
from trimtab.evaluation.statistics import Estimate
from trimtab.evaluation.strengths import Strength
from trimtab.evaluation.sweep import Sweep


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
    rows = tuple(chosen_row(c, found, about.ships.get(c.concept)) for c in final)
    where = "on items that chose nothing" if found.final else "on the items that chose it (optimistic)"
    n = len(final[0].plain.items)
    notes = (
        f"{where.capitalize()}; score: {about.score}, fluency: {about.fluency}. {found.tried} cells × concepts × doses "
        f"were tried. Intervals are 95 % BCa over n = {n} items; random: the 95 % quantile of directions of the same "
        "size.",
    )
    return Paper("chosen", f"{found.choice.cell.name}, {where}", columns, rows, notes)


def chosen_row(curve: Curve, found: Sweep, ship: Ship | None) -> dict[str, Any]:
    """One concept of the chosen cell; only what there is where scores are not finite."""
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
