"""Where reading separates best: the layer at which a file is read unless another is asked for.

The layer to steer at is another question (`ConceptVectors.choose_layers`): pushing needs blocks that still follow,
reading needs states in which the concept stands out. Here it stands out by

    d' = (mean of the positives - mean of the negatives) . unit / std of neutral reply tokens along the unit

which is how many z a text of the concept reads above its contrast. A mean difference of few texts is long by
accident: its squared length exceeds the true one by the sum of the variances of both means, on average. The shift is
shrunk by that share, which is what two halves of the data would show of each other; pairs of which only the two
means were kept cannot tell that noise, and are not shrunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.directions import Direction
from trimtab.evidence import Evidence
from trimtab.extraction.method import mean_difference
from trimtab.sites import Site


def separation(direction: Direction, evidence: Evidence) -> float:
    """d' of one concept at one site; NaN where std is unknown or 0."""
    inside = direction.unit != 0  # one head's direction is judged by that head's states
    shift = mean_difference(evidence)[inside]
    length = float(shift @ shift)
    if not direction.std or not length:
        return float("nan")
    kept = max(0.0, 1.0 - _noise(evidence, inside) / length)
    return float(shift @ direction.unit[inside].astype(np.float64)) * kept / direction.std


def _noise(evidence: Evidence, inside: np.ndarray) -> float:
    """Expected squared length that chance adds to the mean difference; 0 where it cannot be told."""
    if not evidence.paired:
        return sum(float(v[inside].sum()) / evidence.count[g] for g, v in evidence.var.items())
    n = evidence.pairs
    if evidence.factor is None or n < 2:
        return 0.0
    shift = mean_difference(evidence)[inside]
    return (float(np.sum(evidence.factor[:, inside] ** 2)) - n * float(shift @ shift)) / (n - 1) / n


def separations(
    directions: Sequence[Direction], evidence: Mapping[str, Mapping[Site, Evidence]]
) -> dict[Site, float]:
    """Mean d' over the concepts at each site; sites where any of them is unknown are left out."""
    found: dict[Site, list[float]] = {}
    for d in directions:
        found.setdefault(d.site, []).append(separation(d, evidence[d.name][d.site]))
    means = {s: float(np.mean(values)) for s, values in found.items()}
    return {s: m for s, m in means.items() if np.isfinite(m)}


def reading_calibration(separations: Mapping[Site, float]) -> dict[str, Any]:
    """What a file stores of it: `read_layer`, `read_stream` where it is not the residual, and the reason in words.

    A file that has the residual stream is read there. Empty where nothing separates.
    """
    residual = {s: v for s, v in separations.items() if s.stream == "resid_post"}
    among = residual or separations
    if not among or max(among.values()) <= 0:
        return {}
    best = max(among, key=lambda s: (among[s], -s.layer))
    found: dict[str, Any] = {"read_layer": best.layer}
    if best.stream != "resid_post":
        found["read_stream"] = best.stream
    reason = f"the sides differ most there, by {among[best]:.2f} std of neutral reply tokens"
    if len(among) > 1:
        second = max((s for s in among if s != best), key=lambda s: among[s])
        reason += f"; next is {second} with {among[second]:.2f}"
    return {**found, "read_reason": reason}
