"""The calibrated safe range of a vector: how far it may be pushed at a site before the text suffers.

`trimtab calibrate` measures it and stores it in the file's calibration, which the content hash never covers:

    calibration["safe"][concept][site key][operator] = {"low": −0.6, "high": 0.8, …}

in the operator's own strength: dose for `add`, the share that is taken for `ablate`, standard deviations from the
stored mean for `pin`, and for `cap` (how far up a floor and how far down a ceiling may lie). A plan whose pushes go
beyond says so where it is resolved, and runs: what is too far is the reader's to decide, but never unseen. Shares of
the range add up over layers for `add`, because displacements do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: The key in a file's calibration.
KEY = "safe"


class SafeRangeWarning(UserWarning):
    """A plan pushes beyond the range that was calibrated."""


def safe_range(
    calibration: Mapping[str, Any], concept: str, site_key: str, operator: str = "add"
) -> tuple[float, float] | None:
    """(low, high) of one operator at one site; None where it was not calibrated."""
    found = calibration.get(KEY, {})
    for key in (concept, site_key, operator):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    low, high = found.get("low"), found.get("high")
    if low is None or high is None:
        return None
    return float(low), float(high)


def with_safe_range(
    calibration: Mapping[str, Any],
    concept: str,
    site_key: str,
    operator: str,
    entry: Mapping[str, Any],
) -> dict[str, Any]:
    """A copy of a calibration with one entry added or replaced."""
    ranges = {c: {s: dict(ops) for s, ops in sites.items()} for c, sites in calibration.get(KEY, {}).items()}
    ranges.setdefault(concept, {}).setdefault(site_key, {})[operator] = dict(entry)
    return {**calibration, KEY: ranges}


def safe_ranges(calibration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every calibrated range as a row: concept, site, operator, and what `trimtab calibrate` stored there."""
    return [
        {"concept": concept, "site": site, "operator": operator, **entry}
        for concept, sites in calibration.get(KEY, {}).items()
        for site, operators in sites.items()
        for operator, entry in operators.items()
    ]


def without_ranges(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that warns of nothing, for a study that goes beyond the ranges on purpose and reports it itself."""
    return {k: v for k, v in calibration.items() if k != KEY}


def share(strength: float, bounds: tuple[float, float]) -> float:
    """Which share of its side of the range a strength uses; infinite where that side is closed."""
    bound = bounds[1] if strength > 0 else -bounds[0]
    if strength == 0:
        return 0.0
    return abs(strength) / bound if bound > 0 else math.inf


def total_range(bounds: Sequence[tuple[float, float]], doses: Sequence[float]) -> tuple[float, float]:
    """(low, high) of the total strength whose shares over all layers add up to one. `bounds` are those of each layer,
    `doses` what strength 1 puts there."""

    def limit(sign: float) -> float:
        used = sum(share(sign * d, b) for d, b in zip(doses, bounds, strict=True))
        return sign / used if used else sign * math.inf  # 1 ÷ ∞ is 0: a closed side

    return limit(-1.0), limit(1.0)


def beyond(sources: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each concept whose placements together use more than their safe range. `sources` are those of
    resolved placements: "concept" and, where calibrated, "safe" with the "dose_here" of an add, or with the
    "strength_here" of another operator, each of which counts by itself."""
    used: dict[str, float] = {}
    doses: dict[str, float] = {}
    said: dict[str, None] = {}
    for source in sources:
        name, bounds = str(source.get("concept")), source.get("safe")
        if bounds and source.get("dose_here") is not None:
            used[name] = used.get(name, 0.0) + share(float(source["dose_here"]), tuple(bounds))
            doses[name] = doses.get(name, 0.0) + float(source["dose_here"])
        for strength in source.get("strength_here", ()):
            part = share(strength, tuple(bounds)) if bounds else 0.0
            said |= dict.fromkeys(_beyond(str(source["op"]), strength, name, part))
    found = [sentence for name, part in used.items() for sentence in _beyond("dose", doses[name], name, part)]
    return found + list(said)


def _beyond(what: str, strength: float, name: str, part: float) -> list[str]:
    """The sentence of a strength that uses `part` of its range, where that is more than all of it."""
    if part <= 1 + 1e-6:
        return []
    times = f" ({part:.4g} times)" if math.isfinite(part) else " (this side has none)"
    lower = "lower the dose" if what == "dose" else "weaken it"
    return [
        f"{what} {strength:+.3g} of {name!r} is beyond its calibrated safe range{times}: expect damaged text; {lower}, "
        "or calibrate with another limit"
    ]
