"""`trimtab verify`: the conformance kit on a model of one's own, on one's own hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trimtab.engines import DEFAULT, ENGINES
from trimtab.errors import Unsupported

from .frame import FAILED, OK, Desk, verb
from .output import children_on_stderr

if TYPE_CHECKING:
    from trimtab.conformance.report import Entry, Report


@verb("verify")
@click.argument("model", default="embedded")
@click.option("--engine", type=click.Choice(list(ENGINES)), default=DEFAULT, help="What runs the model.")
@click.option(
    "--vectors", default=None, metavar="FILE", help="Vectors of your own to check with [default: made here]."
)
@click.option("--only", default=None, help="Names of checks, separated by commas [default: all].")
@click.option("--list", "list_only", is_flag=True, help="Name the engine's checks and load nothing.")
@click.option(
    "--compare", type=click.Choice(["auto", "transformers", "itself"]), default="auto",
    help="Compare with Transformers in float32 where the model fits, always, or never.",
)  # fmt: skip
@click.option("--eager", is_flag=True, help="Start vLLM without compiling: sooner ready, and less is proven.")
@click.option("--dtype", default=None, help="Weights as float32, bfloat16 or float16 (the engine's choice).")
@click.option("--device", default=None, help="Device to run on, e.g. cpu or cuda (the engine's choice).")
def verify(
    desk: Desk,
    model: str,
    engine: str,
    vectors: str | None,
    only: str | None,
    list_only: bool,
    compare: str,
    **flags: Any,
) -> int:
    """Prove on this machine that an engine steers, captures and reads exactly.

    MODEL is a local folder, or "embedded" for the model that comes with trimtab; with --engine remote it is a server's
    address, or several with commas between them. The names of the checks are fixed per
    engine; each of them is either run or named as not run. Exit code 1 when one fails.
    """
    from trimtab.conformance.registry import CHECKS, names_of
    from trimtab.conformance.runner import check_names

    names = names_of(engine)
    if list_only:
        record = {"engine": engine, "checks": [{"name": n, "line": CHECKS[n].line} for n in names]}
        desk.result(record, text="\n".join(f"{n:18} {CHECKS[n].line}" for n in names))
        return OK
    chosen = [] if only is None else [n.strip() for n in only.split(",") if n.strip()]
    check_names(engine, chosen)
    options = _options(engine, flags)
    with children_on_stderr():
        report = _run(desk, model, engine, _vectors(vectors), chosen, compare, options)
    desk.result(report.to_json(), text=None if desk.as_json else render(report))
    return OK if report.passed else FAILED


def _options(engine: str, flags: dict[str, Any]) -> dict[str, Any]:
    """What the engine's `load` takes of the flags; a flag that says nothing to it is refused."""
    if flags["eager"] and engine != "vllm":
        raise Unsupported(f"--eager is for vllm; the {engine} engine compiles nothing")
    given = {k: flags[k] for k in ("dtype", "device") if flags[k] is not None}
    refused = {"reference": ("dtype", "device"), "remote": ("dtype", "device"), "vllm": ("device",)}.get(
        engine, ()
    )
    for name in (n for n in refused if n in given):
        raise Unsupported(f"the {engine} engine takes no --{name}; leave it out")
    return given | ({"enforce_eager": True} if flags["eager"] else {})


def _vectors(reference: str | None) -> Any:
    if reference is None:
        return None
    from . import steering

    return steering.load_reference(reference)


def _run(
    desk: Desk, model: str, engine: str, vectors: Any, only: list[str], compare: str, options: dict[str, Any]
) -> Report:
    from trimtab.conformance.registry import names_of
    from trimtab.conformance.runner import verify as run

    desk.note(f"loading {model} ({engine})")
    with desk.progress("verify", len(only or names_of(engine))) as bar:

        def tell(entry: Entry) -> None:
            bar.advance()
            if entry.status != "pass":
                desk.note(f"{entry.status} {entry.name}: {entry.detail}")

        return run(
            model, engine, vectors=vectors, only=only, compare=compare, seed=desk.seed, tell=tell, **options
        )


def render(report: Report) -> Any:
    """The report as a table for people."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    about = report.about
    head = f"{about['engine']} on {about['model']} ({about['dtype']}), compared with {about['compared_with']}"
    table = Table("check", "", "what was found", box=None, pad_edge=False)
    colours = {"pass": "green", "fail": "bold red", "error": "bold yellow"}
    for entry in report.checks:
        table.add_row(Text(entry.name), Text(entry.status, style=colours[entry.status]), Text(entry.detail))
    for name, reason in report.not_run:
        table.add_row(Text(name), Text("not run", style="dim"), Text(reason, style="dim"))
    return Group(Text(head), Text(), table, Text(), Text(f"{report.verdict} ({report.seconds:.0f} s)"))
