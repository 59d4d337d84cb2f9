"""The report in the terminal: one line per concept, the reasons below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.analysis.quality.findings import QualityReport, SiteQuality, Verdict
from trimtab.analysis.quality.triage import USE

if TYPE_CHECKING:
    from rich.console import Group

MARKS = {"use": "✓", "rewrite the data": "✎", "suspect template": "⚠", "not judged": "?"}


def mark(verdict: Verdict) -> str:
    """A sign for a verdict, so that colour is never alone."""
    return MARKS.get(verdict.words, "⇄")


def render(report: QualityReport) -> Group:
    """Table, reasons, notes and what is missing."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, title="quality", title_justify="left")
    heads = ("concept", "verdict", "judged at", "held-out AUC", "pairs", "halves", "1st PC", "dim", "R²")
    for head in heads:
        table.add_column(Text(head), no_wrap=head in ("verdict", "held-out AUC"))
    for verdict in report.verdicts:
        row = report.judged(verdict.concept)
        style = "dodger_blue1" if verdict.words == USE else "dark_orange"
        table.add_row(
            Text(verdict.concept),
            Text(f"{mark(verdict)} {verdict.words}", style=style),
            Text("–" if verdict.site is None else verdict.site.key),
            *(Text(c) for c in cells(row)[:-1]),  # norms have a table of their own in `inspect`
        )
    parts: list[Any] = [
        table,
        Text("in brackets: the 95 % interval of an AUC; elsewhere what random labels give", style="dim"),
    ]
    for verdict in report.verdicts:
        said = [*verdict.reasons, *(f"also: {a}" for a in verdict.advice)]
        parts += [Text(f"{mark(verdict)} {verdict.concept}: {line}") for line in said]
    parts += [Text(f"note: {n}") for n in report.notes]
    parts += [Text(f"missing: {line}", style="dim") for line in missing(report)]
    return Group(*parts)


def cells(row: SiteQuality) -> tuple[str, ...]:
    """Held-out AUC, pair accuracy, split-half cosine, first-PC ratio, dimension, R^2 and norm, with chance."""
    h, half, s, r = row.held_out, row.split_half, row.spectrum, row.redundancy
    pair = None if h is None else h.pair_accuracy
    found = (
        "–" if h is None else f"{h.auc.value:.2f} [{h.auc.low:.2f}, {h.auc.high:.2f}]",
        "–" if pair is None else f"{pair.value:.2f}",
        "–" if half is None else f"{half.cosine:.2f} ({half.chance:.2f})",
        "–" if s is None else f"{s.shape.first_pc_ratio:.2f} ({s.chance['first_pc_ratio'].mean:.2f})",
        "–" if s is None else f"{s.shape.effective_dim_full:.1f} ({s.chance['effective_dim_full'].mean:.1f})",
        "–" if r is None else f"{r.r2:.2f} ({r.chance:.2f})",
        "–" if row.norms.ratio is None else f"{row.norms.ratio:.2f}",
    )
    return tuple(cell.replace("-", "−") for cell in found)


def missing(report: QualityReport) -> list[str]:
    """Parts that could not be had, each reason once with where."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        for part, reason in row.missing.items():
            found.setdefault((part, reason), []).append(f"{row.concept} at {row.site.key}")
    every = len(report.rows)
    reasons: dict[tuple[str, str], list[str]] = {}
    for (part, reason), places in found.items():
        where = (
            ""
            if len(places) == every
            else f" ({places[0]}{f' and {len(places) - 1} more' if places[1:] else ''})"
        )
        reasons.setdefault((reason, where), []).append(part.replace("_", " "))
    return [f"{', '.join(parts)}: {reason}{where}" for (reason, where), parts in reasons.items()]
