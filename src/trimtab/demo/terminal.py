"""The results for a terminal: completions side by side, curves with their baselines, readings as coloured
words.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from trimtab.demo.charts import short, signed
from trimtab.demo.commands import next_commands
from trimtab.demo.feelings import Curve
from trimtab.demo.readings import Strip
from trimtab.demo.results import DemoResult
from trimtab.evaluation.coherence import coherent

WARM, COOL = "dark_orange", "dodger_blue1"
BARS = "▁▂▃▄▅▆▇█"


def render(result: DemoResult) -> Group:
    """Everything, top to bottom."""
    parts: list[Any] = [
        Rule("completions: pushed away, untouched, pushed toward"),
        _completions(result),
        Rule("dose-response"),
        _doses(result),
        _verdict(result),
        Rule("reading: a story whose feeling changes, token by token"),
        *_story(result),
        Rule("honesty"),
        _honesty(result),
        Rule("next"),
        *_next(result),
        Text(f"\nreport  {result.report}   ({result.wall_s:.0f} s)", style="bold"),
    ]
    return Group(*parts)


def _completions(result: DemoResult) -> Table:
    """One question per emotion, at the lowest dose, at 0 and at the best coherent dose."""
    f, shown = result.feelings, result.shown
    low = min(result.settings.doses)
    table = Table(show_lines=True, expand=True, pad_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    for head in (f"− (dose {signed(low)})", "0", "+ (best dose)"):
        table.add_column(head, ratio=1)
    for k, (name, curve) in enumerate(f.curves.items()):
        n = k % len(shown.prompts)
        cells = []
        for dose in (low, 0.0, curve.best.dose):
            text = Text("".join(shown.strips[name, dose, n].pieces).strip())
            text.append(f"\n{name} {shown.score[name, dose, n]:.0%}", style="dim")
            cells.append(text)
        label = Text(f"{name}\n{signed(curve.best.dose)}", style="bold")
        table.add_row(label, *cells)
    return table


def _doses(result: DemoResult) -> Table:
    """score [interval] and coherence per dose; ★ best, ✗ not coherent."""
    s, curves = result.settings, result.feelings.curves
    caption = (
        f"score [95 % interval over {s.prompts} prompts] / coherence   ★ best coherent dose   ✗ not
        coherent   " "random q95: 95 % quantile of random directions at the best dose"
    )
    table = Table(caption=caption, caption_justify="left", pad_edge=False)
    table.add_column("dose", justify="right", style="bold")
    for name in curves:
        table.add_column(name, justify="right", no_wrap=True)
    for i, dose in enumerate(s.doses):
        table.add_row(signed(dose), *(_cell(c, i) for c in curves.values()))
    table.add_section()
    table.add_row("random q95", *(short(c.null(c.best.dose)) if c.best.dose else "–" for c in
    curves.values())) table.add_row("persona", *(_numbers(c.persona) for c in curves.values()))
    table.add_row(
        "best − persona",
        *(
            f"{c.difference.mean:+.2f} [{c.difference.low:+.2f} {c.difference.high:+.2f}]"
            for c in curves.values()
        ),
    )
    return table


def _numbers(row: Any) -> str:
    return f"{short(row.score)} [{short(row.low)} {short(row.high)}] / {short(row.coherence)}"


def _cell(curve: Curve, i: int) -> Text:
    row = curve.rows[i]
    ok = coherent(row.coherence, curve.unsteered)
    best = row == curve.best
    bar = BARS[min(7, int(row.score * 8))]
    style = f"bold {WARM}" if best else "" if ok else "dim"
    return Text(f"{bar} {_numbers(row)}{' ★' if best else '  ' if ok else ' ✗'}", style=style)


def _verdict(result: DemoResult) -> Text:
    """What the table says, in a sentence each."""
    curves = result.feelings.curves.values()
    clear = [c.concept for c in curves if c.best.dose and c.best.low > c.null(c.best.dose)]
    level = [c.concept for c in curves if c.difference.mean >= -0.1]
    auc = ", ".join(f"{c} {short(v)}" for c, v in result.readings.auc.items())
    return Text(
        f"Clear of random directions of the same length: {', '.join(clear) or 'none'}. "
        f"Within .1 of the persona prompt, or above it: {', '.join(level) or 'none'}.\n"
        f"Readings tell the feeling of a passage from the others (AUC): {auc}.\n"
        "Model, prompts and classifier come from one small generated world: everything here is in
        distribution."
    )


def _story(result: DemoResult) -> list[Any]:
    """The first strip: one line per sentence, words coloured by the emotion that the passage turns to."""
    if not result.readings.strips:
        return []
    strip, concepts = result.readings.strips[0], result.readings.reader.concepts
    target = next((t for t in reversed(strip.truth) if t in concepts), concepts[0])
    column = concepts.index(target)
    head = Text(f"reading “{target}”, in standard deviations; ")
    head.append("orange underlined", style=f"underline {WARM}").append(" above, ")
    head.append("blue", style=COOL).append(" below the average of other stories")
    return [head, *(_sentence(strip, a, b, column) for a, b in strip.sentences)]


def _sentence(strip: Strip, start: int, end: int, column: int) -> Text:
    z = strip.z[start:end, column]
    line = Text(f"{z.mean():+5.1f}  ".replace("-", "−"), style="dim")
    for piece, value in zip(strip.pieces[start:end], z):
        if value > 1:
            style = f"bold underline {WARM}" if value > 2 else f"underline {WARM}"
        else:
            style = COOL if value < -1 else ""
        line.append(piece.replace("\n", " ") if line.plain.strip() else piece.lstrip(), style=style)
    return line


def _honesty(result: DemoResult) -> Table:
    h = result.honesty
    caption = (
        f"n = {h.zero.n} held-out yes/no dilemmas; log-ratio = log p(honest) − log p(lie), nats; "
        f"the vector was learned in {h.seconds:.0f} s"
    )
    table = Table(caption=caption, caption_justify="left", pad_edge=False)
    for head in ("", "accuracy", "log-ratio [95 %]", "coherence of free text"):
        table.add_column(head, justify="left" if not head else "right")
    named = [(f"mean difference, dose {signed(r.dose)}", r) for r in h.mean_diff]
    named += [("learned vector −1", h.minus), ("learned vector 0", h.zero), ("learned vector +1", h.plus)]
    for name, r in named:
        ratio = f"{r.log_ratio:+.2f} [{r.low:+.2f} {r.high:+.2f}]"
        table.add_row(name, f"{r.accuracy:.0%}", ratio, f"{r.coherence:.2f}")
    return table


def _next(result: DemoResult) -> list[Any]:
    return [
        Panel(Text(command, style="bold"), title=Text(why), title_align="left", border_style="dim")
        for why, command in next_commands(result)
    ]
