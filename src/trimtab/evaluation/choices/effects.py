"""What steering did to the margins of questions with options: both signs, paired with the untouched model, beside what
random directions of the same norm do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.evaluation.conditions import Condition
from trimtab.evaluation.log_ratio import MIN_MASS
from trimtab.evaluation.reporting.triplets import Said, Triplet, chosen
from trimtab.evaluation.samples import Record, by_condition
from trimtab.evaluation.scorers.choices import ChoiceScorer, mass
from trimtab.evaluation.statistics import Estimate, mean_interval, paired_difference, sign_flip

#: Below this share of questions that answer at the slot, a condition says little (as with dilemmas).
MIN_VALID = 0.8


@dataclass(frozen=True)
class Side:
    """One condition: mean margin, share of questions whose target is the likeliest option, share whose options hold
    half of the probability, and that probability; against the untouched model, the paired change with its sign-flip p,
    and the shares of questions that lost and won their target. `strength` is signed; `missing` questions have no margin
    here or there."""

    condition: str
    strength: float
    fingerprint: str
    margin: Estimate | None
    share: float
    valid: float
    mass: float
    change: Estimate | None = None
    p: float | None = None
    lost: float | None = None
    won: float | None = None
    missing: int = 0

    @property
    def good(self) -> bool:
        """Whether the model still answers at the slot."""
        return self.valid >= MIN_VALID


@dataclass(frozen=True, eq=False)
class Effects:
    """`sides` are the untouched model, then + and − of what steers; `null` is the 95 % band of the mean change under
    `randoms` (name, strength, mean change); `slopes` are half the difference of each question's margin at + and −, per
    unit of strength; `examples` stand at quantiles of that difference."""

    n: int
    chance: float
    sides: tuple[Side, ...]
    randoms: tuple[tuple[str, float, float], ...] = ()
    slopes: tuple[float, ...] = ()
    examples: tuple[Triplet, ...] = ()

    @property
    def plain(self) -> Side:
        """The untouched model."""
        return self.sides[0]

    @property
    def steered(self) -> tuple[Side, ...]:
        """+ and −; none where nothing steers."""
        return self.sides[1:]

    @property
    def null(self) -> tuple[float, float] | None:
        """What 95 % of random directions do, both signs of each."""
        if not self.randoms:
            return None
        low, high = np.quantile([mean for _, _, mean in self.randoms], (0.025, 0.975))
        return float(low), float(high)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must be told."""
        said = []
        if self.steered and self.null is None:
            said.append(
                "no random directions were run: nothing says how far any direction would move a margin"
            )
        if silent := [f"{s.valid:.0%} ({s.condition})" for s in self.sides if not s.good]:
            said.append(
                f"the options hold half of the probability at only {', '.join(silent)} of the questions: margins of "
                "the others say little"
            )
        for s in self.sides:
            if s.missing:
                said.append(
                    f"{s.condition}: {s.missing} of {self.n} questions have no margin and are left out"
                )
        return tuple(said)


def effects(
    scorer: ChoiceScorer, conditions: Sequence[Condition], rows: Sequence[Record], size: float
) -> Effects:
    """From the rows of `asking.ask`. `size` is how strong the push is; the axis `sign` of a condition, which way."""
    by = by_condition(rows)
    plain = by[conditions[0].name]
    before = _margins(scorer, plain)
    sides, randoms = [], []
    for c in conditions:
        here = size * c.axes.get("sign", 0)
        if c.kind == "random":
            mean = _mean(_margins(scorer, by[c.name]) - before)
            randoms += [] if mean is None else [(c.concept or c.name, here, mean)]
        else:
            sides.append(_side(scorer, c, here, by[c.name], plain))
    both = [
        by[c.name] for sign in (1, -1) for c in conditions if c.kind == "steered" and c.axes["sign"] == sign
    ]
    options = [len(r["options"]) for r in plain]
    slopes, examples = (), ()
    if both:
        moved = _margins(scorer, both[0]) - _margins(scorer, both[1])
        slopes = tuple(float(v) for v in moved[np.isfinite(moved)] / (2 * size))
        examples = _examples(scorer, moved, size, plain, both)
    return Effects(
        len(plain), float(np.mean([1 / k for k in options])), tuple(sides), tuple(randoms), slopes, examples
    )


def _margins(scorer: ChoiceScorer, rows: Sequence[Record]) -> np.ndarray:
    return scorer.values(rows, scorer.target)


def _mean(values: np.ndarray) -> float | None:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else None


def _side(
    scorer: ChoiceScorer, c: Condition, strength: float, rows: Sequence[Record], plain: Sequence[Record]
) -> Side:
    margins, before = _margins(scorer, rows), _margins(scorer, plain)
    hit, had = (type(scorer)("right").values(r, scorer.target) > 0 for r in (rows, plain))
    masses = np.array([mass(r["options"]) for r in rows])
    kept = np.isfinite(margins)
    found = Side(
        c.name,
        strength,
        rows[0]["fingerprint"],
        mean_interval(margins[kept]) if kept.any() else None,
        float(hit.mean()),
        float((masses >= MIN_MASS).mean()),
        float(masses.mean()),
        missing=int((~kept).sum()),
    )
    both = kept & np.isfinite(before)
    if c.kind == "plain" or not both.any():
        return found
    return replace(
        found,
        change=paired_difference(margins[both], before[both]),
        p=sign_flip(margins[both] - before[both]),
        lost=float((had & ~hit).mean()),
        won=float((~had & hit).mean()),
        missing=int((~both).sum()),
    )


def _examples(
    scorer: ChoiceScorer,
    moved: np.ndarray,
    size: float,
    plain: Sequence[Record],
    both: Sequence[Sequence[Record]],
) -> tuple[Triplet, ...]:
    """Questions at the quantiles of margin at + less margin at −, with the likelihood of their options."""
    names = [r["item"] for r in plain]

    def said(rows: Sequence[Record], strength: float, i: int) -> Said:
        row = rows[i]
        value = scorer.value(row["options"], row["target"])
        return Said(strength, value, _shares(row["options"], row["target"]))

    return tuple(
        Triplet(
            quantile, names[i], plain[i]["question"], float(moved[i]), len(names),
            said(both[1], -size, i), said(plain, 0.0, i), said(both[0], size, i),
        )
        for quantile, i in chosen(moved, names)
    )  # fmt: skip


def _shares(options: Mapping[str, float | None], target: str) -> str:
    """Probability of each option; the target is marked."""
    return ", ".join(
        f"{name}{' (target)' if name == target else ''} {0.0 if v is None else np.exp(v):.1%}"
        for name, v in options.items()
    )
