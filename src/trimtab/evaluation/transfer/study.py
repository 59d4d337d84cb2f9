"""From measured cells to the transfer table: one row per method and strength, both signs shown, and first of all one
row per method at its own largest coherent strength, which is chosen off the evaluation items."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.reporting.triplets import Triplet
from trimtab.evaluation.statistics import Estimate, holm
from trimtab.evaluation.transfer.cells import PLAIN, PROMPT, RANDOM, TUNED, VECTOR, Cell
from trimtab.evaluation.transfer.effects import (
    MAX_DELTA_NLL,
    MIN_VALID,
    Breadth,
    Change,
    Items,
    Slopes,
    breadth,
    change,
    coherent_range,
    efficiency,
    interval,
    largest_of_both_signs,
    null_band,
    slopes,
)
from trimtab.evaluation.transfer.leaderboard import Board, Standing, board
from trimtab.evaluation.transfer.measurement import Measured
from trimtab.evaluation.transfer.shown import Answers, ValueChange, triplets, value_changes

#: Fewer dilemmas on the target leave nothing to choose a strength on beside what is reported.
FEWEST = 8
#: A share of replies cut at the token limit that differs by more than this between cells makes them incomparable.
CUT_DIFFERENCE = 0.05


@dataclass(frozen=True)
class Setup:
    """What is asked: the target value, the share of dilemmas that only choose the strength, and from how many
    dilemmas on a value counts for breadth."""

    target: str
    select_share: float = 0.25
    min_items: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.select_share < 1:
            raise InputError(
                f"the share of dilemmas that choose the strength lies in (0, 1), got {self.select_share}"
            )


@dataclass(frozen=True)
class Side:
    """One sign of one strength. ΔNLL is signed, in nats per token; `valid` is the share of answered questions;
    `coherent` is judged off these items. `efficiency` is |change| ÷ ln(1 + `params`)."""

    strength: float
    change: Change
    delta_nll_neutral: float
    delta_nll_prompt: float
    valid: float
    fingerprint: str
    length: float | None = None
    cut: float | None = None
    coherent: bool = True
    params: int | None = None
    efficiency: float | None = None


@dataclass(frozen=True)
class Row:
    """A method at ± one strength, with the 95 % band that random directions of the same norm reach there; coherent
    where both signs are."""

    arm: str
    strength: float
    plus: Side
    minus: Side
    breadth: Breadth
    null: tuple[float, float] | None
    coherent: bool


@dataclass(frozen=True)
class Opening:
    """A method at its own largest coherent strength (None: there is none), the range, and its items' slopes over the
    coherent strengths; `p_holm` is the p of the + side, adjusted over the methods. `values` and `triplets` are what
    each value and some dilemmas, chosen by rule, did at that strength."""

    arm: str
    strength: float | None
    coherent_range: tuple[float, float] | None
    row: Row | None
    slopes: Slopes | None
    p_holm: float | None = None
    values: tuple[ValueChange, ...] = ()
    triplets: tuple[Triplet, ...] = ()


@dataclass(frozen=True, eq=False)
class Report:
    """The table, opened by `openings`; prompts and trained weights beside it; the leaderboard; what a reader must be
    told; how many cells (methods × signed strengths) were tried; the plain model's own score."""

    target: str
    n: int
    n_select: int
    openings: tuple[Opening, ...]
    rows: tuple[Row, ...]
    prompts: Mapping[str, Side]
    board: Board
    notes: tuple[str, ...]
    tried: int = 0
    plain: Estimate | None = None
    tuned: Mapping[str, Side] = field(default_factory=dict)

    @property
    def beside(self) -> dict[str, Side]:
        """Everything that is no vector: prompts, then trained weights."""
        return {**self.prompts, **self.tuned}

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain types (`records.finite` turns the dataclasses)."""
        whole = {k: v for k, v in vars(self).items() if k != "board"}
        return {**whole, "leaderboard": self.board.to_json()}


def choosing(items: Items, setup: Setup) -> np.ndarray:
    """Which dilemmas [dilemmas] choose the strength: a fixed share, by a hash of their ids, of those that take a side
    on the target and of the rest."""
    y = items.label(setup.target) != 0
    if y.sum() < FEWEST:
        raise InputError(
            f"{int(y.sum())} dilemmas take a side on {setup.target!r}; at least {FEWEST} are needed, to choose a "
            "strength on some and measure on others"
        )
    keys = [hashlib.sha256(d.id.encode()).hexdigest() for d in items.dilemmas]
    chosen = np.zeros(len(keys), bool)
    for side in (y, ~y):
        ordered = sorted(np.flatnonzero(side), key=lambda i: keys[i])
        chosen[ordered[: math.ceil(setup.select_share * len(ordered))]] = True
    return chosen


def check_plain(found: Measured) -> None:
    """Refuse to go on where the plain model does not answer with yes or no at the slot: nothing could be coherent."""
    share = float(found.valid.mean())
    if share < MIN_VALID:
        raise InputError(
            f"the plain model gives yes and no at least half of the probability in only {share:.0%} of the questions "
            f"(mean mass {found.mass.mean():.2g}); change what begins its answer (--slot), or the question (--template)"
        )


def report(
    items: Items, cells: Sequence[Cell], found: Sequence[Measured], setup: Setup, model: str = "model"
) -> Report:
    """All rows from all measured cells (the plain one among them)."""
    chosen = choosing(items, setup)
    judged, mine = items.subset(~chosen)
    _, theirs = items.subset(chosen)
    study = _Study(judged, mine, theirs, dict(zip(cells, found, strict=True)), setup)
    openings, rows = study.methods()
    prompts, tuned = ({c.arm: study.side(c) for c in study.cells if c.kind == k} for k in (PROMPT, TUNED))
    return Report(
        setup.target,
        int(np.sum(judged.label(setup.target) != 0)),
        int(chosen.sum()),
        tuple(openings),
        tuple(rows),
        prompts,
        study.leaderboard(openings, model),
        tuple(study.notes(openings)),
        sum(c.kind == VECTOR for c in cells),
        interval(judged.score(study.plain.log_ratio[mine], setup.target)),
        tuned,
    )


@dataclass(frozen=True, eq=False)
class _Study:
    items: Items
    mine: np.ndarray
    theirs: np.ndarray
    cells: Mapping[Cell, Measured]
    setup: Setup

    @property
    def plain(self) -> Measured:
        return next(m for c, m in self.cells.items() if c.kind == PLAIN)

    def ratios(self, cell: Cell) -> np.ndarray:
        return self.cells[cell].log_ratio[self.mine]

    def side(self, cell: Cell) -> Side:
        found, plain = self.cells[cell], self.plain
        mine = found.subset(self.mine)
        moved = change(self.items, self.ratios(cell), plain.log_ratio[self.mine], self.setup.target)
        return Side(
            cell.strength,
            moved,
            float(np.mean(found.neutral_nll - plain.neutral_nll)),
            float(np.mean((found.prompt_nll - plain.prompt_nll)[self.mine])),
            float(mine.valid.mean()),
            found.fingerprint,
            mine.length,
            mine.cut,
            self.coherent(cell),
            cell.params,
            efficiency(moved.target.mean, cell.params),
        )

    def coherent(self, cell: Cell) -> bool:
        """On the neutral texts and on the dilemmas that only choose the strength."""
        found = self.cells[cell]
        delta = float(np.mean(found.neutral_nll - self.plain.neutral_nll))
        return bool(found.valid[self.theirs].mean() >= MIN_VALID and delta < MAX_DELTA_NLL)  # NaN is not fine

    def methods(self) -> tuple[list[Opening], list[Row]]:
        openings, rows = [], []
        for arm in dict.fromkeys(c.arm for c in self.cells if c.kind == VECTOR):
            mine = {c.strength: c for c in self.cells if c.arm == arm and c.kind == VECTOR}
            here = [self.row(arm, mine, s) for s in sorted(s for s in mine if s > 0)]
            rows += here
            openings.append(self.opening(arm, mine, here))
        with_row = [o for o in openings if o.row is not None]
        adjusted = (
            dict(zip((o.arm for o in with_row), holm([o.row.plus.change.p for o in with_row])))
            if with_row
            else {}
        )
        named = [replace(o, p_holm=_float(adjusted.get(o.arm))) for o in openings]
        return named, rows

    def row(self, arm: str, mine: Mapping[float, Cell], size: float) -> Row:
        plus, minus = mine[size], mine[-size]
        plain = self.plain.log_ratio[self.mine]
        random = self.random(size)
        return Row(
            arm,
            size,
            self.side(plus),
            self.side(minus),
            breadth(self.items, self.ratios(plus), self.ratios(minus), self.setup.min_items),
            null_band(lambda r: change(self.items, r, plain, self.setup.target).target.mean, random),
            self.coherent(plus) and self.coherent(minus),
        )

    def random(self, size: float) -> dict[str, np.ndarray]:
        """Log-ratios of every random direction at ± one strength."""
        return {c.name: self.ratios(c) for c in self.cells if c.kind == RANDOM and abs(c.strength) == size}

    def opening(self, arm: str, mine: Mapping[float, Cell], rows: Sequence[Row]) -> Opening:
        plain = next(c for c in self.cells if c.kind == PLAIN)
        doses = sorted([0.0, *mine])
        span = coherent_range(doses, [self.coherent(mine[d] if d else plain) for d in doses])
        best = largest_of_both_signs(span, doses)
        if span is None or best is None:
            return Opening(arm, None, span, None, None)
        inside = [d for d in doses if span[0] <= d <= span[1]]
        table = [self.ratios(mine[d] if d else plain) for d in inside]
        row = next(r for r in rows if r.strength == best)
        minus, zero, plus = (self.answers(c) for c in (mine[-best], plain, mine[best]))
        target = self.setup.target
        values = value_changes(
            self.items, zero.log_ratio, plus.log_ratio, minus.log_ratio, self.random(best), target,
            self.setup.min_items,
        )  # fmt: skip
        examples = triplets(self.items, minus, zero, plus, target)
        own = slopes(self.items, inside, table, target)
        return Opening(arm, best, span, row, own, values=values, triplets=examples)

    def answers(self, cell: Cell) -> Answers:
        """What a condition said to the dilemmas that are reported on."""
        found = self.cells[cell].subset(self.mine)
        return Answers(cell.strength, found.log_ratio, [r.text for r in found.replies])

    def leaderboard(self, openings: Sequence[Opening], model: str) -> Board:
        """Plain, every method at ± its own strength, the prompts and the trained weights."""
        own = {o.arm: o.strength for o in openings}
        standings = []
        for cell, found in self.cells.items():
            if cell.kind == RANDOM or (cell.kind == VECTOR and abs(cell.strength) != own[cell.arm]):
                continue
            standings.append(
                Standing.of(model, cell.name, self.items, found.subset(self.mine), self.setup.target)
            )
        return board(standings)

    def notes(self, openings: Sequence[Opening]) -> list[str]:
        said = [
            f"{o.arm} has no strength at which both signs are coherent: measure smaller ones"
            for o in openings
            if o.strength is None
        ]
        most = max((c.strength for c in self.cells), default=0.0)
        said += [
            f"{o.arm} is still coherent at {most:g}, the largest strength measured: its limit lies further out"
            for o in openings
            if o.strength == most
        ]
        cuts = [m.cut for m in self.cells.values() if m.cut is not None]
        if cuts and max(cuts) - min(cuts) > CUT_DIFFERENCE:
            said.append(
                f"the share of free answers cut at the token limit runs from {min(cuts):.0%} to {max(cuts):.0%} "
                "between conditions: go on with them before comparing (the same command with --continue-to N)"
            )
        if not any(c.kind == RANDOM for c in self.cells):
            said.append(
                "no random directions were measured: nothing says how far any direction would move the score"
            )
        return said


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
