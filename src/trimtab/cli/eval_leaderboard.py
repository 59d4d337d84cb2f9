"""`trimtab eval leaderboard`: results of `trimtab eval dilemmas -o FILE` ranked together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trimtab.errors import FormatError, InputError

from .frame import Desk, verb
from .places import check_writable
from .transfer_tables import board_table


@verb("eval leaderboard", output="Folder for report.html, table.md and table.csv.")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
def leaderboard(desk: Desk, results: tuple[Path, ...], output: Path | None) -> None:
    """Results of `trimtab eval dilemmas -o FILE`, all models and prompts ranked together under four rules."""
    from trimtab.evaluation.transfer.leaderboard import Standing, board
    from trimtab.evaluation.transfer.page import board_report

    if output is not None:
        if output.is_file():
            raise InputError(f"-o names a folder for the report, and {output} is a file")
        check_writable(output / "report.html")
    standings, targets = [], set()
    for path in results:
        record = _result(path)
        targets.add(record["target"])
        for row in record["leaderboard"]["rows"]:
            standings.append(Standing(**{k: v for k, v in row.items() if k != "ranks"}))
    if len(targets) > 1:
        raise InputError(f"these results are of different targets: {', '.join(sorted(targets))}")
    found = board(standings)
    target = targets.pop()
    record = {"target": target, **found.to_json()}
    if output is not None:
        record["files"] = board_report(found, target, desk.command).write(output)
        desk.note(f"wrote {', '.join(record['files'])}")
    desk.result(record, text=board_table(found))


def _result(path: Path) -> dict[str, Any]:
    from trimtab.data.reading import json_of

    record = json_of(path)
    if not isinstance(record, dict) or "leaderboard" not in record or "target" not in record:
        raise FormatError(f"{path} is no result of `trimtab eval dilemmas -o FILE`")
    return record
