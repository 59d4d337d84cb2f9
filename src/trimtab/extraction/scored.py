"""Base of the methods that let a judge's marks decide which texts count: v = mean(P kept) - mean(N kept).

The rule is `trimtab.data.selection.Selection`; each method is a rule with the name that its source gave it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from trimtab.data.selection import Selection, unscored
from trimtab.errors import InputError
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.extraction.method import NOTHING, Marks, Method


class Scored(Method):
    """Subclasses say the rule and the fewest positives; the marks are checked before any model loads."""

    needs: ClassVar[frozenset[str]] = frozenset({"mean", "rows"})
    signed: ClassVar[bool] = True

    @property
    @abstractmethod
    def rule(self) -> Selection:
        """Which texts count."""

    @property
    @abstractmethod
    def fewest(self) -> int:
        """With fewer positives than this left the fit is refused."""

    def check_scores(self, scores: Marks | None, paired: bool, name: str) -> None:
        """Refuse data without the marks that the rule asks for, and a rule that leaves too little."""
        judged = self.rule.judges
        if scores is None and any(judged):
            raise unscored(name, self.name)
        for asked, marks in zip(judged, scores or ()):
            if asked and not np.isfinite(np.array(marks, dtype=np.float64)).any():
                raise unscored(name, self.name)
        if scores is not None:
            self.rule.pick(scores, self.fewest, name, self.name)

    def _raw(self, evidence: Evidence, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        assert evidence.rows is not None
        blank = {g: np.full(n, np.nan) for g, n in evidence.count.items()}
        marks = blank if evidence.scores is None else evidence.scores
        masks = self.rule.pick((marks[POSITIVE], marks[NEGATIVE]), self.fewest, name, self.name)
        kept = {g: evidence.rows[g][mask] for g, mask in zip((POSITIVE, NEGATIVE), masks)}
        raw = kept[POSITIVE].mean(0) - kept[NEGATIVE].mean(0)
        if np.linalg.norm(raw) <= NOTHING * max(np.linalg.norm(rows.mean(0)) for rows in kept.values()):
            raise InputError(
                f"the texts of {name!r} that {self.name} keeps have the same mean on both sides at {evidence.site}: "
                "check that they differ, or choose a wider rule"
            )
        return raw, {"rule": str(self.rule), "kept": {g: len(rows) for g, rows in kept.items()}}
