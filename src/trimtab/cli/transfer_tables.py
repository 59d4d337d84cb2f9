"""How `trimtab eval dilemmas` shows its result: both signs of every method, then each method, then the leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .frame import Desk

if TYPE_CHECKING:
    from rich.table import Table

    from trimtab.evaluation.statistics import Estimate
    from trimtab.evaluation.transfer.leaderboard import Board
    from trimtab.evaluation.transfer.study import Report, Side


def show(desk: Desk, done: Report, unit: str) -> None:
    """Both signs of every method at its own strength, and the prompts; then what is said of a method as a whole."""
    from rich.table import Table

    table = Table(f"{done.target}, n = {done.n}", "change (nats)", "p", "random, 95 %", "others", "ΔNLL", "valid",
                  box=None, pad_edge=False)  # fmt: skip
    whole = Table("method", unit, "coherent", "slope per item", "anti-steered", "breadth", "p (Holm)",
                  box=None, pad_edge=False)  # fmt: skip
    for o in done.openings:
        if o.row is None or o.slopes is None or o.coherent_range is None or o.p_holm is None:
            whole.add_row(o.arm, "none", "no strength of both signs", *["–"] * 4)
            continue
        r = o.row
        null = "–" if r.null is None else f"{r.null[0]:+.2f} … {r.null[1]:+.2f}"
        for side in (r.plus, r.minus):
            table.add_row(f"{o.arm} {side.strength:+g}", *_side(side, null))
        whole.add_row(
            o.arm, f"{r.strength:g}", f"{o.coherent_range[0]:g} … {o.coherent_range[1]:g}", _interval(o.slopes.slope),
            f"{o.slopes.anti_steered:.0%}", f"{len(r.breadth.moved)} of {r.breadth.tested}", f"{o.p_holm:.2g}",
        )  # fmt: skip
    for name, side in done.prompts.items():
        table.add_row(name, *_side(side, "–"))
    for part in (table, whole) if done.openings else (table,):
        desk.print(part)
        desk.print("")
    desk.print(board_table(done.board))


def _side(side: Side, null: str) -> tuple[str, ...]:
    others = "–" if side.change.others is None else f"{side.change.others:.2f}"
    return (
        _interval(side.change.target), f"{side.change.p:.2g}", null, others, f"{side.delta_nll_neutral:+.2f}",
        f"{side.valid:.0%}",
    )  # fmt: skip


def _interval(e: Estimate) -> str:
    return f"{e.mean:+.2f} [{e.low:+.2f}, {e.high:+.2f}]"


def board_table(found: Board) -> Table:
    """Conditions under the four rules with ranks, best first; the caption says whether their order depends on one."""
    from rich.table import Table

    flag = "order depends on the rule" if found.order_depends_on_the_rule else "one order under all rules"
    table = Table("condition", "forced", "#", "free", "#", "missing", "binary", "#", "signed", "#", "valid",
                  box=None, pad_edge=False, caption=flag)  # fmt: skip
    for s, rank in sorted(zip(found.standings, found.ranks, strict=True), key=lambda x: x[1]["forced"] or 0):
        cells = [s.condition if s.model in ("", "model") else f"{s.model}: {s.condition}"]
        for rule in ("forced", "free", "binary", "signed"):
            value = getattr(s, rule)
            shown = "–" if value is None else f"{value:.0%}" if rule == "binary" else f"{value:+.2f}"
            cells += [shown, str(rank[rule] or "")]
            if rule == "free":
                cells.append("–" if s.missing is None else f"{s.missing:.0%}")
        table.add_row(*cells, "–" if s.valid is None else f"{s.valid:.0%}")
    return table
