"""A steer-and-read matrix as a page that is kept: the heatmap, what the replies look like, examples, every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.evaluation.readout.cross import Cross, Replies
from trimtab.evaluation.reporting import card, folder, parts
from trimtab.evaluation.reporting.charts import Square, heat
from trimtab.evaluation.reporting.paper import Column, Paper
from trimtab.evaluation.reporting.ship import Ship
from trimtab.evaluation.statistics import Estimate, benjamini_hochberg
from trimtab.pages.drawing import signed


@dataclass(frozen=True)
class About:
    """The model, how the vectors were made, where they act and are read, in words; their calibrated ranges there; and
    the command line that repeats it."""

    model: str
    revision: str | None
    command: str
    method: str
    steered: str
    read: str
    vectors: Mapping[str, str] = field(default_factory=dict)
    ships: Mapping[str, Ship] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()


HOW = (
    "Each square is how much steering one concept (rows) changes the reading of another (columns) in the replies, "
    "against the untouched model: warm is more, cool is less. The thick frames are a concept's own reading. A dashed "
    "frame means that random directions of the same dose move that reading as far. A push stays in the residual "
    "stream: part of a reading is the displacement itself, as far as two directions point the same way. Prompts push "
    "nothing, and their matrix stands beside."
)
EXAMPLES = (
    "Chosen by rule: prompts are ordered by how much steering raises the concept's own reading, equal ones by name, "
    "and those at the 25, 50 and 75 % quantile are shown with their first reply."
)


def report(found: Cross, about: About) -> folder.Report:
    """The page, the tables and the card."""
    papers = (entries(found), matrix(found), replies(found, about), *told(found))
    block = card.markdown([_card(i, found, about) for i in range(len(found.steered))], about.command)
    drawing = parts.figure("Steered (rows), read (columns)", heatmap(found), f"in units of {_unit(found)}")
    body = parts.section(
        "What else moves?", HOW, parts.charts([drawing]) + parts.warnings(notes(found, about))
    )
    body += parts.section("The matrix", "", papers[1].html() + "".join(t.html() for t in told(found)))
    body += parts.section("What the replies look like", "", papers[2].html())
    for concept, examples in found.examples.items():
        inside = parts.triplets(examples, f"reading of {concept}", EXAMPLES)
        body += parts.section(f"Examples: {concept}", "", inside) if inside else ""
    body += parts.section("Every number", "", parts.tables(papers[:1])) + parts.card(block)
    facts = (
        ("model", card.model_at(about.model, about.revision)),
        ("method", about.method), ("steered at", f"{about.steered}, dose {found.dose:+g}"), ("read at", about.read),
        ("prompts", str(found.n)), *about.facts, ("command", about.command),
    )  # fmt: skip
    page = parts.page("trimtab eval steer-read", "Steer one, read all", _lede(found), facts, body)
    return folder.Report(page, papers, block)


def notes(found: Cross, about: About) -> tuple[str, ...]:
    """What a reader must be told, calibrated ranges included."""
    beyond = (ship.beyond(c, "dose", [found.dose]) for c, ship in about.ships.items())
    return (*found.notes, *(said for said in beyond if said is not None))


def _lede(found: Cross) -> str:
    own = [c for c, most in zip(found.steered, found.strongest, strict=True) if most]
    rest = [c for c in found.steered if c not in own]
    if not rest:
        said = "Every concept moves its own reading more than any other."
    else:
        said = f"{len(own)} of {len(found.steered)} concepts move their own reading most"
        said += f"; {', '.join(rest)} {'moves' if len(rest) == 1 else 'move'} another one more."
    if found.null is None:
        return said
    off = [
        (i, j)
        for i in range(len(found.steered))
        for j in range(len(found.read))
        if found.read[j] != found.steered[i]
    ]
    moved = sum(bool(found.outside(i, j)) for i, j in off)
    return (
        f"{said} {moved} of {len(off)} other readings move further than under random directions."
        if off
        else said
    )


def _unit(found: Cross) -> str:
    return "stds of neutral reply tokens (z)" if found.z else "the coordinate along the direction"


def heatmap(found: Cross) -> str:
    """Steered down, read across."""
    top = max(abs(e.mean) for row in found.change for e in row) or 1.0
    rows = [
        (name, False, [_square(found, i, j, top) for j in range(len(found.read))])
        for i, name in enumerate(found.steered)
    ]
    return heat("change of every reading under every steered concept", rows, found.read)


def _square(found: Cross, i: int, j: int, top: float) -> Square:
    e, out = found.change[i][j], found.outside(i, j)
    tip = f"steered {found.steered[i]}, read {found.read[j]}: {_est(e)}, p = {found.p[i][j]:.2g}"
    if found.null is not None:
        tip += f", random {signed(round(found.null[j][0], 3))} to {signed(round(found.null[j][1], 3))}"
    return Square(e.mean, e.mean / top, tip, out is not False, found.steered[i] == found.read[j])


def entries(found: Cross) -> Paper:
    """A row per steered concept and reading."""
    columns = (
        Column("steered", "steered", kind="text"), Column("read", "read", kind="text"), Column("dose", "dose", "+.3g"),
        Column("change", "change", "+.2f", "estimate"), Column("p", "p", ".2g"), Column("q", "q (BH)", ".2g"),
        Column("null", "random, 95 %", "+.2f", "range"), Column("outside", "outside it", kind="text"),
        Column("n", "n"),
    )  # fmt: skip
    adjusted = benjamini_hochberg([p for row in found.p for p in row]).reshape(np.shape(found.p))
    rows = []
    for i, steered in enumerate(found.steered):
        for j, read in enumerate(found.read):
            out = found.outside(i, j)
            rows.append({
                "steered": steered, "read": read, "dose": found.dose, "change": found.change[i][j],
                "p": found.p[i][j], "q": float(adjusted[i, j]), "n": found.n,
                "null": None if found.null is None else tuple(map(float, found.null[j])),
                "outside": None if out is None else "yes" if out else "no",
            })  # fmt: skip
    own = frozenset(k for k, row in enumerate(rows) if row["steered"] == row["read"])
    return Paper("entries", "Every steered concept and reading", columns, tuple(rows), _told(found), best=own)


def matrix(found: Cross) -> Paper:
    """A row per steered concept, a column per reading."""
    said = _told(found)
    if found.null is not None:
        bands = "; ".join(
            f"{c} {low:+.2f} to {high:+.2f}".replace("-", "−")
            for c, (low, high) in zip(found.read, found.null, strict=True)
        )
        said = (*said, f"95 % of random directions of the same dose move the readings by: {bands}.")
    title = f"Change of each reading (columns), steered by dose {found.dose:+g}"
    return Paper("matrix", title, *_square_table("steered", found, found.change), said)


def _square_table(
    key: str, found: Cross, change: Sequence[Sequence[Estimate]]
) -> tuple[tuple[Column, ...], tuple[dict[str, Any], ...]]:
    """Columns and rows: a row per concept that acts, a column per reading."""
    readings = (Column(f"read_{c}", c, "+.2f", "estimate") for c in found.read)
    rows = tuple(
        {key: s, **{f"read_{c}": e for c, e in zip(found.read, row, strict=True)}}
        for s, row in zip(found.steered, change, strict=True)
    )
    return (Column(key, key, kind="text"), *readings), rows


def told(found: Cross) -> tuple[Paper, ...]:
    """The matrix of the prompt baseline: words in front of the prompt instead of a vector."""
    if not found.told:
        return ()
    title = "The same readings where words in front of the prompt name the concept, and nothing is steered"
    return (Paper("prompts", title, *_square_table("told", found, found.told)),)


def _told(found: Cross) -> tuple[str, ...]:
    return (
        f"In units of {_unit(found)}, with 95 % BCa intervals over n = {found.n} prompts; p by sign flips, q over all "
        f"{len(found.steered) * len(found.read)} entries (Benjamini and Hochberg).",
    )


def replies(found: Cross, about: About) -> Paper:
    """A row per condition: what was written under it."""
    columns = (
        Column("condition", "steered", kind="text"), Column("strongest", "moves its own most", kind="text"),
        Column("safe", "calibrated safe", ".3g", "range"), Column("fluency", f"fluency ({found.fluency})", ".3f"),
        Column("coherent", "coherent", kind="text"), Column("length", "tokens", ".1f"), Column("cut", "cut", ".0%"),
        Column("n", "n"),
    )  # fmt: skip
    strongest = dict(zip(found.steered, found.strongest, strict=True))
    return Paper(
        "replies",
        "The replies",
        columns,
        tuple(_reply(r, strongest.get(r.name), about.ships.get(r.name), found.n) for r in found.replies),
        dim=frozenset(i for i, r in enumerate(found.replies) if not r.good),
    )


def _reply(r: Replies, strongest: bool | None, ship: Ship | None, n: int) -> dict[str, Any]:
    return {
        "condition": "nothing" if strongest is None else r.name,
        "strongest": None if strongest is None else "yes" if strongest else "no",
        "safe": None if ship is None else (ship.low, ship.high), "fluency": r.fluency,
        "coherent": "yes" if r.good else "no", "length": r.length, "cut": r.cut, "n": n,
    }  # fmt: skip


def _card(i: int, found: Cross, about: About) -> card.Card:
    concept, ship = found.steered[i], about.ships.get(found.steered[i])
    wrote = next((r for r in found.replies if r.name == concept), None)
    others = [f"{c} {_est(e)}" for c, e in zip(found.read, found.change[i], strict=True) if c != concept]
    facts = [
        ("Vector", about.vectors.get(concept, concept)), ("Model", card.model_words(about.model, about.revision)),
        ("Method", about.method), ("Layer", f"steered at {about.steered}, read at {about.read}"),
        ("Dose", f"{found.dose:+g}".replace("-", "−")),
        ("Calibrated safe range", card.NOT_CALIBRATED if ship is None else ship.said),
        ("Own reading", f"{_est(found.change[i][i])} (n = {found.n} prompts)"),
        ("Other readings", "; ".join(others)),
        ("Prompt instead of the vector", _est(found.told[i][i]) if found.told else ""),
    ]  # fmt: skip
    if found.null is not None:
        low, high = found.null[i]
        facts.append(
            ("Random directions of the same dose", f"{low:+.2f} to {high:+.2f} (95 %)".replace("-", "−"))
        )
    if wrote is not None:
        said = f"{found.fluency} {wrote.fluency:.3f}{'' if wrote.good else ', no longer coherent'}"
        cut = f"replies of {wrote.length:.1f} tokens, {wrote.cut:.0%} cut at the limit"
        facts.append(("Coherence", f"{said}; {cut}"))
    return card.Card(f"Steer and read: {concept}", tuple(facts))


def _est(e: Estimate) -> str:
    return f"{e.mean:+.2f} [{e.low:+.2f}, {e.high:+.2f}]".replace("-", "−")
