"""`trimtab demo`: the embedded model, end to end, in about a minute."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from trimtab.engines import DEFAULT, ENGINES

from .frame import Desk, verb
from .models import start


@verb("demo", output="Folder for the report and the vector files (default: runs/<time>-demo).")
@click.option(
    "--engine",
    type=click.Choice([e for e in ENGINES if e not in ("reference", "remote")]),
    default=DEFAULT,
    help="What runs the model.",
)
@click.option("--open", "open_report", is_flag=True, help="Open report.html in a browser at the end.")
def demo(desk: Desk, output: Path | None, engine: str, open_report: bool) -> None:
    """Extract, steer and read the embedded model; writes report.html.

    Needs no network and no GPU: the model and its texts ship with trimtab.
    """
    # Before torch loads: OpenMP threads that spin while they wait lose their core to any other process, and the
    # demo then takes several times as long; threads that sleep cost a tenth on an idle machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from trimtab.demo.settings import DemoSettings

    folder = output or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-demo"
    from trimtab.demo.run import run
    from trimtab.demo.terminal import render

    result = run(DemoSettings(seed=desk.seed), folder, desk, lambda: start("embedded", engine))
    desk.result(result.to_json(), text=None if desk.as_json else render(result))
    if open_report:
        import webbrowser

        webbrowser.open(result.report.resolve().as_uri())
