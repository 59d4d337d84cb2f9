"""What one set of items says over doses: the line, each item's own slope, and the part of it that is coherent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.dose_response import Regression, regress, symlog
from trimtab.evaluation.statistics import Estimate, holm, mean_interval, sign_flip

#: A point that decides more than this of its own fitted value decides the slope.
LEVERAGE = 0.45


def item_slopes(doses: Sequence[float] | np.ndarray, table: np.ndarray) -> tuple[Estimate, float]:
    """Mean over items of each item's own slope on symlog(dose), and its sign-flip p. `table` is [doses,
    items].

    Equal to a random-slope model for balanced data; unlike one line through all points, its n is the items.
    """
    slopes = slopes_of(doses, table)
    return mean_interval(slopes), sign_flip(slopes)


def slopes_of(doses: Sequence[float] | np.ndarray, table: np.ndarray) -> np.ndarray:
    """Least-squares slope of each item on symlog(dose), [items]. `table` is [doses, items]."""
    table = np.asarray(table, dtype=np.float64)
    x = symlog(doses)
    if table.ndim != 2 or table.shape[0] != len(x) or np.ptp(x) == 0:
        raise InputError(
            f"expected a table [doses = {len(x)}, items], got {table.shape}, over distinct doses"
        )
    centred = x - x.mean()
    return centred @ table / (centred @ centred)


def paired_slopes(
    doses: Sequence[float] | np.ndarray, tables: dict[str, np.ndarray], reference: str
) -> dict[str, tuple[Estimate, float]]:
    """Each method's slope less the reference's, item by item, with sign-flip p adjusted by Holm over the methods."""
    if reference not in tables or len(tables) < 2:
        raise InputError(f"name the reference {reference!r} among two methods or more: {', '.join(tables)}")
    base = slopes_of(doses, tables[reference])
    differences = {}
    for name, table in tables.items():
        if name != reference:
            own = slopes_of(doses, table)
            if len(own) != len(base):
                raise InputError(
                    f"{name!r} has {len(own)} items and {reference!r} {len(base)}: they do not pair"
                )
            differences[name] = own - base
    adjusted = holm([sign_flip(d) for d in differences.values()])
    return {n: (mean_interval(d), float(p)) for (n, d), p in zip(differences.items(), adjusted, strict=True)}


def coherence_range(doses: Sequence[float], good: Sequence[bool]) -> tuple[float, float]:
    """The largest run of neighbouring good doses around 0, as (lowest, highest); NaN where dose 0 is not good."""
    order = np.argsort(doses, kind="stable")
    d, ok = np.asarray(doses, dtype=np.float64)[order], np.asarray(good, dtype=bool)[order]
    zero = int(np.abs(d).argmin())
    if d[zero] != 0 or not ok[zero]:
        return float("nan"), float("nan")
    low = high = zero
    while low > 0 and ok[low - 1]:
        low -= 1
    while high + 1 < len(d) and ok[high + 1]:
        high += 1
    return float(d[low]), float(d[high])


@dataclass(frozen=True)
class Study:
    """`line` is through the means of all valid doses, `coherent_line` through those of `coherence_range`;
    `slope` is the mean of the items' own slopes, `p_items` its sign-flip p, `slopes` each item's, `against` the
    share of items that go the other way."""

    line: Regression
    coherent_line: Regression
    coherence_range: tuple[float, float]
    slope: Estimate
    p_items: float
    slopes: tuple[float, ...]
    against: float
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dict: the journal's columns at the top level."""
        return {
            **self.line.to_json(),
            "coherent_slope": self.coherent_line.slope,
            "coherence_range": list(self.coherence_range),
            "item_slope": self.slope.mean,
            "item_slope_low": self.slope.low,
            "item_slope_high": self.slope.high,
            "p_items": self.p_items,
            "n_items": self.slope.n,
            "anti_steered": self.against,
            "item_slopes": list(self.slopes),
            "warnings": list(self.warnings),
        }


def study(
    doses: Sequence[float],
    table: np.ndarray,
    *,
    valid: Sequence[bool] | None = None,
    good: Sequence[bool] | None = None,
    seed: int = 0,
) -> Study:
    """Everything that a table [doses, items] says. `valid` marks doses that count for the line, `good` those that are
    coherent. Items without a finite number at every valid dose are left out of the slopes, and counted."""
    table = np.asarray(table, dtype=np.float64)
    doses_ = np.asarray(doses, dtype=np.float64)
    keep = np.ones(len(doses_), bool) if valid is None else np.asarray(valid, dtype=bool)
    ok = keep if good is None else np.asarray(good, dtype=bool) & keep
    if table.ndim != 2 or len(table) != len(doses_):
        raise InputError(f"expected a table [doses = {len(doses_)}, items], got {table.shape}")
    whole = np.isfinite(table[keep]).all(0) & bool(keep.any())
    warnings = []
    if not whole.all():
        warnings.append(f"{int((~whole).sum())} of {table.shape[1]} items lack a number and are left out")
    if not whole.any():
        raise InputError("no item has a finite score at every valid dose: nothing can be said of its slopes")
    means = table[:, whole].mean(1)
    zero = np.flatnonzero(doses_ == 0)
    at_zero = None if not len(zero) else table[zero[0], whole]
    line = regress(doses_, means, valid=keep, items_at_zero=at_zero, seed=seed)
    low, high = coherence_range(doses_.tolist(), ok.tolist())
    inside = (doses_ >= low) & (doses_ <= high)
    if line.leverage > LEVERAGE:
        warnings.append(
            f"the dose farthest out decides {line.leverage:.0%} of its own fitted value: look at the coherent slope"
        )
    if keep.sum() < 2:
        raise InputError("a slope needs two valid doses or more")
    own = slopes_of(doses_[keep], table[keep][:, whole])
    return Study(
        line,
        regress(doses_, means, valid=inside, items_at_zero=at_zero, seed=seed),
        (low, high),
        mean_interval(own),
        sign_flip(own, seed=seed),
        tuple(own.tolist()),
        float(np.mean(own * np.sign(own.mean()) < 0)),
        tuple(warnings),
    )
