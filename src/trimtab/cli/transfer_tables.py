"""How `trimtab eval dilemmas` shows its result: a row per method, then both signs, then the leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .frame import Desk

if TYPE_CHECKING:
    from rich.table import Table

    from trimtab.evaluation.statistics import Estimate
    from trimtab.evaluation.transfer.leaderboard import Board
    from trimtab.evaluation.transfer.study import Report, Side


def show(desk: Desk, done: Report, unit: str) -> None:
    """One row per method at its own strength; then both its signs and the prompts; then the leaderboard."""
    from rich.table import Table

    opening = Table("method", unit, "+ (nats)", "−", "random, 95 %", "slope per item", "anti-steered", "p (Holm)",
                    box=None, pad_edge=False)  # fmt: skip
    table = Table(f"{done.target}, n = {done.n}", "change (nats)", "p", "others", "ΔNLL", "valid", "tokens", "cut",
                  box=None, pad_edge=False)  # fmt: skip
    moved = []
    for o in done.openings:
        if o.row is None or o.slopes is None or o.p_holm is None:
            opening.add_row(o.arm, "none", "no strength of both signs", *["–"] * 5)
            continue
        r = o.row
        null = "–" if r.null is None else f"{r.null[0]:+.2f} … {r.null[1]:+.2f}"
        opening.add_row(
            o.arm, f"{r.strength:g}", _interval(r.plus.change.target), _interval(r.minus.change.target), null,
            _interval(o.slopes.slope), f"{o.slopes.anti_steered:.0%}", f"{o.p_holm:.2g}",
        )  # fmt: skip
        for side in (r.plus, r.minus):
            table.add_row(f"{o.arm} {side.strength:+g}", *_side(side))
        moved.append(f"{o.arm} {len(r.breadth.moved)} of {r.breadth.tested}")
    for name, side in done.beside.items():
        table.add_row(name, *_side(side))
    if done.openings:
        desk.print(opening)
        desk.print(f"breadth (values moved of those tested): {', '.join(moved) or 'none'}\n")
    desk.print(table)
    desk.print("")
    desk.print(board_table(done.board))


def _side(side: Side) -> tuple[str, ...]:
    others = "–" if side.change.others is None else f"{side.change.others:.2f}"
    return (
        _interval(side.change.target), f"{side.change.p:.2g}", others, f"{side.delta_nll_neutral:+.2f}",
        f"{side.valid:.0%}", *_length(side.length, side.cut),
    )  # fmt: skip


def _length(length: float | None, cut: float | None) -> tuple[str, str]:
    """Mean length of free answers and the share cut at the limit, where some were asked for."""
    return "–" if length is None else f"{length:.1f}", "–" if cut is None else f"{cut:.0%}"


def _interval(e: Estimate) -> str:
    return f"{e.mean:+.2f} [{e.low:+.2f}, {e.high:+.2f}]"


def board_table(found: Board) -> Table:
    """Conditions under the four rules with ranks, best first; the caption says whether their order depends on one."""
    from rich.table import Table

    flag = "order depends on the rule" if found.order_depends_on_the_rule else "one order under all rules"
    table = Table("condition", "forced", "#", "free", "#", "missing", "binary", "#", "signed", "#", "valid", "tokens",
                  "cut", box=None, pad_edge=False, caption=flag)  # fmt: skip
    for s, rank in sorted(zip(found.standings, found.ranks, strict=True), key=lambda x: x[1]["forced"] or 0):
        cells = [s.condition if s.model in ("", "model") else f"{s.model}: {s.condition}"]
        for rule in ("forced", "free", "binary", "signed"):
            value = getattr(s, rule)
            shown = "–" if value is None else f"{value:.0%}" if rule == "binary" else f"{value:+.2f}"
            cells += [shown, str(rank[rule] or "")]
            if rule == "free":
                cells.append("–" if s.missing is None else f"{s.missing:.0%}")
        table.add_row(*cells, "–" if s.valid is None else f"{s.valid:.0%}", *_length(s.length, s.cut))
    return table
