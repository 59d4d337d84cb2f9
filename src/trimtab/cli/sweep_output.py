"""What `trimtab sweep` says: figures for machines, a table for readers, a page to keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import run_reports

if TYPE_CHECKING:
    from trimtab.directions import ConceptVectors
    from trimtab.evaluation.reporting.folder import Report
    from trimtab.evaluation.sweep import Sweep
    from trimtab.sites import ModelInfo

    from .frame import Desk


def figures(
    found: Sweep, files: dict[str, ConceptVectors], excluded: dict[str, str], names: dict[str, str]
) -> dict[str, Any]:
    """Everything: the choice, the sites, all curves, the final ones and the baselines."""
    from trimtab.evaluation.strengths import strengths

    return {
        **names,
        "choice": found.choice.to_json(),
        "tried": found.tried,
        "sites": {m: _sites(v) for m, v in files.items()},
        "strengths": [s.to_json() for s in strengths(found.curves, files)],
        "excluded": excluded,
        "curves": [c.to_json() for c in found.curves],
        "final": [c.to_json() for c in found.final],
        "examples": found.examples,
        "prefix": {c: vars(e) for c, e in found.prefixes.items()},
        "steered_less_prefix": {c: vars(e) for c, e in found.against_prefix.items()},
        "mean_difference": {c: vars(e) for c, e in found.means.items()},
        "steered_less_mean_difference": {c: vars(e) for c, e in found.against_means.items()},
    }


def _sites(vectors: ConceptVectors) -> dict[str, Any]:
    """Per site: separability, raw and typical norms, and what the rule of thumb 300 / ‖v‖ allows as a dose and as
    scales."""
    from trimtab.evaluation.strengths import LONGEST

    separation = vectors.origin.parameters.get("read_separation", {})
    found = {}
    for site, table in vectors.tables.items():
        typical = vectors.typical_norms[site]
        raw = [1.0] * len(vectors.concepts) if table.norms is None else table.norms.tolist()
        norms = dict(zip(vectors.concepts, raw, strict=True))
        found[site.key] = {
            "separation": separation.get(site.key), "typical_norm": typical, "raw_norms": norms,
            "rule_300_dose": LONGEST / typical, "rule_300_scales": {c: LONGEST / n for c, n in norms.items()},
        }  # fmt: skip
    return found


def short(whole: dict[str, Any]) -> dict[str, Any]:
    """What goes to stdout: the choice and the final rows; all curves are in metrics.json."""
    keep = ("score", "fluency", "choice", "tried", "sites", "excluded", "prefix", "steered_less_prefix",
            "mean_difference", "steered_less_mean_difference")  # fmt: skip
    found = {k: whole[k] for k in keep}
    chosen = whole["choice"]["cell"]["name"]
    found["strengths"] = [s for s in whole["strengths"] if s["cell"] == chosen]
    found["final"] = [{**c, "study": _without(c["study"])} for c in whole["final"] or whole["curves"]]
    return found


def _without(study: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if study is None else {k: v for k, v in study.items() if k != "item_slopes"}


def report(
    found: Sweep,
    desk: Desk,
    info: ModelInfo,
    model: str,
    files: dict[str, ConceptVectors],
    names: dict[str, str],
    facts: Sequence[tuple[str, str]],
) -> Report:
    """The page, the tables and the card."""
    from trimtab.evaluation.reporting.card import vector_words
    from trimtab.evaluation.reporting.ship import ship_of
    from trimtab.evaluation.sweep_page import report
    from trimtab.evaluation.sweep_tables import About

    cell = found.choice.cell
    vectors = files[cell.method]
    ships = {c: s for c in vectors.concepts if (s := ship_of(vectors, c, cell.sites)) is not None}
    about = About(
        model, names["score"], names["fluency"], tuple(facts), info.revision, desk.command, ships,
        {c: vector_words(c, vectors.hash) for c in vectors.concepts},
        run_reports.where(cell.layers, info.n_layers, cell.stream), files,
    )  # fmt: skip
    return report(found, about)


def table_of(found: Sweep, files: dict[str, ConceptVectors]) -> Any:
    """The chosen cell, one row per concept, on the reporting items where there are some: what it does, and under it
    what the dose is as a scale, beside the largest one by the rule of thumb, and what becomes of the replies."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from trimtab.evaluation.strengths import strengths

    final = found.final or tuple(c for c in found.curves if c.cell == found.choice.cell)
    title = f"{found.choice.cell.name}, on {'other items' if found.final else 'the items that chose it'}"
    did = Table("concept", "dose", "plain", "steered", "95 %", "random 95 %", "prefix",
                *(["mean diff"] if found.means else []), "slope", "p", "n",
                box=None, pad_edge=False, title=title)  # fmt: skip
    costs = Table("concept", "scale", "300/‖v‖", "coherent", "tokens", "cut", box=None, pad_edge=False)
    own = {s.concept: s for s in strengths((c for c in found.curves if c.cell == found.choice.cell), files)}
    for curve in final:
        dose, size = found.choice.doses[curve.concept], own[curve.concept]
        row = next(r for r in curve.rows() if r.dose == dose)
        point = next(p for p in curve.points if p.dose == dose)
        study, null, told = curve.study(), curve.band(dose), found.prefixes.get(curve.concept)
        low, high = study.coherence_range
        other = found.means.get(curve.concept)
        mean = ["" if other is None else f"{other.mean:.3f}"] if found.means else []
        did.add_row(
            Text(curve.concept), f"{dose:+.3g}", f"{curve.plain.items.mean():.3f}", f"{row.score:.3f}",
            f"[{row.low:.3f}, {row.high:.3f}]", "" if null is None else f"{null:.3f}",
            "" if told is None else f"{told.mean:.3f}", *mean, f"{study.slope.mean:+.3f}", f"{study.p_items:.2g}",
            str(row.n),
        )  # fmt: skip
        costs.add_row(
            Text(curve.concept), *("–" if s != s else f"{s:.3g}" for s in (size.scale, size.rule_scale)),
            f"{low:g} to {high:g}", *_length(point.length, point.cut),
        )  # fmt: skip
    return Group(did, "", costs)


def _length(length: float, cut: float) -> tuple[str, str]:
    """Mean reply length and share cut at the limit; nothing is written for a score over continuations."""
    return ("–", "–") if length != length else (f"{length:.1f}", f"{cut:.0%}")


def warnings_of(found: Sweep) -> list[str]:
    """What a reader of the table must know: the chosen cell's warnings, and how many other curves have some."""
    final = found.final or tuple(c for c in found.curves if c.cell == found.choice.cell)
    said = [f"{c.concept}: {w}" for c in final for w in c.warnings]
    for curve in final:
        dose, (_, high) = found.choice.doses[curve.concept], curve.study().coherence_range
        if not dose <= high:
            said.append(
                f"{curve.concept}: dose {dose:+.3g} was chosen on other items, and on these the text stays coherent "
                f"only up to {high:+.3g}"
            )
    others = sum(bool(c.warnings) for c in found.curves if c.cell != found.choice.cell)
    if others:
        said.append(f"{others} curves of other cells have warnings too: see the report")
    return said
