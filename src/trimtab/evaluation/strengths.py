"""What a sweep's doses are in other units, beside the rule of thumb that a scale may be 300 / ‖v‖ (methods D.7).

The rule bounds a displacement, at one layer, by 300 units of one model's residual stream, and so means something else
in every model and at every layer. A dose is a share of the typical norm there, and carries over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.directions import ConceptVectors
from trimtab.evaluation.cells import Cell
from trimtab.evaluation.conditions import UNION
from trimtab.evaluation.curves import Curve
from trimtab.sites import Site

#: The displacement that the rule of thumb allows, in units of the residual stream.
LONGEST = 300.0


@dataclass(frozen=True)
class Strength:
    """The best coherent `dose` of one concept in one cell. Norms, and so scales, are those of the cell's middle layer,
    and nan for a union of streams, each of which has its own; `separation` is the file's own there, in stds of neutral
    reply tokens, where the extraction measured it."""

    cell: Cell
    concept: str
    dose: float
    typical_norm: float
    raw_norm: float
    separation: float | None = None

    @property
    def scale(self) -> float:
        """The dose as a multiple of the raw norm."""
        return self.dose * self.typical_norm / self.raw_norm

    @property
    def rule_scale(self) -> float:
        """The largest scale by the rule of thumb."""
        return LONGEST / self.raw_norm

    @property
    def rule_dose(self) -> float:
        """The same as a dose."""
        return LONGEST / self.typical_norm

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "cell": self.cell.name, "concept": self.concept, "dose": self.dose, "scale": self.scale,
            "rule_300_scale": self.rule_scale, "rule_300_dose": self.rule_dose,
        }  # fmt: skip


def strengths(curves: Iterable[Curve], files: Mapping[str, ConceptVectors]) -> list[Strength]:
    """One per curve, in their order; `files` maps each method to its vectors."""
    found = []
    for curve in curves:
        if UNION in curve.cell.stream:
            found.append(Strength(curve.cell, curve.concept, curve.best.dose, math.nan, math.nan))
            continue
        vectors, site = files[curve.cell.method], Site(curve.cell.middle, curve.cell.stream)
        separations = vectors.origin.parameters.get("read_separation", {})
        found.append(
            Strength(
                curve.cell,
                curve.concept,
                curve.best.dose,
                vectors.typical_norms[site],
                vectors.direction(curve.concept, site).norm,
                separations.get(site.key),
            )
        )
    return found
