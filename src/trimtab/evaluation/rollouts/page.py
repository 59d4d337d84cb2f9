"""Rollouts as a page that is kept: what the replies look like at every scale, examples by rule, and every number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.evaluation.reporting import card, folder, parts
from trimtab.evaluation.reporting.charts import Mark, dose_curve
from trimtab.evaluation.reporting.paper import Column, Paper
from trimtab.evaluation.reporting.ship import Ship
from trimtab.evaluation.reporting.triplets import Said, Triplet, chosen
from trimtab.evaluation.rollouts.grid import Condition
from trimtab.evaluation.rollouts.summary import Summary
from trimtab.evaluation.statistics import Estimate

RULE = (
    "Chosen by rule: questions are ordered by how much the vector changes their first reply (share of different words, "
    "1 − shared ÷ all, against the plain one, averaged over both signs where there are two), equal ones by name, and "
    "those at the 25, 50 and 75 % quantile are shown. No score takes part: rollouts are scored afterwards."
)


@dataclass(frozen=True)
class About:
    """What was run: model and revision, in words the vectors and where each acts, their calibrated ranges in scale,
    what a reader must be told, and the command line."""

    model: str
    revision: str | None
    command: str
    facts: tuple[tuple[str, str], ...] = ()
    vectors: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)
    ships: Mapping[str, Ship] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def report(
    rows: Sequence[Mapping[str, Any]],
    conditions: Sequence[Condition],
    summaries: Sequence[Summary],
    about: About,
) -> folder.Report:
    """The page, the table and the card."""
    of = {s.name: s for s in summaries}
    paper = summary_table(conditions, of)
    names = list(dict.fromkeys(c.vector for c in conditions if c.vector is not None))
    block = card.markdown([_card(n, conditions, of, about) for n in names], about.command) if names else ""
    body = parts.section("Every condition", HOW, paper.html() + parts.warnings(about.notes))
    for name in names:
        mine = [c for c in conditions if c.vector == name or c.vector is None]
        figures = [_curve(name, *what, mine, of, about.ships.get(name)) for what in MEASURES]
        ship = about.ships.get(name)
        said = (
            f"Calibrated safe range: {ship.said}."
            if ship
            else "The vector has no calibrated safe range there."
        )
        legend = parts.curve_legend("", "", parts.shaded_words([ship]), hollow="")
        shown = parts.triplets(triplets(rows, mine), "words changed", RULE)
        body += parts.section(name, said, parts.charts([f for f in figures if f], legend) + shown)
    body += parts.card(block) if block else ""
    facts = (("model", about.model), ("replies", str(len(rows))), *about.facts, ("command", about.command))
    questions = len({r["item"] for r in rows})
    lede = f"{len(rows)} replies to {questions} questions under {len(conditions)} conditions, one model load."
    page = parts.page("trimtab generate --dataset", "What the replies look like", lede, facts, body)
    return folder.Report(page, (paper,), block)


HOW = (
    "Tokens: mean length of a reply with its 95 % interval over questions. Cut: share ended by the token limit. "
    "Repeated: largest share of words in repeats of one n-gram. No random directions are run here: what a vector does "
    "beyond chance is for trimtab sweep and trimtab eval."
)
#: (title, what of a summary, as an interval where it has one)
MEASURES = (("Length in tokens", "tokens"), ("Share cut at the limit", "cut"), ("Repeated share", "repeated"))


def summary_table(conditions: Sequence[Condition], of: Mapping[str, Summary]) -> Paper:
    """One row per condition."""
    columns = (
        Column("condition", "condition", kind="text"), Column("vector", "vector", kind="text"),
        Column("scale", "scale", "+g"), Column("tokens", "tokens", ".1f", "estimate"), Column("cut", "cut", ".0%"),
        Column("empty", "empty", ".0%"), Column("distinct_2", "distinct-2", ".2f"),
        Column("repeated", "repeated", ".2f"), Column("replies", "replies"), Column("n", "n"),
    )  # fmt: skip
    rows = [
        {"condition": c.name, "vector": c.vector, "scale": c.scale, "tokens": s.tokens, "cut": s.cut,
         "empty": s.empty, "distinct_2": s.distinct_2, "repeated": s.repeated, "replies": s.replies, "n": s.items}
        for c in conditions
        if (s := of.get(c.name)) is not None
    ]  # fmt: skip
    note = f"n questions; intervals are 95 % over questions. {len(rows)} conditions were run."
    return Paper("conditions", "Replies of every condition", columns, tuple(rows), (note,))


def _curve(
    name: str, title: str, key: str, mine: Sequence[Condition], of: Mapping[str, Summary], ship: Ship | None
) -> str:
    marks = []
    for c in mine:
        value = getattr(of[c.name], key)
        if value is None:
            continue
        e = (
            value
            if isinstance(value, Estimate)
            else Estimate(value, float("nan"), float("nan"), of[c.name].items)
        )
        marks.append(Mark(c.scale, e.mean, e.low, e.high, True, f"{c.name}: {e.mean:.3g}, n = {e.n}"))
    drawing = dose_curve(f"{name}: {title.lower()} over scale", marks, ship=ship, unit="scale")
    return parts.figure(title, drawing) if drawing else ""


def words_changed(one: str, other: str) -> float:
    """1 − shared ÷ all of the distinct words of two replies; 0 where both are empty."""
    a, b = (set(re.findall(r"\w+", t.lower())) for t in (one, other))
    return 1 - len(a & b) / len(a | b) if a | b else 0.0


def triplets(rows: Sequence[Mapping[str, Any]], mine: Sequence[Condition]) -> tuple[Triplet, ...]:
    """Questions at the quantiles of change: at the largest scale of each sign, and plain. None without a plain one."""
    plain = next((c for c in mine if c.vector is None), None)
    up = max((c for c in mine if c.scale > 0), key=lambda c: c.scale, default=None)
    down = min((c for c in mine if c.scale < 0), key=lambda c: c.scale, default=None)
    plus, minus = (down, None) if up is None else (up, down)
    if plain is None or plus is None:
        return ()
    first = {(r["condition"], r["item"]): r for r in reversed(rows)}
    names = sorted({str(r["item"]) for r in rows})
    shown = [c for c in (minus, plain, plus) if c is not None]

    def said(c: Condition, item: str) -> Said:
        answer = str(first[c.name, item]["answer"])
        return Said(c.scale, words_changed(answer, str(first[plain.name, item]["answer"])), answer)

    sides = {i: {c.name: said(c, i) for c in shown} for i in names}
    effects = [float(np.mean([s.score for n, s in sides[i].items() if n != plain.name])) for i in names]
    found = []
    for quantile, k in chosen(effects, names):
        own = sides[names[k]]
        asked = str(first[plain.name, names[k]]["question"])
        low = None if minus is None else own[minus.name]
        found.append(
            Triplet(quantile, names[k], asked, effects[k], len(names), low, own[plain.name], own[plus.name])
        )
    return tuple(found)


def _card(name: str, conditions: Sequence[Condition], of: Mapping[str, Summary], about: About) -> card.Card:
    mine = [c for c in conditions if c.vector == name]
    plain = next((of[c.name] for c in conditions if c.vector is None), None)
    ship = about.ships.get(name)
    lengths = "; ".join(f"{c.scale:+g}: {_tokens(of[c.name])}" for c in mine)
    facts = (
        ("Vector", about.vectors.get(name, name)), ("Model", card.model_words(about.model, about.revision)),
        ("Method", about.methods.get(name, "")), ("Layer", about.where.get(name, "")),
        ("Scale", ", ".join(f"{c.scale:+g}" for c in mine)),
        ("Calibrated safe range", card.NOT_CALIBRATED if ship is None else f"scale {ship.said}"),
        ("Effect on length", lengths + ("" if plain is None else f"; untouched: {_tokens(plain)}")),
        ("Random directions", "none were run"),
        ("Coherence", "; ".join(f"{c.scale:+g}: repeated {_share(of[c.name])}" for c in mine)),
        ("Cells tried", str(len(conditions))),
    )  # fmt: skip
    return card.Card(f"Rollouts: {name}", facts)


def _tokens(s: Summary) -> str:
    e = s.tokens
    return f"{e.mean:.1f} [{e.low:.1f}, {e.high:.1f}] tokens, {s.cut:.0%} cut (n = {s.items})"


def _share(s: Summary) -> str:
    return "–" if s.repeated is None else f"{s.repeated:.2f}"
