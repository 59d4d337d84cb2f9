"""`trimtab demo`: the embedded model, end to end, in under two minutes."""

from __future__ import annotations

import time
from pathlib import Path

import click

from .frame import Desk, verb


@verb("demo", output="Folder for the report and the vector files (default: runs/<time>-demo).")
@click.option("--open", "open_report", is_flag=True, help="Open report.html in a browser at the end.")
def demo(desk: Desk, output: Path | None, open_report: bool) -> None:
    """Extract, steer and read the embedded model; writes report.html.

    Needs no network and no GPU: the model and its texts ship with trimtab.
    """
    from trimtab.demo.settings import DemoSettings

    folder = output or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-demo"
    from trimtab.demo.run import run
    from trimtab.demo.terminal import render

    result = run(DemoSettings(seed=desk.seed), folder, desk)
    desk.result(result.to_json(), text=None if desk.as_json else render(result))
    if open_report:
        import webbrowser

        webbrowser.open(result.report.resolve().as_uri())
