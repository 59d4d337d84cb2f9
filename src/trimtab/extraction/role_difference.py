"""Role vector: v = mean(P | mark >= 3) - mean(N), P answers in a role, N answers under the default prompt.

`pos_3 - default` of the assistant axis (arXiv 2601.10387): a judge marks each answer 0 to 3 for how fully the role
is played, the fully played ones count, and fewer than 50 of them are refused. Read with mean_assistant. The
assistant axis itself is the mean of the defaults less the mean of the roles: it points away from every role, as
-v does. Raw norm: the length of v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trimtab.data.selection import Selection
from trimtab.errors import InputError
from trimtab.extraction.scored import Scored


@dataclass(frozen=True)
class RoleDifference(Scored):
    """A lower `score` or `min_count` admits half-played roles, or a mean of few answers."""

    name: ClassVar[str] = "role_difference"

    score: float = 3.0
    min_count: int = 50

    def __post_init__(self) -> None:
        if self.min_count < 1:
            raise InputError(f"a mean needs min_count >= 1 answers, got {self.min_count}")

    @property
    def rule(self) -> Selection:
        """Positives at the top mark; defaults have none and all count."""
        return Selection(least=self.score)

    @property
    def fewest(self) -> int:
        """`min_count`."""
        return self.min_count
