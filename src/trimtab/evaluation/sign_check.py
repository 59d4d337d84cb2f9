"""Does + push towards the concept? Behaviour on prompts that the calibration has not used says so, or does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine
from trimtab.engines.requests import Sampling
from trimtab.evaluation.conditions import steered
from trimtab.evaluation.items import Item
from trimtab.evaluation.samples import by_condition, item_scores, measure
from trimtab.evaluation.scorers.scorer import Scorer
from trimtab.evaluation.statistics import Estimate, paired_difference, sign_flip
from trimtab.prompts import Positions
from trimtab.readouts import Readout
from trimtab.sites import Site

#: A sign is only called wrong, or right, below this p.
LEVEL = 0.05


@dataclass(frozen=True)
class SignCheck:
    """`difference` = mean score at +dose less that at −dose, over items; `p` is its sign-flip p."""

    concept: str
    site: Site
    dose: float
    difference: Estimate
    p: float

    @property
    def verdict(self) -> str:
        """ "right", "reversed" or "not told"."""
        if self.p >= LEVEL:
            return "not told"
        return "right" if self.difference.mean > 0 else "reversed"

    def to_json(self) -> dict[str, Any]:
        """For the file's calibration."""
        d = self.difference
        return {
            "verdict": self.verdict,
            "site": self.site.key,
            "dose": self.dose,
            "difference": d.mean,
            "low": d.low,
            "high": d.high,
            "p": self.p,
            "n": d.n,
        }


def check_signs(
    engine: Engine,
    vectors: ConceptVectors,
    doses: Mapping[str, tuple[Site, float]],
    items: Sequence[Item],
    score: Scorer,
    *,
    sampling: Sampling | None = None,
    positions: Positions = "all",
    readout: Readout | None = None,
    seed: int = 0,
) -> list[SignCheck]:
    """Each concept at ± the dose of `doses` (concept → site and dose), all in shared batches."""
    conditions = {
        (concept, sign): steered(
            vectors, concept, sign * dose, [site.layer], stream=site.stream, positions=positions
        )
        for concept, (site, dose) in doses.items()
        for sign in (1, -1)
    }
    rows = by_condition(
        measure(
            engine,
            items,
            list(conditions.values()),
            list(doses),
            [score],
            sampling=sampling,
            readout=readout,
            seed=seed,
        )
    )
    found = []
    for concept, (site, dose) in doses.items():
        up, down = (item_scores(rows[conditions[concept, s].name], score.name, concept) for s in (1, -1))
        found.append(
            SignCheck(concept, site, dose, paired_difference(up, down), sign_flip(up - down, seed=seed))
        )
    return found
