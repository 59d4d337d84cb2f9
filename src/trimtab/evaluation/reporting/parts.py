"""Sections that the pages of all evaluations share: the top, a figure, triplets, tables, the card, warnings."""

from __future__ import annotations

import html
from collections.abc import Sequence

from trimtab.evaluation.reporting.charts import STYLE
from trimtab.evaluation.reporting.paper import Paper
from trimtab.evaluation.reporting.ship import Ship
from trimtab.evaluation.reporting.triplets import RULE, Said, Triplet
from trimtab.pages.document import document
from trimtab.pages.drawing import legend, signed

HOLLOW = "hollow: the text is no longer coherent"
#: So many warnings stand in the open; more are folded.
OPEN_WARNINGS = 3


def page(eyebrow: str, title: str, lede: str, facts: Sequence[tuple[str, str]], body: str) -> str:
    """The whole document; `lede` and `facts` (name, words) are text, `body` is HTML."""
    listed = "".join(f"<li>{html.escape(k)}: <b>{html.escape(v)}</b></li>" for k, v in facts)
    top = (
        f'<header class="top"><p class="eyebrow">{html.escape(eyebrow)}</p><h1>{html.escape(title)}</h1>'
        f'<p class="lede">{html.escape(lede)}</p><ul class="plain">{listed}</ul></header>'
    )
    return document(title, f"{top}<main>{body}</main>", style=STYLE)


def section(title: str, words: str, inside: str) -> str:
    """A heading, a paragraph (text) and what it is about (HTML)."""
    told = f"<p>{html.escape(words)}</p>" if words else ""
    return f"<section><h2>{html.escape(title)}</h2>{told}{inside}</section>"


def figure(title: str, drawing: str, words: str = "") -> str:
    """A drawing under its title, with a sentence in small print."""
    told = f'<span class="soft">{html.escape(words)}</span>' if words else ""
    return f"<figure><figcaption><h3>{html.escape(title)}</h3>{told}</figcaption>{drawing}</figure>"


def charts(figures: Sequence[str], legend: str = "") -> str:
    """Figures side by side, where there is room, above what their marks mean."""
    return f'<div class="charts">{"".join(figures)}</div>{legend}'


def folded(summary: str, inside: str) -> str:
    """Something that opens on demand."""
    return f"<details><summary>{html.escape(summary)}</summary>{inside}</details>"


def curve_legend(null: str, told: str, ship: str, hollow: str = HOLLOW) -> str:
    """What the marks of a dose curve mean; empty words leave a mark out."""
    dash = '<line class="{}" x1="0" x2="34" y1="9" y2="9"/>'.format
    fill = '<polygon class="{}" points="0,2 34,2 34,16 0,16"/>'.format
    dot = '<circle class="{}" cx="17" cy="9" r="4"/>'.format
    marks = [
        (fill("band") + dash("curve") + dot("dot"), "steered: mean with its 95 % interval over items"),
        (dash("curve broken") + dot("dot hollow"), hollow),
        (fill("null"), null),
        (dash("told"), told),
        (fill("ship"), ship),
    ]
    return legend([(mark, html.escape(words)) for mark, words in marks if words])


def shaded_words(ships: Sequence[Ship | None]) -> str:
    """What the shading of a page's curves is."""
    found = [s for s in ships if s is not None]
    if not found:
        return ""
    if all(s.calibrated for s in found):
        return "shaded: the calibrated safe range of the vector"
    if not any(s.calibrated for s in found):
        return "shaded: strengths that were coherent in this run; the vector has no calibrated safe range"
    return "shaded: the calibrated safe range, or what was coherent in this run where there is none"


def triplets(found: Sequence[Triplet], score: str, rule: str = RULE) -> str:
    """Examples with the rule that chose them."""
    if not found:
        return ""
    boxes = "".join(_triplet(t, score) for t in found)
    return f'<p class="soft small">{html.escape(rule)}</p>{boxes}'


def _triplet(t: Triplet, score: str) -> str:
    sides = [("minus", t.minus), ("zero", t.zero), ("plus", t.plus)]
    three = "".join(_said(kind, said, score) for kind, said in sides if said is not None)
    where = f"{t.quantile:.0%} quantile of the effect over {t.of} items: {t.effect:+.3g}".replace("-", "−")
    asked = html.escape(t.prompt)
    return (
        f'<div class="triplet"><p class="asked"><b>{html.escape(where)}</b> · item {html.escape(t.item)}\n{asked}</p>'
        f'<div class="three">{three}</div></div>'
    )


def _said(kind: str, said: Said, score: str) -> str:
    head = "untouched" if kind == "zero" else f"at {signed(round(said.strength, 6))}"
    figures = f"{score} {said.score:+.3f}".replace("-", "−") + (f", {said.note}" if said.note else "")
    words = "" if said.text is None else f"<p>{html.escape(said.text.strip()) or '(nothing)'}</p>"
    return f'<div class="{kind}"><b>{head}</b> <span class="soft small">{html.escape(figures)}</span>{words}</div>'


def tables(found: Sequence[Paper], opened: int = 0) -> str:
    """Tables of a run, the first `opened` of them unfolded."""
    return "".join(t.html() if i < opened else folded(t.title, t.html()) for i, t in enumerate(found))


def warnings(said: Sequence[str]) -> str:
    """What the reader must know; many are folded."""
    lines = "".join(f'<p class="warn">{html.escape(w)}</p>' for w in said)
    return folded(f"{len(said)} warnings", lines) if len(said) > OPEN_WARNINGS else lines


def card(markdown: str) -> str:
    """The block for a model card, to be copied."""
    return section(
        "For a model card", "The same block stands in card.md.", f"<pre>{html.escape(markdown)}</pre>"
    )
