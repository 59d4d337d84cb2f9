"""How readings of texts are shown and kept: tinted lines, tables of spans, records of tokens, a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError
from trimtab.recipes.spans import TextSpan
from trimtab.recipes.transcripts import TokenReadings
from trimtab.sites import Site
from trimtab.strips.reading import ALIGNED, reading_page, sheet
from trimtab.strips.terminal import legend, lines

from .frame import Desk
from .models import layer_words
from .output import json_line

if TYPE_CHECKING:
    from trimtab.strips.strip import Strip

Spans = Mapping[tuple[str, Site], Sequence[TextSpan]]

#: Tokens of texts shown on a terminal, beyond which no further text begins; a page and a file hold all.
SHOWN_TOKENS = 1_500


def text_record(reading: TokenReadings) -> dict[str, Any]:
    """One text of the result: its size, and the mean over the tokens that count."""
    counted = reading.values[reading.counted]
    found = {"name": reading.name, "tokens": len(reading), "counted": len(counted), "mean": None}
    if len(counted):
        found["mean"] = _named(reading, counted.mean(0))
    return found


def token_records(reading: TokenReadings, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One record per token; `values` are null where no state stands for it."""
    for i, token in enumerate(reading.tokens):
        yield {
            "text": reading.name,
            "position": i,
            "token_id": token,
            "token": reading.pieces[i],
            "role": reading.roles[i],
            "counted": bool(reading.counted[i]),
            "align": about["align"],
            "unit": about["unit"],
            "values": _named(reading, reading.values[i]),
        }


def _named(reading: TokenReadings, values: Any) -> dict[str, dict[str, float]]:
    """{site: {concept: value}} of values [L, C]."""
    return {
        s.key: {c: float(v) for c, v in zip(reading.concepts, row, strict=True)}
        for s, row in zip(reading.sites, values, strict=True)
    }


def write_tokens(desk: Desk, found: Sequence[TokenReadings], about: Mapping[str, Any], path: Path) -> None:
    """The JSONL file."""
    _write(path, "".join(json_line(r) + "\n" for reading in found for r in token_records(reading, about)))
    desk.note(f"wrote {path}: {sum(map(len, found))} tokens, one record each")


def write_page(
    desk: Desk, found: Sequence[TokenReadings], spans: Spans, about: Mapping[str, Any], path: Path
) -> None:
    """The page."""
    one = len(found[0].sites) == 1
    named = {c if one else f"{c} at {s}": t for (c, s), t in spans.items()}
    facts = {k: v if isinstance(v, str) else ", ".join(v) for k, v in about.items() if k != "concepts"}
    _write(path, reading_page(sheet(found), named, facts))
    desk.note(f"wrote {path}")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


def show(desk: Desk, found: Sequence[TokenReadings], spans: Spans, depth: int) -> None:
    """For a reader: the texts tinted by the first column, then the top spans of all with their numbers."""
    if desk.as_json:
        return
    from rich.text import Text

    shown, used = sheet(found), 0
    where = ", ".join(layer_words(s.layer, depth) for s in found[0].sites)
    desk.print(f"{', '.join(found[0].concepts)} at {where}; {ALIGNED[shown.align]}")
    desk.print(legend(f"tinted by {shown.columns[0]}, {shown.unit_words}"))
    for i, (name, strip) in enumerate(zip(shown.names, shown.strips, strict=True)):
        if used >= SHOWN_TOKENS:
            desk.note(f"{len(found) - i} more texts are not shown; --html PAGE and -o TOKENS.jsonl hold all")
            break
        used += len(strip.pieces)
        desk.print(Text(f"\n{name}", style="bold"))
        _show_strip(desk, strip)
    _show_spans(desk, spans)


def _show_strip(desk: Desk, strip: Strip) -> None:
    from rich.text import Text

    speaker = ""
    for (start, _), line in zip(strip.sentences, lines(strip, 0), strict=True):
        if strip.truth[start] != speaker:
            speaker = strip.truth[start]
            desk.print(Text(speaker, style="italic"))
        desk.print(line)


def _show_spans(desk: Desk, spans: Spans) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("top spans", "site", "mean", "text", "tokens", "what it says", box=None, pad_edge=False)
    for (concept, site), top in spans.items():
        for s in top:
            said = Text(" ".join(s.text.split()))
            table.add_row(
                Text(concept), site.key, f"{s.mean:+.2f}", Text(s.name), f"{s.start}-{s.end - 1}", said
            )
    if table.row_count:
        desk.print()
        desk.print(table)
