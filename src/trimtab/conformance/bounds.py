"""What counts as equal, by number format, and what counts as an effect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Log-probabilities below this are rounding more than anything else, and need only be as low.
BOTTOM = -10.0


@dataclass(frozen=True)
class Bounds:
    """The largest errors allowed: of a state as a share of the typical norm at its site, in nats of the
    log-probabilities of tokens that were chosen, and of the whole vocabulary's. `ceiling` is how far they may rise with
    the plain engine's own rounding; an effect that is not `clear` times the allowed error proves nothing."""

    state: float
    logprob: float
    table: float
    ceiling: float = 10.0
    clear: float = 20.0

    @property
    def coarse(self) -> bool:
        """Whether this is a format of 16 bits."""
        return self.clear < 10


#: By the engine's number format; rounding that a plain run already shows is allowed for on top (`Subject.measure`).
BOUNDS = {
    "float64": Bounds(1e-6, 1e-6, 1e-6, 1.0),
    "float32": Bounds(2e-5, 1e-4, 1e-4),
    "float16": Bounds(5e-3, 2e-2, 4e-2, 4.0, 3.0),
    "bfloat16": Bounds(3e-2, 2e-1, 3e-1, 4.0, 3.0),
}


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference of log-probabilities, in nats; inf where one of them is no number."""
    if np.isnan(got).any() or np.isnan(want).any():
        return float("inf")
    return float(np.abs(np.maximum(got, BOTTOM) - np.maximum(want, BOTTOM)).max(initial=0.0))


def gap(values: np.ndarray) -> float:
    """A threshold that no rounding crosses: the middle of the widest gap in the inner half of the values."""
    ordered = np.sort(values)
    first, last = len(ordered) // 4, len(ordered) - len(ordered) // 4
    at = first + int(np.argmax(np.diff(ordered)[first : last - 1]))
    return float((ordered[at] + ordered[at + 1]) / 2)
