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
    """`difference` = mean score at the dose `high` less that at `low` (below 0), over items; `p` is its sign-flip p."""

    concept: str
    site: Site
    low: float
    high: float
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
            "doses": [self.low, self.high],
            "difference": d.mean,
            "low": d.low,
            "high": d.high,
            "p": self.p,
            "n": d.n,
        }


def check_signs(
    engine: Engine,
    vectors: ConceptVectors,
    doses: Mapping[str, tuple[Site, float, float]],
    items: Sequence[Item],
    score: Scorer,
    *,
    sampling: Sampling | None = None,
    positions: Positions = "all",
    readout: Readout | None = None,
    seed: int = 0,
) -> list[SignCheck]:
    """Each concept at both ends of `doses` (concept → site, dose below 0, dose above), all in shared batches: what both
    sides allow tells a sign sooner than what the narrower one does."""
    conditions = {
        (concept, dose): steered(
            vectors, concept, dose, [site.layer], stream=site.stream, positions=positions
        )
        for concept, (site, *ends) in doses.items()
        for dose in ends
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
    for concept, (site, low, high) in doses.items():
        down, up = (item_scores(rows[conditions[concept, d].name], score.name, concept) for d in (low, high))
        told = paired_difference(up, down), sign_flip(up - down, seed=seed)
        found.append(SignCheck(concept, site, low, high, *told))
    return found
