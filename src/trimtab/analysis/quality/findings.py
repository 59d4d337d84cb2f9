"""The report as values: what was measured for every concept at every site, and what could not be, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trimtab.analysis.quality.background import Background
from trimtab.analysis.quality.halves import SplitHalf
from trimtab.analysis.quality.heads import Heads
from trimtab.analysis.quality.heldout import HeldOut
from trimtab.analysis.quality.influence import Influence
from trimtab.analysis.quality.neurons import Neuron
from trimtab.analysis.quality.readers import ReadBy
from trimtab.analysis.quality.redundancy import Redundancy
from trimtab.analysis.quality.shortcuts import Shortcuts
from trimtab.analysis.quality.spectrum import Spectrum
from trimtab.records import finite
from trimtab.sites import Site


@dataclass(frozen=True)
class Norms:
    """Length of the vector before normalising, the site's typical norm, and their ratio; None where unknown."""

    raw: float | None
    typical: float | None
    ratio: float | None


@dataclass(frozen=True)
class SiteQuality:
    """One concept at one site. A part that is None stands in `missing` with the reason."""

    concept: str
    site: Site
    norms: Norms
    spectrum: Spectrum | None = None
    spectrum_centred: Spectrum | None = None
    held_out: HeldOut | None = None
    split_half: SplitHalf | None = None
    redundancy: Redundancy | None = None
    neuron: Neuron | None = None
    read_by: ReadBy | None = None
    heads: Heads | None = None
    background: Background | None = None
    influence: Influence | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def auc(self) -> float | None:
        """Held-out AUC, where there is one."""
        return None if self.held_out is None else self.held_out.auc.value


@dataclass(frozen=True)
class Verdict:
    """What to do with a concept, in words, judged at `site`; `reasons` carry the verdict, `advice` stands beside it."""

    concept: str
    words: str
    site: Site | None
    reasons: tuple[str, ...]
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class QualityReport:
    """Everything, in the order of concepts and then of sites."""

    model: str | None
    method: str | None
    vectors_hash: str
    concepts: tuple[str, ...]
    rows: tuple[SiteQuality, ...]
    verdicts: tuple[Verdict, ...]
    shortcuts: Mapping[str, Shortcuts]
    notes: tuple[str, ...]
    seed: int
    #: site key -> cosines [K, K] between the concepts.
    cosines: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    n_layers: int | None = None

    def of(self, concept: str) -> list[SiteQuality]:
        """One concept's rows, in forward order."""
        return [r for r in self.rows if r.concept == concept]

    def at(self, concept: str, site: Site) -> SiteQuality:
        """One row."""
        return next(r for r in self.rows if r.concept == concept and r.site == site)

    def judged(self, concept: str) -> SiteQuality:
        """The row on which the verdict rests; the last site where none was judged."""
        verdict = next(v for v in self.verdicts if v.concept == concept)
        return self.of(concept)[-1] if verdict.site is None else self.at(concept, verdict.site)

    def record(self) -> dict[str, Any]:
        """Plain JSON: finite numbers or null, sites by their key."""
        plain = finite(self)
        for part, values in ((plain["rows"], self.rows), (plain["verdicts"], self.verdicts)):
            for entry, value in zip(part, values):
                entry["site"] = None if value.site is None else value.site.key
        return plain
