"""`trimtab score`: the texts of a run, scored again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .evaluating import settings_of
from .frame import Desk, verb

if TYPE_CHECKING:
    from trimtab.evaluation.rescore import Line


@verb("score")
@click.argument("run")
@click.option("--score", required=True, help="classifier, logprob or projection; see docs/evaluation.md.")
@click.option("--score-set", multiple=True, metavar="KEY=VALUE", help="Set a knob of the score.")
@click.option(
    "--concept", multiple=True, help="Concepts to score [default: those of the run]; may be repeated."
)
def score(desk: Desk, run: str, score: str, score_set: tuple[str, ...], concept: tuple[str, ...]) -> None:
    """Score the rows of the folder RUN again, without a model and without generating.

    Writes scores-NAME.jsonl and metrics-NAME.json beside them; samples.jsonl is never changed.
    """
    from trimtab.evaluation.rescore import concepts_of, read_rows, rescore, summary
    from trimtab.evaluation.scores import open_score
    from trimtab.records import json_line

    rows = read_rows(run)
    concepts = list(concept) or concepts_of(rows)
    opened = open_score(score, concepts, settings_of(score_set, "--score-set"), desk.seed)
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


def _table(lines: list[Line], name: str) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "condition", "concept", "dose", name, "95 %", "less plain", "95 %", "n", box=None, pad_edge=False
    )
    for x in lines:
        if x.kind == "random":
            continue  # one line per direction would drown the rest; the files have them
        d = x.difference
        table.add_row(
            Text(x.condition), Text(x.concept), f"{x.dose:+.3g}", f"{x.value.mean:.3f}",
            f"[{x.value.low:.3f}, {x.value.high:.3f}]", "" if d is None else f"{d.mean:+.3f}",
            "" if d is None else f"[{d.low:+.3f}, {d.high:+.3f}]", str(x.value.n),
        )  # fmt: skip
    return table
