"""Persona vector: v = mean(P | mark > 50) - mean(N | mark < 50), means over answers read with mean_assistant.

`response_avg_diff` of persona vectors (arXiv 2507.21509): P are answers under a system prompt that asks for the
trait, N under one that asks for its opposite, and of both only those count that a judge finds to do as asked.
That paper also drops incoherent answers; leave them unmarked here. Its files put the embeddings at index 0, one
before our layer 0. Raw norm: the length of v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trimtab.data.selection import Selection
from trimtab.errors import InputError
from trimtab.extraction.scored import Scored


@dataclass(frozen=True)
class PersonaResponseAvg(Scored):
    """`threshold` parts the answers that show the trait from those that do not, on the judge's scale."""

    name: ClassVar[str] = "persona_response_avg"

    threshold: float = 50.0
    min_count: int = 1

    def __post_init__(self) -> None:
        if self.min_count < 1:
            raise InputError(f"a mean needs min_count >= 1 answers, got {self.min_count}")

    @property
    def rule(self) -> Selection:
        """Answers that did as asked, on either side."""
        return Selection(above=self.threshold, negative_below=self.threshold)

    @property
    def fewest(self) -> int:
        """`min_count`."""
        return self.min_count
