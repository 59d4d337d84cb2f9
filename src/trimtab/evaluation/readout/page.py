"""A readout matrix as a page that is kept: layer × corpus heatmaps of AUC, the verdicts, every number."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.evaluation.readout.controls import CONTROLS
from trimtab.evaluation.readout.matrix import Entry, Matrix, Verdict
from trimtab.evaluation.reporting import card, folder, parts
from trimtab.evaluation.reporting.charts import Square, heat
from trimtab.evaluation.reporting.paper import Column, Paper
from trimtab.evaluation.statistics import Estimate


@dataclass(frozen=True)
class About:
    """The model, the method that made the directions, and the command line that repeats it."""

    model: str
    revision: str | None
    method: str
    command: str


HOW = (
    "A direction is made from one corpus and read on all others. It is called a readout only where it holds off its "
    "own data: the lower bound of its AUC above one half, and the AUC above what random directions and the controls "
    "(length, sentiment words, topic words) reach there. The layer is chosen on the training corpus alone."
)
MAPS = (
    "AUC of the direction of one corpus (a picture each) on every corpus (columns), at every layer: warm is above one "
    "half, cool below. A dashed frame: does not hold there. The thick frames are the layer that was chosen."
)


def report(found: Matrix, about: About) -> folder.Report:
    """The page, the tables and the card."""
    chosen = entries_table(
        "verdicts", "Each direction at the layer chosen on its own corpus", _chosen(found), found
    )
    every = entries_table("entries", "Every layer", found.entries, found)
    block = card.markdown([_card(v, found, about) for v in found.verdicts], about.command)
    maps = [parts.figure(f"trained on {v.train}", heatmap(found, v)) for v in found.verdicts]
    body = parts.section("Does it hold off its own data?", HOW, chosen.html())
    body += parts.section("Layer by layer", MAPS, parts.charts(maps))
    body += parts.section("Every number", "", parts.tables((every,))) + parts.card(block)
    facts = (("model", about.model), ("method", about.method),
             ("corpora", ", ".join(v.train for v in found.verdicts)),
             ("cells tried", str(len(found.entries))), ("command", about.command))  # fmt: skip
    page = parts.page(
        "trimtab eval readout", "Does it read?", " ".join(map(_said, found.verdicts)), facts, body
    )
    return folder.Report(page, (chosen, every), block)


def _said(v: Verdict) -> str:
    if v.readout:
        return f"The direction of {v.train} at {v.site} is a readout."
    return (
        f"The direction of {v.train} at {v.site} is no readout: it does not hold on {', '.join(v.fails_on)}."
    )


def _chosen(found: Matrix) -> tuple[Entry, ...]:
    return tuple(e for v in found.verdicts for e in found.entries if (e.train, e.site) == (v.train, v.site))


def entries_table(name: str, title: str, entries: tuple[Entry, ...], found: Matrix) -> Paper:
    """AUC with its interval beside what knows nothing of the concept."""
    columns = (
        Column("train", "trained on", kind="text"), Column("site", "site", kind="text"),
        Column("unseen", "read on", kind="text"), Column("auc", "AUC", ".3f", "estimate"),
        Column("random", "random 95 %", ".3f"), *(Column(c, c, ".3f") for c in CONTROLS),
        Column("verdict", "", kind="text"), Column("groups", "n groups"),
    )  # fmt: skip
    rows = tuple(
        {"train": e.train, "site": e.site.key, "unseen": e.unseen, "auc": _auc(e), "random": e.random_high,
         **{c: e.controls[c] for c in CONTROLS}, "verdict": _mark(e), "groups": e.groups}
        for e in entries
    )  # fmt: skip
    notes = (f"Intervals are 95 %, over groups of texts. {len(found.entries)} cells were tried.",)
    return Paper(name, title, columns, rows, notes)


def _auc(e: Entry) -> Estimate:
    return Estimate(e.auc, e.low, e.high, e.groups)


def _mark(e: Entry) -> str:
    return "own, by halves" if e.own else "holds" if e.holds else "does not hold"


def heatmap(found: Matrix, v: Verdict) -> str:
    """One training corpus: sites down, corpora across."""
    own = [e for e in found.entries if e.train == v.train]
    corpora = list(dict.fromkeys(e.unseen for e in own))
    at = {(e.site, e.unseen): e for e in own}
    rows = []
    for site in dict.fromkeys(e.site for e in own):
        squares = [_square(at[site, c], site == v.site) for c in corpora]
        rows.append((site.key, site == v.site, squares))
    return heat(f"trained on {v.train}: AUC at every layer on every corpus", rows, corpora)


def _square(e: Entry, chosen: bool) -> Square:
    tip = f"{e.unseen}: AUC {e.auc:.3f} [{e.low:.3f}, {e.high:.3f}], random {e.random_high:.3f}, {_mark(e)}"
    return Square(e.auc, 2 * e.auc - 1, tip, e.own or e.holds, chosen)


def _card(v: Verdict, found: Matrix, about: About) -> card.Card:
    off = [e for e in found.entries if (e.train, e.site) == (v.train, v.site) and not e.own]
    facts = [
        ("Vector", f"direction of the corpus `{v.train}`"),
        ("Model", card.model_words(about.model, about.revision)), ("Method", about.method), ("Layer", v.site.key),
        ("Readout", "holds on every unseen corpus" if v.readout else f"does not hold on {', '.join(v.fails_on)}"),
    ]  # fmt: skip
    for e in off:
        controls = ", ".join(f"{k} {x:.2f}" for k, x in e.controls.items())
        facts.append((
            f"AUC on {e.unseen}", f"{e.auc:.3f} [{e.low:.3f}, {e.high:.3f}] (n = {e.groups} groups); random 95 % "
            f"{e.random_high:.3f}; {controls}",
        ))  # fmt: skip
    return card.Card(f"Readout: {v.train}", (*facts, ("Cells tried", str(len(found.entries)))))
