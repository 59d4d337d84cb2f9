"""Tables of a transfer study for a paper: one row per method, every condition, every value, the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.evaluation.reporting.paper import Column, Paper
from trimtab.evaluation.reporting.ship import Ship
from trimtab.evaluation.transfer.leaderboard import RULES, Board
from trimtab.evaluation.transfer.study import Opening, Report, Side

COLUMNS = (
    Column("side", "condition", kind="text"), Column("coherent", "coherent", kind="text"),
    Column("safe", "calibrated safe", kind="text"),
    Column("change", "change (nats)", "+.2f", "estimate"), Column("p", "p", ".2g"),
    Column("null", "random, 95 %", "+.2f", "range"), Column("others", "others", ".2f"),
    Column("delta_nll", "ΔNLL neutral", "+.2f"), Column("delta_nll_prompt", "ΔNLL prompt", "+.2f"),
    Column("valid", "valid", ".0%"), Column("length", "tokens", ".1f"), Column("cut", "cut", ".0%"),
    Column("params", "parameters"), Column("efficiency", "efficiency", ".3f"), Column("n", "n"),
)  # fmt: skip


def tables(done: Report, unit: str, ships: Mapping[str, Ship]) -> tuple[Paper, ...]:
    """All of them; the first has one row per method at its own largest coherent strength."""
    found = (methods(done, unit, ships), conditions(done, ships), leaderboard(done.board), values(done))
    return tuple(t for t in found if t.rows)


def methods(done: Report, unit: str, ships: Mapping[str, Ship]) -> Paper:
    """One row per method at its own largest coherent strength, both signs."""
    columns = (
        Column("method", "method", kind="text"), Column("strength", f"{unit} ±", "g"),
        Column("plus", "change at + (nats)", "+.2f", "estimate"),
        Column("minus", "change at −", "+.2f", "estimate"),
        Column("null", "random, 95 %", "+.2f", "range"), Column("p_holm", "p (Holm)", ".2g"),
        Column("slope", "slope per item", "+.2f", "estimate"), Column("anti_steered", "anti-steered", ".0%"),
        Column("others", "others", ".2f"), Column("moved", "values moved"), Column("tested", "of"),
        Column("coherent", "coherent", "g", "range"), Column("safe", "calibrated safe", ".3g", "range"),
        Column("delta_nll_plus", "ΔNLL at +", "+.2f"), Column("delta_nll_minus", "ΔNLL at −", "+.2f"),
        Column("length_plus", "tokens at +", ".1f"), Column("length_minus", "tokens at −", ".1f"),
        Column("cut_plus", "cut at +", ".0%"), Column("cut_minus", "cut at −", ".0%"), Column("n", "n"),
    )  # fmt: skip
    notes = (
        f"Target {done.target}, n = {done.n} dilemmas that take a side on it; {done.n_select} other dilemmas chose "
        f"each strength. {done.tried} method × signed strength cells were tried.",
        "Change is against the plain model, with its 95 % BCa interval over dilemmas; both signs always stand there. "
        "Random: what directions of the same norm reach.",
    )
    rows = tuple(_method(o, ships.get(o.arm), done.n) for o in done.openings)
    return Paper(
        "methods", f"Each method at its own largest coherent {unit}: {done.target}", columns, rows, notes
    )


def _method(o: Opening, ship: Ship | None, n: int) -> dict[str, Any]:
    safe = {"safe": (ship.low, ship.high)} if ship is not None and ship.calibrated else {}
    row: dict[str, Any] = {"method": o.arm, "coherent": o.coherent_range, "n": n, **safe}
    if o.row is None or o.slopes is None:
        return row
    plus, minus = o.row.plus, o.row.minus
    return row | {
        "strength": o.strength, "plus": plus.change.target, "minus": minus.change.target, "null": o.row.null,
        "p_holm": o.p_holm, "slope": o.slopes.slope, "anti_steered": o.slopes.anti_steered,
        "others": plus.change.others, "moved": len(o.row.breadth.moved), "tested": o.row.breadth.tested,
        "delta_nll_plus": plus.delta_nll_neutral, "delta_nll_minus": minus.delta_nll_neutral,
        "length_plus": plus.length, "length_minus": minus.length, "cut_plus": plus.cut, "cut_minus": minus.cut,
    }  # fmt: skip


def conditions(done: Report, ships: Mapping[str, Ship]) -> Paper:
    """Every method at every signed strength, and whether it lies in the calibrated range; prompts, trained weights."""
    found = [
        {
            "side": f"{r.arm} {s.strength:+g}",
            "coherent": "yes" if s.coherent else "no",
            "safe": _inside(ships.get(r.arm), s.strength),
            "null": r.null,
            **_side(s),
        }
        for r in done.rows
        for s in (r.plus, r.minus)
    ]
    found += [
        {"side": k, "coherent": "yes" if s.coherent else "no", **_side(s)} for k, s in done.beside.items()
    ]
    dim = frozenset(i for i, row in enumerate(found) if row["coherent"] == "no")
    notes = (
        "Coherent is judged on neutral texts and on the dilemmas that only choose the strength.",
        "Efficiency: |change| ÷ ln(1 + parameters), which are the numbers of the direction at every layer where it "
        "acts, or of the trained weights; words have none.",
    )
    return Paper("conditions", "Every condition, both signs", COLUMNS, tuple(found), notes, dim=dim)


def _inside(ship: Ship | None, strength: float) -> str | None:
    if ship is None or not ship.calibrated:
        return None
    return "inside" if ship.holds(strength) else "beyond"


def _side(s: Side) -> dict[str, Any]:
    return {
        "change": s.change.target, "p": s.change.p, "others": s.change.others, "delta_nll": s.delta_nll_neutral,
        "delta_nll_prompt": s.delta_nll_prompt, "valid": s.valid, "length": s.length, "cut": s.cut,
        "params": s.params, "efficiency": s.efficiency,
        "n": s.change.target.n,
    }  # fmt: skip


def values(done: Report) -> Paper:
    """What every value did, per method at its own strength."""
    columns = (
        Column("method", "method", kind="text"), Column("value", "value", kind="text"),
        Column("plus", "change at + (nats)", "+.2f", "estimate"),
        Column("minus", "change at −", "+.2f", "estimate"), Column("null", "random, 95 %", "+.2f", "range"),
        Column("n", "n"),
    )  # fmt: skip
    rows = [
        {"method": o.arm, "value": v.value, "plus": v.plus, "minus": v.minus, "null": v.null, "n": v.n}
        for o in done.openings
        for v in o.values
    ]
    return Paper("values", "The target and the other values", columns, tuple(rows))


def leaderboard(found: Board) -> Paper:
    """Conditions under the four rules side by side with their ranks, the best under `forced` first."""
    forms = {"forced": "+.2f", "free": "+.2f", "binary": ".0%", "signed": "+.2f"}
    columns = [Column("model", "model", kind="text"), Column("condition", "condition", kind="text")]
    for rule in RULES:
        columns += [Column(rule, rule, forms[rule]), Column(f"rank_{rule}", "#")]
        columns += [Column("missing", "no answer", ".0%")] if rule == "free" else []
    columns += [
        Column("valid", "valid", ".0%"),
        Column("length", "tokens", ".1f"),
        Column("cut", "cut", ".0%"),
    ]
    rows = [
        {**{k: getattr(s, k) for k in ("model", "condition", *RULES, "missing", "valid", "length", "cut", "n")},
         **{f"rank_{r}": rank[r] for r in RULES}}
        for s, rank in sorted(zip(found.standings, found.ranks, strict=True), key=lambda x: x[1]["forced"] or 0)
    ]  # fmt: skip
    flag = "The conditions have one order under all rules."
    if found.order_depends_on_the_rule:
        pairs = "; ".join(
            f"{a} leads {b} by {up}, and trails by {down}" for a, b, up, down in found.disputed[:6]
        )
        more = "" if len(found.disputed) <= 6 else f"; and {len(found.disputed) - 6} more pairs"
        flag = f"The order depends on the rule: {pairs}{more}."
    return Paper("leaderboard", "Leaderboard", (*columns, Column("n", "n")), tuple(rows), (flag,))
