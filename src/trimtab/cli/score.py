"""`trimtab score`: the texts of a run scored again, or recorded readings judged by rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError

from .evaluating import settings_of
from .frame import Desk, verb

if TYPE_CHECKING:
    from trimtab.evaluation.rescore import Line
    from trimtab.evaluation.rule_traces import Rate, RuleScore


@verb("score")
@click.argument("run", metavar="RUN|TRACES")
@click.option(
    "--score", default=None, help="classifier, logprob, projection, repetition, ab_choice or multiple_choice."
)
@click.option("--score-set", multiple=True, metavar="KEY=VALUE", help="Set a knob of the score.")
@click.option(
    "--concept", multiple=True, help="Concepts to score [default: those of the run]; may be repeated."
)
@click.option(
    "--rules", type=click.Path(path_type=Path), default=None,
    help="Judge these rules on TRACES, a JSONL file of readings whose truth is known; see docs/evaluation.md.",
)  # fmt: skip
def score(
    desk: Desk,
    run: str,
    score: str | None,
    score_set: tuple[str, ...],
    concept: tuple[str, ...],
    rules: Path | None,
) -> None:
    """Score the rows of the folder RUN again, without a model and without generating.

    Writes scores-NAME.jsonl and metrics-NAME.json beside them; samples.jsonl is never changed.
    With --rules: precision, recall and delay of rules on recorded readings.
    """
    if (rules is None) == (score is None):
        raise InputError("give one of --score (for the texts of a run) and --rules (for recorded readings)")
    if rules is not None:
        return _judge_rules(desk, Path(run), rules)
    assert score is not None
    from trimtab.evaluation.continuation import warn_of_mixed_limits
    from trimtab.evaluation.rescore import concepts_of, read_rows, rescore, summary
    from trimtab.evaluation.scorers import open_scorer
    from trimtab.records import json_line

    rows = read_rows(run)
    warn_of_mixed_limits(rows)
    concepts = list(concept) or concepts_of(rows)
    opened = open_scorer(score, concepts, settings_of(score_set, "--score-set"), desk.seed)
    scored = rescore(rows, opened, concepts)
    lines = summary(scored, score, concepts, desk.seed)
    folder = Path(run)
    content = "".join(json_line({"key": r["key"], score: r["scores"][score]}) + "\n" for r in scored)
    (folder / f"scores-{score}.jsonl").write_text(content, encoding="utf-8")
    figures: dict[str, Any] = {
        "score": score,
        "concepts": concepts,
        "rows": len(scored),
        "lines": [x.to_json() for x in lines],
    }
    (folder / f"metrics-{score}.json").write_text(json_line(figures) + "\n", encoding="utf-8")
    desk.result({"run": run, **figures}, text=_table(lines, score))
    desk.note(f"{len(scored)} rows scored; wrote {folder / f'scores-{score}.jsonl'}")


def _judge_rules(desk: Desk, traces: Path, file: Path) -> None:
    from trimtab.evaluation.rule_traces import read_traces, score_rules
    from trimtab.rules import load_rules

    try:
        rules = load_rules(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    found = score_rules(rules, read_traces(traces))
    desk.result({"traces": str(traces), "rules": [f.to_json() for f in found]}, text=_rules_table(found))


def _rules_table(found: list[RuleScore]) -> Any:
    from rich.table import Table
    from rich.text import Text

    def rate(r: Rate) -> str:
        return "–" if not r.n else f"{r.value:.2f} [{r.interval[0]:.2f}, {r.interval[1]:.2f}]"

    table = Table(
        "rule", "precision", "fired", "recall", "due", "early", "delay", "replies", box=None, pad_edge=False,
        caption="brackets: 95 %; early: fired before it should; delay: median tokens", caption_justify="left",
    )  # fmt: skip
    for f in found:
        delay = "–" if f.delay is None else f"{f.delay:g}"
        table.add_row(
            Text(f.rule), rate(f.precision), str(f.precision.n), rate(f.recall), str(f.recall.n), str(f.early),
            delay, str(f.replies),
        )  # fmt: skip
    return table


def _table(lines: list[Line], name: str) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "condition", "concept", "dose", name, "95 %", "less plain", "95 %", "n", box=None, pad_edge=False
    )
    for x in lines:
        if x.kind == "random":
            continue  # one line per direction would drown the rest; the files have them
        v, d = x.value, x.difference
        table.add_row(
            Text(x.condition), Text(x.concept), "–" if x.dose is None else f"{x.dose:+.3g}",
            "–" if v is None else f"{v.mean:.3f}",
            "" if v is None else f"[{v.low:.3f}, {v.high:.3f}]", "" if d is None else f"{d.mean:+.3f}",
            "" if d is None else f"[{d.low:+.3f}, {d.high:+.3f}]", f"{0 if v is None else v.n}"
            + (f" ({x.missing} missing)" if x.missing else ""),
        )  # fmt: skip
    return table
