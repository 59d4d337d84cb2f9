"""A calibration as a page that is kept: what every size of push costs, the ranges it leaves, the check of the sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.evaluation.calibration import Found, Search
from trimtab.evaluation.reporting import card, folder, parts
from trimtab.evaluation.reporting.charts import Cost, Square, cost_curve, heat
from trimtab.evaluation.reporting.paper import Column, Paper
from trimtab.evaluation.sign_check import SignCheck
from trimtab.evaluation.statistics import Estimate

#: So many pictures of cost are drawn; the table has every search.
DRAWN = 24


@dataclass(frozen=True)
class About:
    """What was calibrated: the limit with its unit, the receipt that stands in the file (prompts, model, revision), the
    vectors in words by concept, the score of the sign check, and the command line that repeats it."""

    model: str
    limit: str
    value: float
    unit: str
    receipt: Mapping[str, Any]
    command: str
    score: str = ""
    vectors: Mapping[str, str] = field(default_factory=dict)
    method: str = ""


def report(
    wanted: Sequence[Search], found: Sequence[Found], signs: Sequence[SignCheck], about: About
) -> folder.Report:
    """The page, the tables and the card."""
    sides: dict[tuple[str, str, str], dict[int, Found]] = {}
    for s, f in zip(wanted, found, strict=True):
        sides.setdefault((s.concept, s.site.key, s.operator), {})[s.sign] = f
    ranges = ranges_table(sides, about)
    points, checks = points_table(wanted, found, about), signs_table(signs, about)
    block = card.markdown([_card(k, v, signs, about) for k, v in sides.items()], about.command)
    body = parts.section("How far each vector may be pushed", HOW, ranges.html())
    body += _maps(sides) + _costs(sides, about)
    if signs:
        body += parts.section("Does + push towards the concept?", SIGN, checks.html())
    body += parts.section("Every measured point", "", parts.tables((points,))) + parts.card(block)
    lede = f"The largest push whose cost stays within {about.limit} ≤ {about.value:g} {about.unit}, to both sides."
    facts = (("model", about.model), ("revision", str(about.receipt.get("revision"))),
             ("prompts", str(about.receipt.get("prompts"))), ("positions", str(about.receipt.get("positions"))),
             ("points measured", str(sum(len(f.curve) for f in found))), ("command", about.command))  # fmt: skip
    page = parts.page("trimtab calibrate", "How far is safe?", lede, facts, body)
    return folder.Report(page, (ranges, points, *([checks] if signs else [])), block)


HOW = (
    "A range ends at the largest strength below which every measured point keeps the limit. Not reached: the strongest "
    "push that was tried keeps it too. Not monotone: a stronger push cost less somewhere on the way."
)
SIGN = (
    "Score at +dose less score at −dose on prompts that the calibration did not use, with its 95 % interval."
)


def ranges_table(sides: Mapping[tuple[str, str, str], Mapping[int, Found]], about: About) -> Paper:
    """One row per concept, site and operator."""
    columns = (
        Column("concept", "concept", kind="text"), Column("site", "site", kind="text"),
        Column("operator", "operator", kind="text"), Column("low", "safe from", ".3g"),
        Column("high", "to", "+.3g"), Column("cost", f"{about.limit} there", ".3g"),
        Column("half_cost", "at half", ".3g"), Column("reached", "reached", kind="text"),
        Column("monotone", "monotone", kind="text"), Column("points", "points"),
    )  # fmt: skip
    rows = []
    for (concept, site, operator), both in sides.items():
        worst = max(both.values(), key=lambda f: f.cost)
        rows.append({
            "concept": concept, "site": site, "operator": operator,
            "low": -both[-1].strength if -1 in both else 0.0, "high": both[1].strength,
            "cost": worst.cost, "half_cost": worst.half_cost,
            "reached": "yes" if all(f.reached for f in both.values()) else "no",
            "monotone": "yes" if all(f.monotone for f in both.values()) else "no",
            "points": sum(len(f.curve) for f in both.values()),
        })  # fmt: skip
    note = f"{about.limit} ≤ {about.value:g} {about.unit} over {about.receipt.get('prompts')} prompts; both signs."
    return Paper("ranges", "Safe ranges", columns, tuple(rows), (note,))


def points_table(wanted: Sequence[Search], found: Sequence[Found], about: About) -> Paper:
    """Every strength that was measured, and what it cost."""
    columns = (
        Column("concept", "concept", kind="text"), Column("site", "site", kind="text"),
        Column("operator", "operator", kind="text"), Column("strength", "strength", "+.3g"),
        Column("cost", f"{about.limit} ({about.unit})", ".3g"), Column("kept", "within the limit", kind="text"),
    )  # fmt: skip
    rows = [
        {"concept": s.concept, "site": s.site.key, "operator": s.operator, "strength": s.sign * strength,
         "cost": cost, "kept": "yes" if cost <= about.value else "no"}
        for s, f in zip(wanted, found, strict=True)
        for strength, cost in f.curve
    ]  # fmt: skip
    dim = frozenset(i for i, row in enumerate(rows) if row["kept"] == "no")
    return Paper("points", "Every measured point", columns, tuple(rows), dim=dim)


def signs_table(signs: Sequence[SignCheck], about: About) -> Paper:
    """One row per concept."""
    columns = (
        Column("concept", "concept", kind="text"), Column("site", "site", kind="text"),
        Column("doses", "doses", "+.3g", "range"), Column("difference", f"{about.score}, + less −", "+.3f", "estimate"),
        Column("p", "p", ".2g"), Column("verdict", "sign", kind="text"), Column("n", "n"),
    )  # fmt: skip
    rows = [
        {"concept": c.concept, "site": c.site.key, "doses": (c.low, c.high), "difference": c.difference, "p": c.p,
         "verdict": c.verdict, "n": c.difference.n}
        for c in signs
    ]  # fmt: skip
    return Paper("signs", "The sign", columns, tuple(rows))


def _maps(sides: Mapping[tuple[str, str, str], Mapping[int, Found]]) -> str:
    """Site × concept: the smaller bound of the two signs, for more than one site."""
    concepts, sites = (list(dict.fromkeys(k[i] for k in sides)) for i in (0, 1))
    if len(sites) < 2:
        return ""
    figures = []
    for operator in dict.fromkeys(k[2] for k in sides):
        own = {k[:2]: min(f.strength for f in v.values()) for k, v in sides.items() if k[2] == operator}
        top = max(own.values()) or 1.0
        rows = [(s, False, [_square(own.get((c, s)), top, c) for c in concepts]) for s in sites]
        figures.append(
            parts.figure(operator, heat(f"{operator}: smaller bound of every site", rows, concepts))
        )
    words = "The smaller of the two bounds, at every site: warmer may be pushed further."
    return parts.section("Where it may be pushed furthest", words, parts.charts(figures))


def _square(bound: float | None, top: float, concept: str) -> Square:
    return Square(bound, 0.0 if bound is None else bound / top, f"{concept}: {bound}")


def _costs(sides: Mapping[tuple[str, str, str], Mapping[int, Found]], about: About) -> str:
    figures = []
    for (concept, site, operator), both in list(sides.items())[:DRAWN]:
        costs = [Cost(sign, f.curve, f.strength) for sign, f in sorted(both.items(), reverse=True) if f.curve]
        if costs:
            drawing = cost_curve(
                f"{concept} at {site}: {about.limit} over the size of the push", costs, about.value
            )
            ends = " and ".join(f"{'+' if c.sign > 0 else '−'}{c.bound:.3g}" for c in costs)
            figures.append(parts.figure(f"{concept}, {site}, {operator}", drawing, f"safe to {ends}"))
    words = f"{about.limit} in {about.unit}; + is solid, − dashed; the dotted line is the limit. "
    words += "Shaded: safe to both sides."
    if len(sides) > DRAWN:
        words += f" The first {DRAWN} of {len(sides)} are drawn; the table has all."
    return parts.section("What a push costs", words, parts.charts(figures))


def _card(
    key: tuple[str, str, str], both: Mapping[int, Found], signs: Sequence[SignCheck], about: About
) -> card.Card:
    concept, site, operator = key
    low = f"−{both[-1].strength:.3g}" if -1 in both else "0"
    half = max(f.half_cost for f in both.values())
    sign = next((c for c in signs if c.concept == concept), None)
    facts = (
        ("Vector", about.vectors.get(concept, concept)),
        ("Model", card.model_words(about.model, about.receipt.get("revision"))), ("Method", about.method),
        ("Layer", site), ("Operator", operator),
        ("Safe range", f"{low} to +{both[1].strength:.3g}, where {about.limit} stays within {about.value:g} "
                       f"{about.unit} ({about.receipt.get('prompts')} prompts)"),
        ("Positions", str(about.receipt.get("positions"))),
        ("Coherence", f"{about.limit} {half:.3g} {about.unit} at half of the range"),
        ("Effect", "" if sign is None else f"{about.score} {_est(sign.difference)} at +{sign.high:.2g} less at "
                   f"−{-sign.low:.2g} (n = {sign.difference.n}, p = {sign.p:.2g}; sign {sign.verdict})"),
        ("Cells tried", str(sum(len(f.curve) for f in both.values()))),
    )  # fmt: skip
    return card.Card(f"Safe range: {concept} at {site}, {operator}", facts)


def _est(e: Estimate) -> str:
    return f"{e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]".replace("-", "−")
