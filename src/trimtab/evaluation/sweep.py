"""The layer sweep: which cell (method, stream, layers, positions) does most at a dose that keeps the text coherent.

Cells are compared at fixed *dose*, so that a layer of long states is not pushed less. A cell's reach is the mean over
concepts of what its best coherent dose adds to the score. The best cell is chosen on some items, refined (neighbouring
layers, doses between those tried; those of the runner-up too while the two cannot be told apart), and its curve is then
measured on others, beside random directions and prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine
from trimtab.engines.requests import Sampling
from trimtab.errors import InputError
from trimtab.evaluation.cells import Cell, conditions_of
from trimtab.evaluation.conditions import PLAIN, RANDOMS, Condition, prefix
from trimtab.evaluation.curves import Curve, curves
from trimtab.evaluation.examples import examples
from trimtab.evaluation.fluency import Fluency
from trimtab.evaluation.items import Item
from trimtab.evaluation.reporting.triplets import Triplet
from trimtab.evaluation.samples import Ledger, Record, by_condition, item_scores, measure
from trimtab.evaluation.scorers.scorer import Scorer
from trimtab.evaluation.statistics import Estimate, mean_interval, paired_difference, sign_flip
from trimtab.readouts import Readout

DOSES = (-0.4, 0.0, 0.2, 0.4, 0.6, 0.8)
#: Two cells whose difference has a smaller p are told apart.
LEVEL = 0.05
Advance = Callable[[int], None]
#: Per concept: what a baseline gives, and by how much steering exceeds it.
Beside = tuple[dict[str, Estimate], dict[str, Estimate]]


@dataclass(frozen=True, eq=False)
class Bench:
    """What all measurements of a sweep share. `files` maps a method's name to its vectors; `baseline` holds the mean
    differences of a corpus, beside which the chosen cell is reported."""

    engine: Engine
    files: Mapping[str, ConceptVectors]
    concepts: tuple[str, ...]
    score: Scorer
    fluency: Fluency
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=32, temperature=0.7, top_p=0.9))
    readout: Readout | None = None
    randoms: int = RANDOMS
    continue_to: int | None = None
    baseline: ConceptVectors | None = None
    seed: int = 0
    ledger: Ledger | None = None
    advance: Advance | None = None

    def __post_init__(self) -> None:
        if self.randoms < RANDOMS:
            raise InputError(f"a null band needs {RANDOMS} random directions or more, got {self.randoms}")
        for method, vectors in self.files.items():
            for concept in self.concepts:
                vectors.index(concept)
            if missing := [s.key for s in vectors.sites if s not in vectors.typical_norms]:
                raise InputError(
                    f"{method} lacks the typical norms that a dose needs at {', '.join(missing)}"
                )

    def curves(
        self, cells: Sequence[Cell], items: Sequence[Item], doses: Sequence[float], sizes: Sequence[float]
    ) -> list[Curve]:
        """All cells at all doses and the random directions at `sizes`, in shared batches."""
        return self.run(cells, items, doses, sizes)[0]

    def run(
        self,
        cells: Sequence[Cell],
        items: Sequence[Item],
        doses: Sequence[float],
        sizes: Sequence[float],
        beside: Sequence[Condition] = (),
    ) -> tuple[list[Curve], dict[str, list[Record]]]:
        """Curves, and all rows by condition; `beside` are run with them."""
        own = {c: self.conditions(c, doses, sizes) for c in cells}
        rows = self.measure([PLAIN, *(c for many in own.values() for c in many), *beside], items)
        found = curves(
            rows, own, PLAIN, self.concepts, self.score.name, self.fluency,
            seed=self.seed, revision=self.engine.info.revision,
        )  # fmt: skip
        return found, by_condition(rows)

    def conditions(self, cell: Cell, doses: Sequence[float], sizes: Sequence[float]) -> list[Condition]:
        """What is run of one cell."""
        return conditions_of(
            cell,
            self.files[cell.method],
            self.concepts,
            doses,
            self.randoms if sizes else 0,
            sizes,
            self.seed,
        )

    def mean_differences(self, choice: Choice) -> dict[str, Condition]:
        """The baseline of each concept at the chosen cell's place and dose; none where the cell is that itself."""
        cell, file = choice.cell, self.baseline
        if (
            file is None
            or file.hash == self.files[cell.method].hash
            or not set(cell.sites) <= set(file.tables)
        ):
            return {}
        of = replace(cell, method="baseline")
        pairs = [(c, choice.doses[c]) for c in self.concepts if c in file.concepts and choice.doses[c]]
        return {c: found for c, dose in pairs for found in conditions_of(of, file, [c], [dose])}

    def measure(self, conditions: Sequence[Condition], items: Sequence[Item]) -> list[dict[str, Any]]:
        """Rows of these conditions."""
        return measure(
            self.engine, items, conditions, self.concepts, [self.score],
            sampling=self.sampling, readout=self.readout, seed=self.seed, ledger=self.ledger,
            plain_loss=self.fluency.name == "plain_nll", continue_to=self.continue_to, advance=self.advance,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Choice:
    """The best cell, by how much, and the one after it. `doses` maps each concept to its best coherent dose there."""

    cell: Cell
    reach: Estimate
    runner_up: Cell | None
    gap: Estimate | None
    p: float | None
    doses: Mapping[str, float]

    @property
    def told(self) -> bool:
        """Whether the items tell the best cell from the runner-up."""
        return self.p is not None and self.p < LEVEL

    @property
    def undecided(self) -> tuple[Cell, ...]:
        """The best cell, and the runner-up while the two cannot be told apart: a closer look at one of them alone would
        decide between them."""
        return (self.cell,) if self.told or self.runner_up is None else (self.cell, self.runner_up)

    @property
    def reason(self) -> str:
        """In words."""
        r = self.reach
        said = (
            f"{self.cell.name} adds {r.mean:.3g} [{r.low:.3g}, {r.high:.3g}] to the score at its best coherent doses "
            f"(n = {r.n} items)"
        )
        if self.gap is None or self.runner_up is None:
            return said + "; it is the only cell"
        g = self.gap
        told = "" if self.told else ", which these items cannot tell apart"
        return said + (
            f"; next is {self.runner_up.name}, {g.mean:.3g} [{g.low:.3g}, {g.high:.3g}] less "
            f"(p = {self.p:.2g}){told}"
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "cell": self.cell.to_json(),
            "reach": vars(self.reach),
            "runner_up": None if self.runner_up is None else self.runner_up.to_json(),
            "gap": None if self.gap is None else vars(self.gap),
            "p": self.p,
            "best_dose": dict(self.doses),
            "reason": self.reason,
        }


def reaches(found: Sequence[Curve]) -> dict[Cell, np.ndarray]:
    """Per cell, what its best coherent doses add to each item, averaged over concepts, [items]."""
    gains: dict[Cell, list[np.ndarray]] = {}
    for curve in found:
        if curve.plain.finite:
            gains.setdefault(curve.cell, []).append(curve.gain)
    return {cell: np.mean(own, axis=0) for cell, own in gains.items()}


def choose(found: Sequence[Curve], seed: int = 0) -> Choice:
    """The cell of the longest reach; where two are equal, the earlier one."""
    reach = reaches(found)
    if not reach:
        raise InputError("no cell has finite scores on the plain model: nothing can be chosen")
    order = sorted(reach, key=lambda c: -float(reach[c].mean()))
    best = order[0]
    doses = {c.concept: c.best.dose for c in found if c.cell == best}
    if len(order) == 1:
        return Choice(best, mean_interval(reach[best], seed=seed), None, None, None, doses)
    second = order[1]
    gap = reach[best] - reach[second]
    return Choice(
        best,
        mean_interval(reach[best], seed=seed),
        second,
        paired_difference(reach[best], reach[second], seed=seed),
        sign_flip(gap, seed=seed),
        doses,
    )


def refined_doses(found: Sequence[Curve], cell: Cell) -> list[float]:
    """Doses half way between each concept's best dose in a cell and its tried neighbours, at doses ≥ 0."""
    new: set[float] = set()
    for curve in (c for c in found if c.cell == cell):
        tried = [p.dose for p in curve.points if p.dose >= 0]
        at = tried.index(curve.best.dose)
        new |= {
            round((tried[i] + tried[i + 1]) / 2, 6) for i in (at - 1, at) if i >= 0 and i + 1 < len(tried)
        }
    return sorted(new - {p.dose for c in found if c.cell == cell for p in c.points})


def neighbours(cell: Cell, candidates: Sequence[Cell]) -> list[Cell]:
    """Of cells that differ only in depth, the nearest one above and below that has not been tried."""
    alike = [
        c
        for c in candidates
        if (c.method, c.stream, c.positions, len(c.layers))
        == (cell.method, cell.stream, cell.positions, len(cell.layers))
    ]
    above = min((c for c in alike if c.middle > cell.middle), key=lambda c: c.middle, default=None)
    below = max((c for c in alike if c.middle < cell.middle), key=lambda c: c.middle, default=None)
    return [c for c in (below, above) if c is not None]


@dataclass(frozen=True, eq=False)
class Sweep:
    """`curves` of every cell on the choosing items; `final` of the chosen cell on the reporting items, with `prefixes`
    and `means` (concept → what the prompt and the mean difference give there) and the paired difference of steering
    from both, or none where all items chose. `tried` counts cells × concepts × doses; `examples` are reporting items of
    each concept, chosen by rule."""

    curves: tuple[Curve, ...]
    choice: Choice
    final: tuple[Curve, ...]
    prefixes: Mapping[str, Estimate]
    against_prefix: Mapping[str, Estimate]
    tried: int
    means: Mapping[str, Estimate] = field(default_factory=dict)
    against_means: Mapping[str, Estimate] = field(default_factory=dict)
    examples: Mapping[str, tuple[Triplet, ...]] = field(default_factory=dict)


def sweep(
    bench: Bench,
    cells: Sequence[Cell],
    candidates: Sequence[Cell],
    choosing: Sequence[Item],
    reporting: Sequence[Item],
    doses: Sequence[float] = DOSES,
    words: Mapping[str, str] | None = None,
    refine: bool = True,
) -> Sweep:
    """Try `cells`, refine among `candidates` (all cells that there are), choose, and report on other items."""
    doses = sorted({*doses, 0.0})
    if not any(d > 0 for d in doses):
        raise InputError(f"a sweep needs at least one dose above 0, got {doses}")
    largest = [max(abs(d) for d in doses)]
    found = bench.curves(cells, choosing, doses, largest)
    choice = choose(found, bench.seed)
    for _ in range(2 if refine else 0):
        tried = {c.cell for c in found}
        near = [c for c in neighbours(choice.cell, candidates) if c not in tried]
        if near:
            found += bench.curves(near, choosing, doses, largest)
        between = {cell: refined_doses(found, cell) for cell in choice.undecided}
        for cell, more in between.items():
            found = _merged(found, bench.curves([cell], choosing, more, []) if more else [])
        choice = choose(found, bench.seed)
        if not near and not any(between.values()):
            break
    tried = sum(sum(p.dose != 0 for p in c.points) for c in found)
    if not reporting:
        return Sweep(tuple(found), choice, (), {}, {}, tried)
    final, told, means, shown = _report(bench, choice, found, reporting, words or {})
    return Sweep(tuple(found), choice, tuple(final), *told, tried, *means, shown)


def _merged(found: list[Curve], extra: Sequence[Curve]) -> list[Curve]:
    more = {(c.cell, c.concept): c for c in extra}
    return [c.merged(more[k]) if (k := (c.cell, c.concept)) in more else c for c in found]


def _report(
    bench: Bench, choice: Choice, found: Sequence[Curve], items: Sequence[Item], words: Mapping[str, str]
) -> tuple[list[Curve], Beside, Beside, dict[str, tuple[Triplet, ...]]]:
    """The chosen cell, the prompt baseline, the mean differences and examples on items that chose nothing."""
    doses = sorted({p.dose for c in found if c.cell == choice.cell for p in c.points})
    sizes = sorted({abs(d) for d in doses if d})
    told, means = {c: prefix(c, words.get(c)) for c in bench.concepts}, bench.mean_differences(choice)
    final, rows = bench.run([choice.cell], items, doses, sizes, [*told.values(), *means.values()])
    best = {
        c.concept: next(p for p in c.points if p.dose == choice.doses[c.concept]) for c in final
    }  # chosen elsewhere

    def beside(conditions: Mapping[str, Condition]) -> Beside:
        scores = {c: item_scores(rows[x.name], bench.score.name, c) for c, x in conditions.items()}
        return (
            {c: mean_interval(s, seed=bench.seed) for c, s in scores.items()},
            {c: paired_difference(best[c].items, s, seed=bench.seed) for c, s in scores.items()},
        )

    shown = {c.concept: examples(c, best[c.concept], rows, items) for c in final}
    return final, beside(told), beside(means), shown
