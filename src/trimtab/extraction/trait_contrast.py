"""Trait vector: v = mean(P kept) - mean(N kept), P and N answers marked 0 to 100 for the trait; `select` says which.

The names are those of the assistant-axis code (lu-christina/persona-subspace):

- `pos_neg`: all; `pos_neg_50`: *pairs* whose marks differ by more than 50 (not texts marked over 50).
- `pos_default`, `pos_default_50`: the same with N the answers under the default prompt: give those as negatives.
- `pos_70`: positives marked 70 or more; `pos_40_70`: 40 to below 70. There these two are plain means; a direction
  needs an origin, so here all negatives are taken off.

A text without a mark (a refusal, say) is left out wherever marks are asked for. Where nothing is left the fit is
refused; the original returns zeros. Raw norm: the length of v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab.data.selection import Selection
from trimtab.errors import InputError, UnknownName
from trimtab.extraction.scored import Scored

SELECTIONS = {
    "pos_neg": Selection(),
    "pos_neg_50": Selection(gap=50),
    "pos_default": Selection(),
    "pos_default_50": Selection(gap=50),
    "pos_70": Selection(least=70),
    "pos_40_70": Selection(least=40, below=70),
}


@dataclass(frozen=True)
class TraitContrast(Scored):
    """A narrow `select` is cleaner and keeps fewer texts; fewer than `min_count` positives are refused."""

    name: ClassVar[str] = "trait_contrast"
    paired: ClassVar[bool] = True

    select: Literal["pos_neg", "pos_neg_50", "pos_default", "pos_default_50", "pos_70", "pos_40_70"] = (
        "pos_neg_50"
    )
    min_count: int = 1

    def __post_init__(self) -> None:
        if self.select not in SELECTIONS:
            raise UnknownName.of("select of trait_contrast", self.select, SELECTIONS)
        if self.min_count < 1:
            raise InputError(f"a mean needs min_count >= 1 answers, got {self.min_count}")

    @property
    def rule(self) -> Selection:
        """The rule of that name."""
        return SELECTIONS[self.select]

    @property
    def fewest(self) -> int:
        """`min_count`."""
        return self.min_count

    def check_pairs(self, paired: bool, name: str) -> None:
        """Only gaps need pairs."""
        if self.rule.gap is not None and not paired:
            raise InputError(
                f"trait_contrast needs pairs for {self.select}, and the data of {name!r} are not paired: "
                "use --method mean_diff, --set select=pos_70, or write pairs as JSON lines"
            )
