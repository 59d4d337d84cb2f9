"""What a report is made from, and how its parts are collected: each is there, or its reason is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from trimtab.analysis.quality.spectrum import PERMUTATIONS
from trimtab.data.contrast import Contrast
from trimtab.data.exclusion import Kept
from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine
from trimtab.errors import InputError, MissingDependency, Unsupported
from trimtab.evidence import Evidence
from trimtab.extraction.method import Method
from trimtab.sites import Site

#: What `recipes.extract_full` must keep for a report: rows to split, and the heads' outputs.
NEEDS, BESIDE = frozenset({"rows"}), ("head_out",)
NO_DATA = "needs the texts: give --model and --data"
NO_MODEL = "needs the model's weights: give --model"
FOUND = (InputError, Unsupported, MissingDependency)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Study:
    """What a report is made from. Without `refit` the finished vectors are judged on the texts, which must then be
    others than they were made from; `method` None means that nobody knows how they were made."""

    vectors: ConceptVectors
    engine: Engine | None = None
    contrasts: Mapping[str, Contrast] | None = None
    evidence: Mapping[str, Mapping[Site, Evidence]] | None = None
    method: Method | None = None
    refit: bool = True
    kept: Kept | None = None
    seed: int = 0
    permutations: int = PERMUTATIONS

    @property
    def refits(self) -> Method | None:
        """The method to fit again for held-out figures; None where the finished vector is read instead."""
        return self.method if self.refit else None


class Parts:
    """Collects the parts of one row, and the reasons of those that could not be had."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}

    def get(self, part: str, build: Callable[[], T]) -> T | None:
        """What `build` gives, or None and its reason."""
        try:
            return build()
        except FOUND as error:
            self.missing[part] = str(error)
            return None
