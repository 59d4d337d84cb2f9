"""A transfer study as a page that is kept, its tables, and its block for a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.evaluation.reporting import card, folder, parts
from trimtab.evaluation.reporting.charts import Bar, Mark, bars, dose_curve, item_slopes
from trimtab.evaluation.reporting.paper import Paper
from trimtab.evaluation.reporting.ship import Ship
from trimtab.evaluation.statistics import Estimate
from trimtab.evaluation.transfer.leaderboard import Board
from trimtab.evaluation.transfer.study import Opening, Report, Side
from trimtab.evaluation.transfer.tables import leaderboard, tables
from trimtab.pages.drawing import signed

#: So many values are drawn; the table has all of them.
DRAWN = 16


@dataclass(frozen=True)
class Method:
    """A vector of the study: its name and content hash, how it was made, where it acts, and its safe range there."""

    vector: str
    hash: str
    made_by: str
    where: str
    ship: Ship | None = None


@dataclass(frozen=True)
class Run:
    """What the study was run on: the command line repeats it."""

    model: str
    revision: str | None
    unit: str
    command: str
    facts: tuple[tuple[str, str], ...] = ()


def beyond(done: Report, unit: str, methods: Mapping[str, Method]) -> tuple[str, ...]:
    """One sentence per method that was measured beyond its calibrated range: a study goes there on purpose."""
    found = []
    for arm, method in methods.items():
        measured = [s.strength for r in done.rows if r.arm == arm for s in (r.plus, r.minus)]
        said = None if method.ship is None else method.ship.beyond(arm, unit, measured)
        found += [] if said is None else [said]
    return tuple(found)


def report(done: Report, run: Run, methods: Mapping[str, Method]) -> folder.Report:
    """The page, the tables and the card."""
    ships = {o.arm: _ship(o, methods[o.arm].ship) for o in done.openings}
    shaded = {k: s for k, s in ships.items() if s is not None}
    papers = tables(done, run.unit, shaded)
    block = card.markdown([_card(o, done, run, methods[o.arm]) for o in done.openings], run.command)
    body = _opening(papers[0]) if done.openings else ""
    body = parts.section("Each method at its own strength", HOW if done.openings else "", body + _notes(done))
    for o in done.openings:
        body += _method(o, done, run, ships[o.arm])
    board = leaderboard(done.board)
    body += parts.section("Four rules side by side", RULES, board.html())
    rest = [t for t in papers if t.name in ("conditions", "values")]
    body += parts.section("Every number", "", parts.tables(rest)) + (
        parts.card(block) if done.openings else ""
    )
    facts = (("model", card.model_at(run.model, run.revision)), ("dilemmas reported on", str(done.n)),
             ("dilemmas that only chose the strength", str(done.n_select)),
             ("method × strength cells tried", str(done.tried)), *run.facts)  # fmt: skip
    page = parts.page("trimtab eval dilemmas", f"Does it transfer? {done.target}", _lede(done), facts, body)
    return folder.Report(page, papers, block if done.openings else "")


#: The columns of the first table as a page shows them, in two parts.
DID = ("method", "strength", "plus", "minus", "null", "p_holm", "slope", "anti_steered")
COSTS = (
    "method", "strength", "others", "moved", "tested", "coherent", "safe", "delta_nll_plus", "delta_nll_minus",
    "length_plus", "length_minus", "cut_plus", "cut_minus", "n",
)  # fmt: skip


def _opening(paper: Paper) -> str:
    costs = paper.part(COSTS, "The same strengths: what else moves, and what they cost")
    return paper.part(DID, paper.title, paper.notes).html() + costs.html()


HOW = (
    "Change: how much further the answers to dilemmas lean towards the target than those of the untouched model, in "
    "nats of log p(yes) less log p(no). Both signs stand in the row and neither is picked. A method whose change stays "
    "inside the random band has shown nothing, whatever its p."
)
RULES = (
    "forced: log-ratio at the answer slot; free: what the model writes itself, +1 or −1, with the share that gives no "
    "answer; binary: share decided for the target; signed: mean of 2p − 1. Ranks (#) stand beside each."
)


def board_report(found: Board, target: str, command: str) -> folder.Report:
    """The leaderboard of several results as a page and a table."""
    paper = leaderboard(found)
    models = dict.fromkeys(s.model for s in found.standings)
    facts = (("models", ", ".join(models)), ("conditions", str(len(found.standings))), ("command", command))
    body = parts.section("Four rules side by side", RULES, paper.html())
    page = parts.page("trimtab eval leaderboard", f"Leaderboard: {target}", paper.notes[0], facts, body)
    return folder.Report(page, (paper,))


def _ship(o: Opening, calibrated: Ship | None) -> Ship | None:
    """The calibrated range; else what this run found coherent."""
    if calibrated is not None or o.coherent_range is None:
        return calibrated
    return Ship(*o.coherent_range, "coherent in this run", calibrated=False)


def _lede(done: Report) -> str:
    said = []
    for o in done.openings:
        if o.row is None:
            said.append(f"{o.arm} has no strength at which both signs are coherent.")
            continue
        up, down = o.row.plus.change.target, o.row.minus.change.target
        said.append(
            f"{o.arm} at ±{o.strength:g} moves {done.target} by {_est(up)} and {_est(down)} nats{_beside(o)}."
        )
    return " ".join(said) or f"Prompts alone, on {done.n} dilemmas that take a side on {done.target}."


def _beside(o: Opening) -> str:
    if o.row is None or o.row.null is None:
        return ", and no random directions were measured to compare it with"
    low, high = o.row.null
    sides = ((o.row.plus.change.target.mean, "+"), (o.row.minus.change.target.mean, "−"))
    outside = [sign for mean, sign in sides if not low <= mean <= high]
    words = {0: "inside", 1: f"outside at {''.join(outside)} only of", 2: "outside"}[len(outside)]
    return f", {words} what random directions of the same norm reach ({_signed(low)} to {_signed(high)})"


def _notes(done: Report) -> str:
    return parts.warnings(done.notes)


def _method(o: Opening, done: Report, run: Run, ship: Ship | None) -> str:
    rows = [r for r in done.rows if r.arm == o.arm]
    if not rows:
        return ""
    sides = sorted((s for r in rows for s in (r.plus, r.minus)), key=lambda s: s.strength)
    marks = [_mark(s) for s in sides] + [Mark(0.0, 0.0, 0.0, 0.0, True, "untouched model: no change")]
    null = [(sign * r.strength, *r.null) for r in rows if r.null for sign in (1, -1)]
    null += [(0.0, 0.0, 0.0)] if null else []
    told = [(name, side.change.target.mean) for name, side in done.beside.items()]
    near = [(n, v) for n, v in told if abs(v) <= 3 * max(abs(m.mean) for m in marks)]
    curve = dose_curve(f"{o.arm}: change of {done.target} over {run.unit}", marks, null, near, ship, run.unit)
    far = "".join(f" {n}: {_signed(v)}, outside the picture." for n, v in told if (n, v) not in near)
    figures = [parts.figure("Change over strength", curve, (f"Shaded: {ship.said}." if ship else "") + far)]
    if o.values:
        drawn = [Bar(v.value, v.plus, v.minus, v.null, v.value == done.target) for v in o.values[:DRAWN]]
        words = f"at ±{o.strength:g}; above +, below −; {len(drawn)} of {len(o.values)} values"
        figures.append(
            parts.figure("The target and other values", bars(f"{o.arm}: change of values", drawn), words)
        )
    if o.slopes is not None:
        words = f"{o.slopes.anti_steered:.0%} of {len(o.slopes.each)} dilemmas go the other way; "
        words += f"mean {_est(o.slopes.slope)}"
        drawing = item_slopes(f"{o.arm}: slope of every dilemma", o.slopes.each)
        figures.append(parts.figure("Each dilemma's own slope", drawing, words))
    legend = parts.curve_legend(
        "grey: 95 % of random directions of the same norm",
        _instead(done, [n for n, _ in near]),
        parts.shaded_words([ship]),
    )
    return parts.section(o.arm, "", parts.charts(figures, legend) + parts.triplets(o.triplets, "score"))


def _instead(done: Report, drawn: Sequence[str]) -> str:
    """What the dashed lines are."""
    kinds = [(done.prompts, "prompt"), (done.tuned, "trained weights")]
    found = [word for group, word in kinds if any(n in group for n in drawn)]
    return f"{' or '.join(found)} instead of a vector" if found else ""


def _mark(s: Side) -> Mark:
    e = s.change.target
    tip = (
        f"{s.strength:+g}: {_est(e)} nats, p = {s.change.p:.2g}, ΔNLL {s.delta_nll_neutral:+.2f}, valid {s.valid:.0%}, "
        f"n = {e.n}{'' if s.coherent else ', not coherent'}"
    )
    return Mark(s.strength, e.mean, e.low, e.high, s.coherent, tip)


def _card(o: Opening, done: Report, run: Run, m: Method) -> card.Card:
    facts = [
        ("Vector", card.vector_words(m.vector, m.hash)), ("Model", card.model_words(run.model, run.revision)),
        ("Method", m.made_by), ("Layer", m.where),
        ("Calibrated safe range", card.NOT_CALIBRATED if m.ship is None else m.ship.said),
    ]  # fmt: skip
    if o.row is None or o.slopes is None or o.coherent_range is None:
        return card.Card(f"Steering: {o.arm}", (*facts, ("Effect", "no strength has two coherent signs")))
    row, plus, minus = o.row, o.row.plus, o.row.minus
    null = (
        "none were measured" if o.row.null is None else " to ".join(map(_signed, o.row.null)) + " nats (95 %)"
    )
    lengths = [s.length for s in (plus, minus) if s.length is not None]
    replies = (
        ""
        if not lengths
        else f"; replies of {np.mean(lengths):.1f} tokens, {max(plus.cut or 0, minus.cut or 0):.0%} cut"
    )
    best, inside = row.strength, " to ".join(map(signed, o.coherent_range))
    beyond = ""
    if m.ship is not None and not (m.ship.holds(-row.strength) and m.ship.holds(row.strength)):
        beyond = "; beyond the calibrated safe range"
    facts += [
        (run.unit.capitalize(), f"±{best:g}, the largest whose two signs are coherent ({inside}){beyond}"),
        ("Effect", f"{done.target} {_est(plus.change.target)} nats at +, {_est(minus.change.target)} at − "
                   f"(n = {done.n} dilemmas; both signs measured)"),
        ("Slope per dilemma", f"{_est(o.slopes.slope)}, {o.slopes.anti_steered:.0%} anti-steered"),
        ("Random directions of the same norm", null),
        ("Coherence", f"ΔNLL of neutral text {_signed(plus.delta_nll_neutral)} at +, "
                      f"{_signed(minus.delta_nll_neutral)} at −; {min(plus.valid, minus.valid):.0%} of questions "
                      "answered" + replies),
        ("Cells tried", str(done.tried)),
    ]  # fmt: skip
    return card.Card(f"Steering: {o.arm}", tuple(facts))


def _est(e: Estimate) -> str:
    return f"{e.mean:+.2f} [{e.low:+.2f}, {e.high:+.2f}]".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
