"""How likely a concept's continuations became: nothing is generated.

score = mean over the concept's continuations of log-probability per token − the mean of the same over other labels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.scorers.scorer import Row, WithoutSettings


class Logprob(WithoutSettings):
    """Mean log-probability per token of the concept's continuations, less that of all other labels', in nats."""

    name = "logprob"
    needs = "continuations"

    def values(self, rows: Sequence[Row], concept: str) -> np.ndarray:
        """Difference of the two means; every row needs the concept's label and another one."""
        return np.array([self._value(r["continuations"], concept) for r in rows])

    def _value(self, found: Mapping[str, Sequence[Sequence[float]]], concept: str) -> float:
        if concept not in found or len(found) < 2:
            raise InputError(
                f"the scorer 'logprob' compares continuations labelled {concept!r} with others; an item has "
                f"{', '.join(found) or 'none'}"
            )
        mean = {label: np.mean([total / n for total, n in texts]) for label, texts in found.items()}
        return float(mean[concept] - np.mean([v for label, v in mean.items() if label != concept]))
