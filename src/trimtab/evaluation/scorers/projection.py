"""How far a reply lies along the concept itself: the mean reading over its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.scorers.scorer import Row, WithoutSettings


class Projection(WithoutSettings):
    """Mean reading of the concept over the generated tokens. It shares the vector with the steering, so that it shows
    how far a push carries, not what it does to the text."""

    name = "projection"
    needs = "readings"

    def values(self, rows: Sequence[Row], concept: str) -> np.ndarray:
        """The stored means."""
        for row in rows:
            if concept not in row.get("readings", {}):
                raise InputError(f"a row has no reading of {concept!r}; the run was made without a readout")
        return np.array([r["readings"][concept] for r in rows])
