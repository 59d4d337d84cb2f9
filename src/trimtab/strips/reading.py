"""From readings of texts to strips, and to the page that shows them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.pages.document import document, table
from trimtab.recipes.spans import TextSpan
from trimtab.recipes.transcripts import TokenReadings
from trimtab.strips import page
from trimtab.strips.strip import Strip

ALIGNED = {
    "emit": "each token by the state that emitted it, one position before it (emit)",
    "own": "each token by its own state, which has seen it (own)",
}


@dataclass(frozen=True, eq=False)
class Sheet:
    """Strips of several texts on one scale. `columns` name concepts (and sites, where there are several); raw
    readings are tinted in standard deviations of these texts' own tokens: `units` has their (mean, std)."""

    names: tuple[str, ...]
    strips: tuple[Strip, ...]
    columns: tuple[str, ...]
    units: Mapping[str, tuple[float, float]] | None
    align: str

    @property
    def unit_words(self) -> str:
        """What one step of the tint is."""
        return "in standard deviations of " + (
            "neutral replies (z)" if self.units is None else "these texts' tokens"
        )


def sheet(readings: Sequence[TokenReadings]) -> Sheet:
    """Strips of the texts; what does not count (special tokens, sinks) stays untinted, template markup is left out."""
    first = readings[0]
    columns = tuple(
        c if len(first.sites) == 1 else f"{c} at {s}" for s in first.sites for c in first.concepts
    )
    tables = [np.where(r.counted[:, None], r.values.reshape(len(r), -1), np.nan) for r in readings]
    units = None
    if not first.z:
        rows = np.concatenate([t[r.counted] for t, r in zip(tables, readings, strict=True)])
        mean, std = (
            (rows.mean(0), rows.std(0)) if len(rows) else (np.zeros(len(columns)), np.ones(len(columns)))
        )
        std = np.where(std > 0, std, 1.0)
        tables = [(t - mean) / std for t in tables]
        units = {c: (float(m), float(s)) for c, m, s in zip(columns, mean, std, strict=True)}
    strips = tuple(_strip(r, t) for r, t in zip(readings, tables, strict=True))
    return Sheet(tuple(r.name for r in readings), strips, columns, units, first.align)


def _strip(reading: TokenReadings, z: np.ndarray) -> Strip:
    chat = any(r is not None for r in reading.roles)
    kept = [i for i, role in enumerate(reading.roles) if not chat or role is not None]
    return Strip(tuple(reading.pieces[i] for i in kept), z[kept], tuple(reading.roles[i] or "" for i in kept))


def reading_page(sheet: Sheet, spans: Mapping[str, Sequence[TextSpan]], about: Mapping[str, str]) -> str:
    """One self-contained page: what was read by what, the top spans, and every text as a strip."""
    facts = " · ".join(f"{html.escape(k)} {html.escape(v)}" for k, v in about.items())
    boxes = "".join(f"<h3>{html.escape(name)}</h3>{page.box(k, name)}" for k, name in enumerate(sheet.names))
    body = f"""<header class="top"><p class="eyebrow">{facts}</p><h1>Read, token by token</h1>
<p class="lede">Tinted: {html.escape(ALIGNED[sheet.align])}, {html.escape(sheet.unit_words)}. Point at a word for its
numbers.</p></header>
<main><section aria-labelledby="h-strips"><h2 id="h-strips">The texts</h2>
{page.controls(sheet.columns, "The concept to read", smooth=False)}
{boxes}</section>
{_spans(spans)}</main>"""
    data: dict[str, Any] = {
        "concepts": list(sheet.columns),
        "stories": [page.story(s) for s in sheet.strips],
        "units": None if sheet.units is None else {c: list(u) for c, u in sheet.units.items()},
    }
    return document("trimtab read", body, page.style(), page.script(data))


def _spans(spans: Mapping[str, Sequence[TextSpan]]) -> str:
    rows = [
        ("", (html.escape(column), f"{s.mean:+.2f}".replace("-", "−"), html.escape(s.name), f"{s.start}–{s.end - 1}",
              f"“{html.escape(s.text.strip())}”"))
        for column, found in spans.items()
        for s in found
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("concept", "mean", "text", "tokens", "what it says")
    return (
        '<section aria-labelledby="h-spans"><h2 id="h-spans">Where it reads most</h2>'
        f"{table(head, rows, 'Spans of the highest mean, none overlapping another', 'spans')}</section>"
    )
