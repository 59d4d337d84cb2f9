"""Steering plans: what people write. Names, roles, percent layers and doses; `resolve` turns them into exact
numbers.

A plan is an ordered list of placements. It validates once, at construction; its JSON form is what YAML files,
the wire and the explorer carry.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors, Direction, content_hash
from trimtab.errors import InputError, Mismatch, UnknownName
from trimtab.interventions import OPERATORS, Ablate, Add, Cap, Deltas, Gate, Operator, Pin, Strength, finite
from trimtab.prompts import Positions, Prompt, check_positions, resolve_positions
from trimtab.resolved import ResolvedGate, ResolvedPlacement, ResolvedPlan
from trimtab.safe_range import safe_range
from trimtab.sites import STREAMS, LayerSpec, ModelInfo, Site, resolve_layer, resolve_layers

SCHEMA = 1
Library = Mapping[str, ConceptVectors | Direction]
VectorRef = str | Direction | ConceptVectors | None


@dataclass(frozen=True, eq=False)
class Placement:
    """One operator along one vector, at some layers and positions.

    `vector`: a name in the library ("happy", or "file/concept"), a `Direction`, or one-concept
    `ConceptVectors`; None only for `Deltas`. `layers` None takes the file's recommended layer, else the one
    nearest 60 % of depth. Totals (dose, scale) are shared by the layers unless `per_layer`. `factor` scales
    the finished operator (`scaled`). `relative` multiplies an `Add` by each row's own norm; `renormalise`
    keeps each row's norm.
    """

    op: Operator
    vector: VectorRef = None
    layers: LayerSpec | None = None
    stream: str = "resid_post"
    positions: Positions = "all"
    per_layer: bool = False
    relative: bool = False
    renormalise: bool = False
    gate: Gate | None = None
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.op, tuple(OPERATORS.values())):
            raise InputError(f"a placement's op is one of {', '.join(OPERATORS)}, got {self.op!r}")
        if self.stream not in STREAMS:
            raise UnknownName.of("stream", self.stream, STREAMS)
        object.__setattr__(self, "positions", check_positions(self.positions))
        if isinstance(self.op, Deltas):
            if self.vector is not None or self.layers is None or self.relative:
                raise InputError("deltas carry their own table: give layers, and no vector and no relative")
        elif self.vector is None:
            raise InputError(f"{self.op.op} needs a vector: a name, a Direction or ConceptVectors")
        if self.relative and not (isinstance(self.op, Add) and self.op.amount is not None):
            raise InputError(
                "relative belongs to Add(amount=…): the amount is then a multiple of each row's own norm"
            )
        object.__setattr__(self, "factor", finite("factor", self.factor))
        # A dry run of the arithmetic refuses NaN factors and factors outside [0, 1] at construction.
        op = Add(amount=1.0) if isinstance(self.op, (Add, Deltas)) else self.op
        op.row(Strength(mean=0.0, std=1.0)).scaled(self.factor)

    def scaled(self, factor: float) -> Placement:
        """This placement at `factor` of its strength."""
        return replace(self, factor=self.factor * factor)


@dataclass(frozen=True, eq=False)
class SteeringPlan:
    """Ordered placements. `plan_a | plan_b` acts as a, then b; `plan.scaled(0.5)` halves it."""

    placements: tuple[Placement, ...] = ()

    def __post_init__(self) -> None:
        given = self.placements
        object.__setattr__(self, "placements", (given,) if isinstance(given, Placement) else tuple(given))
        for p in self.placements:
            if not isinstance(p, Placement):
                raise InputError(f"a plan holds placements, got {type(p).__name__}")

    @classmethod
    def add(cls, vector: VectorRef, dose: float | None = None, **kwargs: Any) -> SteeringPlan:
        """The common case: `SteeringPlan.add("happy", dose=0.5, layers="50%")` (or scale=…, or amount=…)."""
        units = {k: kwargs.pop(k) for k in ("scale", "amount") if k in kwargs}
        return cls((Placement(Add(dose=dose, **units), vector, **kwargs),))

    def __or__(self, other: SteeringPlan) -> SteeringPlan:
        return SteeringPlan(self.placements + other.placements)

    def scaled(self, factor: float) -> SteeringPlan:
        """Every placement at `factor` of its strength."""
        return SteeringPlan(tuple(p.scaled(factor) for p in self.placements))

    def resolve(self, prompt: Prompt, library: Library, model: ModelInfo) -> ResolvedPlan:
        """Pure: names become content, percent becomes layers, roles become token ranges, doses become
        displacements.
        """
        vectors: dict[str, np.ndarray] = {}
        resolved = [
            r for p in self.placements for r in _resolve_placement(p, prompt, library, model, vectors)
        ]
        plan = ResolvedPlan(tuple(resolved), vectors)
        plan.check_model(model)
        return plan

    def to_json(self) -> dict[str, Any]:
        """JSON-able form; inline directions and tables travel as base64 float32."""
        return {"schema": SCHEMA, "placements": [_placement_to_json(p) for p in self.placements]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> SteeringPlan:
        """Read `to_json` (or its text) back; an unknown key is an error that names the nearest valid one."""
        if isinstance(data, str):
            try:
                data = json.loads(data)
            except ValueError as error:
                raise InputError(f"the plan is not JSON: {error}") from error
        if not isinstance(data, Mapping):
            raise InputError(f"a plan is an object with placements, got {type(data).__name__}")
        _only(data, {"schema", "placements"}, "plan key")
        if data.get("schema", SCHEMA) != SCHEMA:
            raise InputError(
                f"plan schema {data['schema']!r} is not {SCHEMA}: it was written by another version"
            )
        placements = data.get("placements")
        if not isinstance(placements, Sequence) or isinstance(placements, str):
            raise InputError('a plan needs "placements": a list of objects')
        return cls(tuple(_placement_from_json(p) for p in placements))


# --- resolution


def find_vector(ref: VectorRef, library: Library) -> ConceptVectors | Direction:
    """The direction, or the one-concept file, that a reference names."""
    if isinstance(ref, (Direction, ConceptVectors)):
        found: ConceptVectors | Direction = ref
    elif isinstance(ref, str) and ref in library:
        found = library[ref]
    else:
        found = _find_concept(str(ref), library)
    if isinstance(found, ConceptVectors) and len(found.concepts) > 1:
        if isinstance(ref, str) and ref in found.concepts:
            return found.only([ref])
        raise InputError(
            f"{ref if isinstance(ref, str) else 'the file'} holds {len(found.concepts)} concepts; "
            f"name one: {', '.join(found.concepts)}"
        )
    return found


def _find_concept(ref: str, library: Library) -> ConceptVectors | Direction:
    file, _, concept = ref.rpartition("/")
    if file in library:
        owner = library[file]
        if isinstance(owner, ConceptVectors):
            return owner.only([concept])
    owners = {n: v for n, v in library.items() if isinstance(v, ConceptVectors) and ref in v.concepts}
    if len(owners) > 1:
        raise InputError(
            f"concept {ref!r} is in {len(owners)} files; write one of {[f'{n}/{ref}' for n in owners]}"
        )
    for owner in owners.values():
        return owner.only([ref])
    known = [*library, *(c for v in library.values() if isinstance(v, ConceptVectors) for c in v.concepts)]
    raise UnknownName.of("vector", ref, dict.fromkeys(known), "Load its file into the library first.")


def _directions(p: Placement, found: ConceptVectors | Direction, model: ModelInfo) -> list[Direction]:
    """The placement's directions, one per layer."""
    if isinstance(found, Direction):
        if found.site.stream != p.stream:
            raise Mismatch(f"direction {found.name!r} was made at {found.site}, not for stream {p.stream!r}")
        if p.layers is None:
            return [found]
        return [_moved(found, Site(n, p.stream)) for n in resolve_layers(p.layers, model.n_layers)]
    found.check_model(model)
    layers = found.choose_layers(p.layers, model.n_layers, p.stream)
    return [found.direction(None, Site(layer, p.stream)) for layer in layers]


def _moved(d: Direction, site: Site) -> Direction:
    """A bare direction at another site: typical norm, mean and std were measured elsewhere and stay there."""
    if site == d.site:
        return d
    return replace(d, site=site, typical_norm=None, mean=None, std=None)


def _unit(d: Direction, share: int) -> Strength:
    return Strength(raw_norm=d.norm, typical_norm=d.typical_norm, mean=d.mean, std=d.std, share=share)


def _resolve_placement(
    p: Placement, prompt: Prompt, library: Library, model: ModelInfo, vectors: dict[str, np.ndarray]
) -> list[ResolvedPlacement]:
    ranges = resolve_positions(p.positions, prompt)
    flags: dict[str, Any] = {"ranges": ranges, "relative": p.relative, "renormalise": p.renormalise}
    if isinstance(p.op, Deltas):
        name = content_hash(p.op.table)
        vectors[name] = p.op.table
        assert p.layers is not None
        row = Add(amount=1.0).row(Strength()).scaled(p.factor)
        sites = [Site(layer, p.stream) for layer in resolve_layers(p.layers, model.n_layers)]
        return [
            ResolvedPlacement(
                s,
                name,
                row,
                gate=_resolve_gate(p, s, library, model, vectors),
                table_start=p.op.start,
                source={"op": "deltas", "start": p.op.start, "rows": len(p.op.table)},
                **flags,
            )
            for s in sites
        ]
    found = find_vector(p.vector, library)
    directions = _directions(p, found, model)
    share = 1 if p.per_layer else len(directions)
    out = []
    for d in directions:
        vectors[d.hash] = d.unit
        unit = _unit(d, share)
        row = p.op.row(unit).scaled(p.factor)
        source = _source(p, d, share, row.shift) | _safe(p, d, found)
        gate = _resolve_gate(p, d.site, library, model, vectors)
        out.append(ResolvedPlacement(d.site, d.hash, row, gate=gate, source=source, **flags))
    return out


def _source(p: Placement, d: Direction, share: int, shift: float) -> dict[str, Any]:
    """The numbers a displacement came from, for receipts; not part of the fingerprint."""
    given = {k: v for k, v in dataclasses.asdict(p.op).items() if v is not None}
    out = {"op": p.op.op, "concept": d.name, **given, "factor": p.factor, "layers": share, "raw_norm": d.norm}
    if isinstance(p.op, Add) and d.typical_norm:
        out |= {
            "typical_norm": d.typical_norm,
            "dose_here": shift / d.typical_norm,
            "scale_here": shift / d.norm,
        }
    return out


def _safe(p: Placement, d: Direction, found: ConceptVectors | Direction) -> dict[str, Any]:
    """The operator's calibrated range at the direction's site, for receipts and warnings; {} where there is none."""
    adds = isinstance(p.op, Add)
    if not isinstance(found, ConceptVectors) or p.relative or (p.renormalise and not adds):
        return {}
    operator = "add-renormalised" if p.renormalise else p.op.op
    bounds = safe_range(found.calibration, d.name, d.site.key, operator)
    if bounds is None:
        return {}
    return {"safe": list(bounds)} | ({} if adds else {"strength_here": _strengths(p, d)})


def _strengths(p: Placement, d: Direction) -> list[float]:
    """How strong an operator that does not add is, in the unit of its calibration: the share of the coordinate that an
    ablation takes; standard deviations from the stored mean to a pin, to a floor above it, to a ceiling below it."""
    op = p.op
    if isinstance(op, Ablate):
        return [max(0.0, p.factor * (1.0 - op.keep))]
    assert isinstance(op, Cap | Pin)
    mean, std = (0.0, 1.0) if op.z else (d.mean, d.std)
    if mean is None or not std:
        return []
    if isinstance(op, Pin):
        return [(op.value - mean) / std]
    floor = [] if op.low is None else [max(0.0, (op.low - mean) / std)]
    ceiling = [] if op.high is None else [min(0.0, (op.high - mean) / std)]
    return floor + ceiling


def _resolve_gate(
    p: Placement, site: Site, library: Library, model: ModelInfo, vectors: dict[str, np.ndarray]
) -> ResolvedGate | None:
    gate = p.gate
    if gate is None:
        return None
    layer = site.layer if gate.layer is None else resolve_layer(gate.layer, model.n_layers)
    where = Site(layer, gate.stream or site.stream)
    found = find_vector(gate.vector, library)
    d = found if isinstance(found, Direction) else found.direction(None, where)
    vectors[d.hash] = d.unit
    return ResolvedGate(d.hash, where, gate.threshold(_unit(d, 1)), above=gate.above is not None, at=gate.at)


# --- JSON

_FLAGS = ("layers", "stream", "positions", "per_layer", "relative", "renormalise", "factor")
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Placement)}


def _only(data: Mapping[str, Any], known: set[str], kind: str) -> None:
    for key in data:
        if key not in known:
            raise UnknownName.of(kind, key, known)


def _pack(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()


def _unpack(text: Any, shape: Sequence[int] | None, what: str) -> np.ndarray:
    try:
        flat = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
        return flat if shape is None else flat.reshape([int(n) for n in shape])
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} is not base64 float32: {error}") from error


def _vector_to_json(ref: VectorRef) -> Any:
    if isinstance(ref, str) or ref is None:
        return ref
    if isinstance(ref, ConceptVectors):
        raise InputError("a whole file cannot travel in a plan: put it in the library and use its name")
    known = {
        k: getattr(ref, k) for k in ("norm", "mean", "std", "typical_norm") if getattr(ref, k) is not None
    }
    return {"name": ref.name, "site": ref.site.key, "data": _pack(ref.unit), **known}


def _vector_from_json(data: Any) -> VectorRef:
    if isinstance(data, str) or data is None:
        return data
    if not isinstance(data, Mapping):
        raise InputError(f"a vector is a name or an object, got {data!r}")
    _only(data, {"name", "site", "data", "norm", "mean", "std", "typical_norm"}, "vector key")
    if "data" not in data or "site" not in data:
        raise InputError('an inline vector needs "site" and "data"')
    numbers: dict[str, Any] = {
        k: finite(k, data[k]) for k in ("norm", "mean", "std", "typical_norm") if k in data
    }
    unit = _unpack(data["data"], None, "the inline vector")
    return Direction(str(data.get("name", "inline")), Site.from_key(str(data["site"])), unit, **numbers)


def _gate_to_json(gate: Gate) -> dict[str, Any]:
    out = {
        f.name: getattr(gate, f.name) for f in dataclasses.fields(gate) if getattr(gate, f.name) != f.default
    }
    return out | {"vector": _vector_to_json(gate.vector)}


def _placement_to_json(p: Placement) -> dict[str, Any]:
    out: dict[str, Any] = {"op": p.op.op}
    if isinstance(p.op, Deltas):
        out |= {"start": p.op.start, "shape": list(p.op.table.shape), "data": _pack(p.op.table)}
    else:
        out |= {k: v for k, v in dataclasses.asdict(p.op).items() if v is not None}
        out["vector"] = _vector_to_json(p.vector)
    out |= {k: _plain(getattr(p, k)) for k in _FLAGS if getattr(p, k) != _DEFAULTS[k]}
    return out if p.gate is None else out | {"gate": _gate_to_json(p.gate)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _placement_from_json(data: Any) -> Placement:
    if not isinstance(data, Mapping) or "op" not in data:
        raise InputError(f'a placement is an object with "op", got {data!r}')
    kind = data["op"]
    if not isinstance(kind, str) or kind not in OPERATORS:
        raise UnknownName.of("op", kind, OPERATORS)
    cls = OPERATORS[kind]
    fields = (
        {"start", "shape", "data"}
        if cls is Deltas
        else {f.name for f in dataclasses.fields(cls)} | {"vector"}
    )
    _only(data, {"op", "gate", *fields, *_FLAGS}, f"key of {kind}")
    if cls is Deltas:
        op: Operator = Deltas(_unpack(data.get("data"), data.get("shape"), "deltas"), data.get("start", 0))
    else:
        op = cls(**{k: data[k] for k in fields - {"vector"} if k in data})
    gate = data.get("gate")
    if gate is not None:
        if not isinstance(gate, Mapping):
            raise InputError(f"a gate is an object with vector and above or below, got {gate!r}")
        _only(gate, {f.name for f in dataclasses.fields(Gate)}, "key of gate")
        gate = Gate(**{**gate, "vector": _vector_from_json(gate.get("vector"))})
    flags = {k: data[k] for k in _FLAGS if k in data}
    for name in ("per_layer", "relative", "renormalise"):
        if not isinstance(flags.get(name, False), bool):
            raise InputError(f"{name} is true or false, got {flags[name]!r}")
    return Placement(op, _vector_from_json(data.get("vector")), gate=gate, **flags)


EMPTY = ResolvedPlan()
