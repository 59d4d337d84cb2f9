"""Questions with options under plans as a page that is kept: the dose curve, each question's slope, examples, every
number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.evaluation.choices.effects import Effects, Side
from trimtab.evaluation.reporting import card, folder, parts
from trimtab.evaluation.reporting.charts import Mark, dose_curve, item_slopes
from trimtab.evaluation.reporting.paper import Column, Paper
from trimtab.evaluation.reporting.ship import Ship
from trimtab.evaluation.statistics import Estimate


@dataclass(frozen=True)
class About:
    """The evaluation (its verb, the page's title, the target in a word), the model, what steers where, in words, the
    calibrated range where one vector steers, and the command line that repeats it."""

    verb: str
    title: str
    target: str
    model: str
    revision: str | None
    command: str
    unit: str = "dose"
    vectors: Mapping[str, str] = field(default_factory=dict)
    method: str = ""
    where: str = ""
    ship: Ship | None = None
    facts: tuple[tuple[str, str], ...] = ()


HOW = (
    "Margin: log p of the {target} option less log p of all others together, in nats, read where the answer begins. "
    "Change is paired with the untouched model, question by question, and both signs stand there. A change inside the "
    "random band has shown nothing, whatever its p. Lost and won: questions whose {target} option was the likeliest "
    "and no longer is, and the other way round."
)
HOLLOW = "hollow: the options hold half of the probability at fewer than 80 % of the questions"


def notes(found: Effects, about: About) -> tuple[str, ...]:
    """What a reader must be told, the calibrated range included."""
    beyond = None
    if about.ship is not None and found.steered:
        name = ", ".join(about.vectors) or "the vector"
        beyond = about.ship.beyond(name, about.unit, [s.strength for s in found.steered])
    return found.notes if beyond is None else (*found.notes, beyond)


def report(found: Effects, about: About) -> folder.Report:
    """The page, the tables and, where something steers, the card."""
    main = conditions(found, about)
    papers = (main, *chance(found, about))
    block = card.markdown([_card(found, about)], about.command) if found.steered else ""
    body = parts.section(
        "At both signs", HOW.format(target=about.target), main.html() + parts.warnings(notes(found, about))
    )
    if found.steered:
        body += parts.section("Over strength, and question by question", "", _drawn(found, about))
        body += (
            parts.section("Examples", "", parts.triplets(found.examples, "margin")) if found.examples else ""
        )
    body += parts.section("Random directions", "", parts.tables(papers[1:])) if papers[1:] else ""
    body += parts.card(block) if block else ""
    facts = [("model", card.model_at(about.model, about.revision))]
    facts += [("vectors", ", ".join(about.vectors)), ("at", about.where)] if about.vectors else []
    facts += [("questions", str(found.n)), ("chance", f"{found.chance:.0%}"), *about.facts,
              ("command", about.command)]  # fmt: skip
    page = parts.page(f"trimtab eval {about.verb}", about.title, _lede(found, about), facts, body)
    return folder.Report(page, papers, block)


def _lede(found: Effects, about: About) -> str:
    said = f"Untouched, the {about.target} option is the likeliest at {found.plain.share:.0%} of {found.n} questions."
    for s in found.steered:
        if s.change is None:
            continue
        said += f" {s.condition} changes the margin by {_est(s.change)} nats and ends at {s.share:.0%}"
        if found.null is None:
            said += "."
            continue
        low, high = found.null
        inside = "inside" if low <= s.change.mean <= high else "outside"
        said += f", {inside} what random directions of the same norm do ({_signed(low)} to {_signed(high)})."
    return said


def conditions(found: Effects, about: About) -> Paper:
    """A row per condition."""
    columns = (
        Column("condition", "condition", kind="text"), Column("strength", about.unit, "+.3g"),
        Column("margin", "margin", "+.2f", "estimate"), Column("share", about.target, ".0%"),
        Column("change", "change", "+.2f", "estimate"), Column("p", "p", ".2g"),
        Column("null", "random, 95 %", "+.2f", "range"), Column("lost", "lost", ".0%"), Column("won", "won", ".0%"),
        Column("valid", "valid", ".0%"), Column("mass", "mass", ".2f"), Column("n", "n"),
    )  # fmt: skip
    said = (
        f"In nats, with 95 % BCa intervals over n = {found.n} questions; p by sign flips. {about.target}: share whose "
        f"{about.target} option is the likeliest (chance {found.chance:.0%}); valid: share whose options hold half of "
        "the probability.",
    )
    rows = tuple(_row(s, found) for s in found.sides)
    dim = frozenset(i for i, s in enumerate(found.sides) if not s.good)
    return Paper("conditions", "Margins under every condition", columns, rows, said, dim=dim)


def _row(s: Side, found: Effects) -> dict[str, Any]:
    row = {
        "condition": s.condition, "strength": s.strength, "margin": s.margin, "share": s.share, "valid": s.valid,
        "mass": s.mass, "n": found.n - s.missing,
    }  # fmt: skip
    if s is found.plain:
        return row
    return {**row, "change": s.change, "p": s.p, "null": found.null, "lost": s.lost, "won": s.won}


def chance(found: Effects, about: About) -> tuple[Paper, ...]:
    """Every random direction at both signs."""
    if not found.randoms:
        return ()
    columns = (
        Column("direction", "direction", kind="text"), Column("strength", about.unit, "+.3g"),
        Column("change", "mean change", "+.3f"),
    )  # fmt: skip
    rows = tuple({"direction": d, "strength": s, "change": mean} for d, s, mean in found.randoms)
    return (Paper("random", "Random directions of the same norm", columns, rows),)


def _drawn(found: Effects, about: About) -> str:
    marks = [Mark(0.0, 0.0, 0.0, 0.0, found.plain.good, "untouched model: no change")]
    for s in found.steered:
        if s.change is not None:
            tip = (
                f"{s.condition}: {_est(s.change)} nats, p = {s.p:.2g}, valid {s.valid:.0%}, n = {s.change.n}"
            )
            marks.append(Mark(s.strength, s.change.mean, s.change.low, s.change.high, s.good, tip))
    null = []
    if found.null is not None:
        null = [(0.0, 0.0, 0.0), *((s.strength, *found.null) for s in found.steered)]
    curve = dose_curve("change of the margin over strength", marks, null, (), about.ship, about.unit)
    words = f"Shaded: {about.ship.said}." if about.ship else ""
    figures = [parts.figure("Change of the margin", curve, words)]
    if found.slopes:
        against = float(np.mean([s < 0 for s in found.slopes]))
        words = f"{against:.0%} of {len(found.slopes)} questions go down as the {about.unit} goes up"
        drawing = item_slopes("slope of every question", found.slopes)
        figures.append(parts.figure("Each question's own slope", drawing, words))
    grey = "grey: 95 % of random directions of the same norm" if null else ""
    return parts.charts(figures, parts.curve_legend(grey, "", parts.shaded_words([about.ship]), HOLLOW))


def _card(found: Effects, about: About) -> card.Card:
    plus, minus = found.steered
    band = (
        "none were measured" if found.null is None else " to ".join(map(_signed, found.null)) + " nats (95 %)"
    )
    facts = (
        ("Vector", "; ".join(about.vectors.values())), ("Model", card.model_words(about.model, about.revision)),
        ("Method", about.method), ("Layer", about.where),
        (about.unit.capitalize(), f"±{plus.strength:g}"),
        ("Calibrated safe range", card.NOT_CALIBRATED if about.ship is None else about.ship.said),
        ("Effect", f"margin {_est(plus.change)} nats at +, {_est(minus.change)} at − (n = {found.n} questions)"),
        (f"Share {about.target}", f"{found.plain.share:.0%} untouched, {plus.share:.0%} at +, {minus.share:.0%} at − "
                                  f"(chance {found.chance:.0%})"),
        ("Random directions of the same norm", band),
        ("Coherence", f"{min(plus.valid, minus.valid):.0%} of questions answered at the slot"),
    )  # fmt: skip
    return card.Card(f"{about.title}: {', '.join(about.vectors)}", facts)


def _est(e: Estimate | None) -> str:
    return "–" if e is None else e.words("+.2f").replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
