"""The results for a terminal: completions side by side, curves with their baselines, readings as coloured
words.
"""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from trimtab.demo.commands import next_commands
from trimtab.demo.feelings import Curve
from trimtab.demo.results import DemoResult
from trimtab.evaluation.coherence import coherent
from trimtab.evaluation.dose_response import Row
from trimtab.pages.drawing import short, signed
from trimtab.strips.terminal import WARM, legend, lines


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
    """Four lines per emotion: score, the ends of its interval, coherence; then its best dose and its two baselines."""
    s, curves = result.settings, result.feelings.curves
    caption = (
        f"from, to: 95 % interval over {s.prompts} prompts   ★ best coherent dose   ✗ not coherent\n"
        "random: 95 % quantile of random directions of the same length at the best dose; all doses are in the report"
    )
    table = Table(
        caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1)
    )
    table.add_column("dose", no_wrap=True)
    shown = [i for i, d in enumerate(s.doses) if abs(d * 5 - round(d * 5)) < 1e-6]
    for i in shown:
        table.add_column(signed(s.doses[i]), justify="right", no_wrap=True)
    for head in ("★ best", "random", "persona"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, c in curves.items():
        rows = [c.rows[i] for i in shown]
        null = short(c.null(c.best.dose)) if c.best.dose else "–"
        best = Text(f"{signed(c.best.dose)}: {short(c.best.score)}", style=f"bold {WARM}")
        table.add_row(
            Text(name, style="bold"), *(_score(c, r) for r in rows), best, null, short(c.persona.score)
        )
        for label, field in ((" from", "low"), (" to", "high"), (" coherence", "coherence")):
            own = [short(getattr(r, field)) for r in (*rows, c.best)]
            persona = short(getattr(c.persona, field))
            table.add_row(label, *own, "", persona, style="dim", end_section=field == "coherence")
    return table


def _score(curve: Curve, row: Row) -> Text:
    mark = "★" if row == curve.best else "" if coherent(row.coherence, curve.unsteered) else "✗"
    return Text(
        f"{mark}{short(row.score)}", style=f"bold {WARM}" if mark == "★" else "dim" if mark else "bold"
    )


def _verdict(result: DemoResult) -> Text:
    """What the table says, in a sentence each."""
    curves = result.feelings.curves.values()
    clear = [c.concept for c in curves if c.best.dose and c.best.low > c.null(c.best.dose)]
    level = [c.concept for c in curves if c.difference.mean >= -0.1]
    auc = ", ".join(f"{c} {short(v)}" for c, v in result.readings.auc.items())
    against = ", ".join(f"{c.concept} {c.difference.mean:+.2f}" for c in curves).replace("-", "−")
    return Text(
        f"Best dose minus persona prompt, paired: {against}.\n"
        f"Clear of random directions of the same length: {', '.join(clear) or 'none'}. "
        f"Within .1 of the persona prompt, or above it: {', '.join(level) or 'none'}.\n"
        f"Readings tell the feeling of a passage from the others (AUC): {auc}.\n"
        "Model, prompts and classifier come from one small generated world: everything is in distribution."
    )


def _story(result: DemoResult) -> list[Any]:
    """The first strip: one line per sentence, words coloured by the emotion that the passage turns to."""
    if not result.readings.strips:
        return []
    strip, concepts = result.readings.strips[0], result.readings.reader.concepts
    target = next((t for t in reversed(strip.truth) if t in concepts), concepts[0])
    column = concepts.index(target)
    head = legend(f"reading “{target}”, in standard deviations from the average of other stories")
    return [head, *lines(strip, column)]


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
