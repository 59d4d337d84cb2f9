"""The extra fields of a request: `steering` (a plan), `readout`, `capture` and `rules`; their form, and what is wrong
in words.

They come as objects, which is what `extra_body` of OpenAI's client sends, or as JSON strings among `vllm_xargs`, which
holds scalars only. Both have the same schema.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from trimtab.errors import InputError, TrimtabError
from trimtab.plans import Placement, SteeringPlan
from trimtab.prompts import check_positions
from trimtab.rules import Rule
from trimtab.server.settings import Settings

FIELDS = ("steering", "readout", "capture", "rules")
#: Rules of one request, and tokens that a rule may look back over.
MAX_RULES, MAX_TOKENS = 64, 100_000
Layers = list[int | str] | int | str
#: What code raises that meets data of another shape than it expects; from the wire that is the sender's mistake.
MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ReadoutField(_Strict):
    """What to read: of which file (the server's default without one), at which layers, which concepts.

    `align` "emitting" reads a token at the state that emitted it, "own" at the token's own state, one chunk later;
    `prompt` also returns the prompt's own states; `top_k` keeps the highest concepts of every token and layer.
    """

    vectors: str | None = None
    layers: Layers | None = None
    concepts: list[str] | None = Field(None, min_length=1)
    top_k: int | None = Field(None, ge=1)
    z: bool = False
    at: Literal["before", "after"] = "after"
    align: Literal["emitting", "own"] = "emitting"
    prompt: bool = False
    encoding: Literal["json", "float16"] = "json"


class CaptureField(_Strict):
    """Which states to keep until they are fetched: `layers` of the residual stream, for the tokens at `positions`."""

    layers: Layers
    positions: Any = "all"
    at: Literal["before", "after"] = "after"

    @field_validator("positions")
    @classmethod
    def _positions(cls, value: Any) -> Any:
        return check_positions(value)


@dataclass(frozen=True)
class Fields:
    """What a request asks for beyond OpenAI's API. `steering` is a plan, None for the server's default plan."""

    steering: SteeringPlan | None = None
    readout: ReadoutField | None = None
    capture: CaptureField | None = None
    rules: tuple[Rule, ...] = ()


def take(extra: MutableMapping[str, Any] | None, xargs: MutableMapping[str, Any] | None) -> dict[str, Any]:
    """Take the fields out of a request's extra fields and of its `vllm_xargs`; {} for a request without any."""
    found: dict[str, Any] = {}
    for field in FIELDS:
        if extra and field in extra:
            found[field] = extra.pop(field)
        if xargs and field in xargs:
            if found.get(field) is not None:
                raise InputError(f"{field} is given twice, as a field and in vllm_xargs; give it once")
            found[field] = _parsed(field, xargs.pop(field))
    return {k: v for k, v in found.items() if v is not None}


def _parsed(field: str, text: Any) -> Any:
    if not isinstance(text, str):
        raise InputError(f"{field} in vllm_xargs is a JSON string, got {type(text).__name__}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{field} in vllm_xargs is not JSON: {error}") from error


def parse(found: Mapping[str, Any], settings: Settings) -> Fields:
    """Check the fields that `take` found."""
    return Fields(
        plan_of(found["steering"], settings) if "steering" in found else None,
        _field("readout", ReadoutField, {} if found["readout"] is True else found["readout"])
        if found.get("readout", False) is not False
        else None,
        _field("capture", CaptureField, found["capture"]) if "capture" in found else None,
        rules_of(found["rules"], settings) if "rules" in found else (),
    )


def rules_of(data: Any, settings: Settings) -> tuple[Rule, ...]:
    """Rules from the wire: a list of what `Rule.from_json` reads, their plans within the operator's limits."""
    if not isinstance(data, list):
        raise InputError(f"rules is a list, got {type(data).__name__}")
    if len(data) > MAX_RULES:
        raise InputError(f"rules has {len(data)} rules, and this server takes {MAX_RULES}")
    if (size := _size(data)) > settings.max_plan_bytes:
        raise InputError(f"rules has {size} bytes, and this server takes {settings.max_plan_bytes}")
    found: list[Rule] = []
    for i, given in enumerate(data):
        try:
            rule = Rule.from_json(_bounded(given, settings))
            if max(rule.when.mean, rule.when.tokens) > MAX_TOKENS:
                raise InputError(f"'mean' and 'tokens' go up to {MAX_TOKENS} here")
            if rule.name in {r.name for r in found}:
                raise InputError(f"two rules are called {rule.name!r}")
            found.append(rule)
        except TrimtabError as error:
            raise InputError(f"rules[{i}]: {error}") from error
        except MALFORMED as error:
            raise InputError(f"rules[{i}] is malformed: {type(error).__name__}: {error}") from error
    return tuple(found)


def _size(data: Any) -> int:
    try:
        return len(json.dumps(data))
    except MALFORMED as error:
        raise InputError(f"rules is malformed: {type(error).__name__}: {error}") from error


def _bounded(rule: Any, settings: Settings) -> Any:
    """A rule whose plans have been read as `steering` is."""
    if not isinstance(rule, Mapping) or "then" not in rule:
        return rule

    def action(given: Any) -> Any:
        if isinstance(given, Mapping) and set(given) == {"steer"} and not isinstance(given["steer"], str):
            return {"steer": plan_of(given["steer"], settings).to_json()}
        return given

    then = rule["then"]
    return {**rule, "then": list(map(action, then)) if isinstance(then, list) else action(then)}


def _field(name: str, form: type[Any], data: Any) -> Any:
    if not isinstance(data, Mapping):
        raise InputError(
            f"{name} is an object with {', '.join(form.model_fields)}; got {type(data).__name__}"
        )
    try:
        return form.model_validate(dict(data))
    except ValidationError as error:
        faults = [f"{'.'.join([name, *map(str, e['loc'])])}: {e['msg']}" for e in error.errors()]
        known = f" ({name} takes {', '.join(form.model_fields)})" if "extra" in str(error) else ""
        raise InputError("; ".join(faults[:5]) + known) from error


def plan_of(data: Any, settings: Settings) -> SteeringPlan:
    """A plan from the wire: the form of `SteeringPlan.to_json`, within the operator's limits."""
    if isinstance(data, str):
        data = _parsed("steering", data)
    if not isinstance(data, Mapping):
        raise InputError(f'steering is an object with "placements", got {type(data).__name__}')
    try:
        size = len(json.dumps(data))
        if size > settings.max_plan_bytes:
            raise InputError(f"steering has {size} bytes, and this server takes {settings.max_plan_bytes}")
        placements = data.get("placements")
        if isinstance(placements, list) and len(placements) > settings.max_placements:
            raise InputError(
                f"steering has {len(placements)} placements, and this server takes {settings.max_placements}"
            )
        if not isinstance(placements, list):
            return SteeringPlan.from_json(data)
        rest = {k: v for k, v in data.items() if k != "placements"}
        parts = [_placement(i, p, rest, settings) for i, p in enumerate(placements)]
        return SteeringPlan.from_json({**rest, "placements": []}) | SteeringPlan(tuple(parts))
    except TrimtabError as error:
        text = str(error)
        raise InputError(text if text.startswith("steering") else f"steering: {text}") from error
    except MALFORMED as error:
        raise InputError(f"steering is malformed: {type(error).__name__}: {error}") from error


def _placement(index: int, data: Any, rest: Mapping[str, Any], settings: Settings) -> Placement:
    """One placement; what is wrong with it says which one it is."""
    try:
        _layers_are_layers(data)
        (found,) = SteeringPlan.from_json({**rest, "placements": [_widened(data, settings)]}).placements
        return found
    except TrimtabError as error:
        raise InputError(f"steering.placements[{index}]: {error}") from error


def _layers_are_layers(placement: Any) -> None:
    if not isinstance(placement, Mapping) or placement.get("layers") is None:
        return
    given = placement["layers"]
    for part in given if isinstance(given, list) else [given]:
        if isinstance(part, bool) or not isinstance(part, (int, str)):
            raise InputError(f"layers are numbers or words such as 50%, 12-16 and all; got {given!r}")


def _widened(placement: Any, settings: Settings) -> Any:
    """A placement with its inline arrays as float32, where the operator allows any."""
    if not isinstance(placement, Mapping):
        return placement
    out = dict(placement)
    if placement.get("op") == "deltas":
        _allow("a table of deltas", settings)
        out = _float32(out)
    if isinstance(out.get("vector"), Mapping):
        _allow("an inline vector", settings)
        out["vector"] = _float32(out["vector"])
    gate = out.get("gate")
    if isinstance(gate, Mapping) and isinstance(gate.get("vector"), Mapping):
        _allow("an inline vector", settings)
        out["gate"] = {**gate, "vector": _float32(gate["vector"])}
    return out


def _allow(what: str, settings: Settings) -> None:
    if not settings.inline:
        raise InputError(
            f"{what} is not allowed on this server: name a vector that is loaded (GET /v1/vectors), or let the "
            "operator set TRIMTAB_ALLOW_INLINE=1"
        )


def _float32(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same with `data` as base64 float32; `"dtype": "float16"` halves what travels."""
    out = dict(data)
    dtype = out.pop("dtype", "float32")
    if dtype not in ("float16", "float32"):
        raise InputError(f"inline numbers are float16 or float32, got {dtype!r}")
    if dtype == "float16":
        try:
            numbers = np.frombuffer(base64.b64decode(out.get("data") or "", validate=True), dtype="<f2")
        except (ValueError, TypeError) as error:
            raise InputError(f"inline data is not base64 float16: {error}") from error
        out["data"] = base64.b64encode(numbers.astype("<f4").tobytes()).decode()
    return out
