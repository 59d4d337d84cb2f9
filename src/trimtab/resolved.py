"""Resolved plans: what engines accept. Content hashes, absolute layers, absolute token ranges, absolute
numbers.

The fingerprint is the hash of everything that changes a hidden state, vector content included. It selects an
engine's bank slots and salts prefix caches, so that a plain request never reads keys and values that a
steered one wrote.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trimtab.directions import content_hash, frozen
from trimtab.errors import InputError
from trimtab.interventions import Coefficients
from trimtab.prompts import Range, in_ranges, merge_ranges
from trimtab.sites import ModelInfo, Site

SCHEMA = 1


@dataclass(frozen=True)
class ResolvedGate:
    """Act where the same token's coordinate along `vector` at `site` is above (or below) `threshold`."""

    vector: str
    site: Site
    threshold: float
    above: bool
    at: str = "before"


@dataclass(frozen=True)
class ResolvedPlacement:
    """One edit at one site. `vector` names a unit row [width], or a table [T, width] where `table_start` is
    set (then row t acts at absolute position table_start + t, times the coefficients' shift, which is the
    factor).
    """

    site: Site
    vector: str
    coefficients: Coefficients
    ranges: tuple[Range, ...]
    relative: bool = False
    renormalise: bool = False
    gate: ResolvedGate | None = None
    table_start: int | None = None
    source: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @property
    def identity(self) -> bool:
        """True where nothing can change."""
        return self.coefficients.identity

    def acts_on(self, position: int) -> bool:
        """Whether this placement addresses an absolute position (gates aside)."""
        return in_ranges(position, self.ranges)

    def essence(self) -> list[Any]:
        """What the fingerprint covers, as JSON-able values."""
        c, g = self.coefficients, self.gate
        numbers = [_number(x) for x in (c.gain, c.low, c.high, c.shift, c.strength)]
        gate = None if g is None else [g.vector, g.site.key, _number(g.threshold), g.above, g.at]
        ranges = [list(r) for r in self.ranges]
        return [
            self.site.key,
            self.vector,
            numbers,
            ranges,
            self.relative,
            self.renormalise,
            gate,
            self.table_start,
        ]


@dataclass(frozen=True, eq=False)
class ResolvedPlan:
    """Ordered placements and the arrays they name. Placements at one site act in order, each on the last
    one's result.
    """

    placements: tuple[ResolvedPlacement, ...] = ()
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "placements", tuple(self.placements))
        object.__setattr__(self, "vectors", {k: frozen(v) for k, v in self.vectors.items()})
        for p in self.placements:
            self._check(p)

    def _check(self, p: ResolvedPlacement) -> None:
        names = [p.vector] + ([p.gate.vector] if p.gate else [])
        for name in names:
            if name not in self.vectors:
                raise InputError(f"plan names vector {name} but does not carry it")
        if self.vectors[p.vector].ndim != (1 if p.table_start is None else 2):
            raise InputError(
                f"vector {p.vector} has shape {self.vectors[p.vector].shape}: it does not fit its placement"
            )
        if merge_ranges(p.ranges) != p.ranges:
            raise InputError(f"ranges {p.ranges} of a resolved placement must be sorted and disjoint")
        gate = p.gate
        if gate is not None:
            if gate.site > p.site:
                raise InputError(
                    f"a gate at {gate.site} is later than the edit at {p.site}: it is not known yet"
                )
            if gate.site == p.site and gate.at == "after":
                raise InputError(
                    f"a gate that reads after the edits of its site needs an earlier site than {p.site}"
                )
        if p.relative and not p.coefficients.adds:
            raise InputError("relative belongs to add: the other operators' numbers are absolute coordinates")

    def __bool__(self) -> bool:
        return bool(self.effective)

    @functools.cached_property
    def effective(self) -> tuple[ResolvedPlacement, ...]:
        """Placements that can change something, in order."""
        return tuple(p for p in self.placements if not p.identity)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites that are edited, in forward order."""
        return tuple(sorted({p.site for p in self.effective}))

    def at(self, site: Site) -> tuple[ResolvedPlacement, ...]:
        """Effective placements at one site, in order."""
        return tuple(p for p in self.effective if p.site == site)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash over every effective placement; plans that do the same thing share it. "plain" for none."""
        if not self.effective:
            return "plain"
        text = json.dumps([SCHEMA, [p.essence() for p in self.effective]], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def check_model(self, model: ModelInfo) -> None:
        """Refuse sites and widths that the model does not have."""
        for p in self.placements:
            model.check(p.site, self.vectors[p.vector].shape[-1], f"the vector placed at {p.site}")
            if p.gate is not None:
                model.check(
                    p.gate.site, self.vectors[p.gate.vector].shape[-1], f"the gate's vector at {p.gate.site}"
                )

    def tokens_steered(self, length: int) -> int:
        """How many of the first `length` positions some placement addresses (gates aside)."""
        return sum(any(p.acts_on(i) for p in self.effective) for i in range(length))

    def until(self, length: int) -> ResolvedPlan:
        """The part that can act on the first `length` positions: what a prefill of so many tokens depends on."""
        kept = tuple(p for p in self.effective if p.ranges and p.ranges[0][0] < length)
        return self if len(kept) == len(self.placements) else ResolvedPlan(kept, self.vectors)

    def beyond(self, position: int) -> ResolvedPlan:
        """The part that acts after an absolute position: the same as `{"after": position}` where it acts on all."""
        kept = []
        for p in self.placements:
            ranges = tuple((max(a, position + 1), b) for a, b in p.ranges if b is None or b > position + 1)
            if ranges:
                kept.append(replace(p, ranges=ranges))
        return ResolvedPlan(tuple(kept), self.vectors)

    def then(self, other: ResolvedPlan) -> ResolvedPlan:
        """Both plans; at one site the other one acts on this one's result."""
        return ResolvedPlan(self.placements + other.placements, {**self.vectors, **other.vectors})

    def first_position(self) -> int | None:
        """First absolute position that is addressed; None for a plain plan."""
        starts = [p.ranges[0][0] for p in self.effective if p.ranges]
        return min(starts, default=None)

    def to_json(self) -> dict[str, Any]:
        """JSON with vectors as base64 float32; `from_json` gives an equal plan with the same fingerprint."""
        return {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "placements": [_placement_json(p) for p in self.placements],
            "vectors": {
                k: {"shape": list(v.shape), "data": base64.b64encode(v.astype("<f4").tobytes()).decode()}
                for k, v in self.vectors.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], held: Mapping[str, np.ndarray] | None = None) -> ResolvedPlan:
        """Read `to_json` back; a changed vector or number no longer matches the fingerprint: refused.

        `held` are arrays by content hash, for a plan whose JSON carries none of its own.
        """
        if held is not None:
            return cls._from_held(data, held)
        try:
            vectors = {
                k: np.frombuffer(base64.b64decode(v["data"]), dtype="<f4").reshape(v["shape"])
                for k, v in data["vectors"].items()
            }
            plan = cls(tuple(_placement_from(p) for p in data["placements"]), vectors)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a resolved plan: {error!r}") from error
        for name, value in vectors.items():
            if content_hash(value) != name:
                raise InputError(f"vector {name} does not have the content its name promises")
        return plan._checked(data)

    @classmethod
    def _from_held(cls, data: Mapping[str, Any], held: Mapping[str, np.ndarray]) -> ResolvedPlan:
        try:
            placements = tuple(_placement_from(p) for p in data["placements"])
            names = {p.vector for p in placements} | {p.gate.vector for p in placements if p.gate}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a resolved plan: {error!r}") from error
        return cls(placements, {n: held[n] for n in names if n in held})._checked(data)

    def _checked(self, data: Mapping[str, Any]) -> ResolvedPlan:
        if data.get("fingerprint", self.fingerprint) != self.fingerprint:
            raise InputError(
                "the resolved plan does not match its fingerprint: it was changed after it was resolved"
            )
        return self


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def _placement_json(p: ResolvedPlacement) -> dict[str, Any]:
    c = p.coefficients
    out: dict[str, Any] = {
        "site": p.site.key,
        "vector": p.vector,
        "gain": c.gain,
        "low": None if math.isinf(c.low) else c.low,
        "high": None if math.isinf(c.high) else c.high,
        "shift": c.shift,
        "strength": c.strength,
        "ranges": [list(r) for r in p.ranges],
        "relative": p.relative,
        "renormalise": p.renormalise,
        "source": dict(p.source),
    }
    if p.table_start is not None:
        out["table_start"] = p.table_start
    if p.gate is not None:
        g = p.gate
        out["gate"] = {
            "vector": g.vector,
            "site": g.site.key,
            "threshold": g.threshold,
            "above": g.above,
            "at": g.at,
        }
    return out


def _placement_from(data: Mapping[str, Any]) -> ResolvedPlacement:
    low, high, gate = data.get("low"), data.get("high"), data.get("gate")
    return ResolvedPlacement(
        site=Site.from_key(data["site"]),
        vector=data["vector"],
        coefficients=Coefficients(
            data["gain"],
            -math.inf if low is None else low,
            math.inf if high is None else high,
            data["shift"],
            data["strength"],
        ),
        ranges=tuple((a, b) for a, b in data["ranges"]),
        relative=data["relative"],
        renormalise=data["renormalise"],
        gate=None if gate is None else ResolvedGate(**{**gate, "site": Site.from_key(gate["site"])}),
        table_start=data.get("table_start"),
        source=data.get("source", {}),
    )


def sites_of(plans: Iterable[ResolvedPlan]) -> set[Site]:
    """Sites that plans edit or whose states their gates read."""
    found: set[Site] = set()
    for plan in {id(p): p for p in plans}.values():
        found.update(plan.sites)
        found.update(p.gate.site for p in plan.effective if p.gate is not None)
    return found
