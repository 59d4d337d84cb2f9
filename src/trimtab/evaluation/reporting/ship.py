"""The calibrated safe range of a vector as one range of total strength: what a reader may ship."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.directions import ConceptVectors
from trimtab.safe_range import KEY, safe_range, total_range
from trimtab.sites import Site


@dataclass(frozen=True)
class Ship:
    """`low` to `high` in total strength; `words` say what was measured. `calibrated` is False for the range that a run
    itself found coherent, which stands in where the file has none."""

    low: float
    high: float
    words: str
    calibrated: bool = True

    @property
    def said(self) -> str:
        """For example "−0.61 to +0.53 (kl_p95 at most 1, 12 prompts)"."""
        return f"{_signed(self.low)} to {_signed(self.high)} ({self.words})"

    def holds(self, strength: float) -> bool:
        """Whether a strength lies inside."""
        return self.low - 1e-9 <= strength <= self.high + 1e-9

    def beyond(self, name: str, unit: str, strengths: Sequence[float]) -> str | None:
        """Which of the strengths that were measured lie outside, in a sentence; None where all lie inside."""
        out = [_signed(s) for s in sorted(set(strengths)) if not self.holds(s)]
        if not out:
            return None
        many = f"{unit}s {', '.join(out)} lie" if len(out) > 1 else f"{unit} {out[0]} lies"
        return f"{name}: {many} beyond its safe range, {self.said}"


def ship_of(
    vectors: ConceptVectors, concept: str, sites: Sequence[Site], unit: str = "dose", operator: str = "add"
) -> Ship | None:
    """The range of a push shared by `sites`; None where one of them was not calibrated, or a scale has no norm."""
    bounds, doses, entries = [], [], []
    for site in sites:
        here = safe_range(vectors.calibration, concept, site.key, operator)
        ratio = 1.0 if unit == "dose" else _ratio(vectors, concept, site)
        if here is None or ratio is None:
            return None
        bounds.append(here)
        doses.append(ratio / len(sites))
        entries.append(vectors.calibration[KEY][concept][site.key][operator])
    low, high = total_range(bounds, doses)
    first = entries[0]
    words = "calibrated"
    if first.get("limit"):
        words = f"calibrated: {first['limit']} at most {first['value']:g}, {first['prompts']} prompts"
    return Ship(low, high, words)


def _ratio(vectors: ConceptVectors, concept: str, site: Site) -> float | None:
    """Raw norm ÷ typical norm: the dose of scale 1."""
    raw = vectors.table(site).value("norms", vectors.index(concept))
    typical = vectors.typical_norms.get(site)
    return None if raw is None or not typical else raw / typical


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−") if value else "0"
