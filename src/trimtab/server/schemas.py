"""What the fields of a request look like, as JSON schemas for the OpenAPI document.

They describe; `wire` checks. Those with a name (`named`) become components of the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.plans import SCHEMA
from trimtab.prompts import POSITION_NAMES
from trimtab.rules import UNITS
from trimtab.server.wire import MAX_RULES, CaptureField, ReadoutField

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
#: Marks a schema that becomes a component of the document, and says its name.
COMPONENT = "x-trimtab-component"
INDEX: Schema = {"type": "integer", "minimum": 0}


def either(*schemas: Schema) -> Schema:
    """One of several."""
    return {"anyOf": list(schemas)}


def record(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these keys and no others."""
    properties = {**required, **(optional or {})}
    return {
        "type": "object", "properties": properties, "required": list(required), "additionalProperties": False,
    }  # fmt: skip


def named(title: str, schema: Schema) -> Schema:
    """A schema that the document names, wherever it stands."""
    return {COMPONENT: title, **schema, "title": title}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    return either(schema, {"type": "null"})


LAYERS = named("Layers", either(
    {"type": "integer"},
    {"type": "string", "examples": ["50%", "12-16", "all"]},
    {"type": "array", "items": either({"type": "integer"}, TEXT), "minItems": 1},
))  # fmt: skip
POSITIONS = named("Positions", either(
    {"enum": list(POSITION_NAMES)},
    record({"after": INDEX}),
    record({"role": TEXT}),
    record(
        {"ranges": {
            "type": "array", "minItems": 1,
            "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": nullable(INDEX)},
        }}
    ),
))  # fmt: skip
_NUMBERS = {
    "data": {"type": "string", "contentEncoding": "base64"},
    "dtype": {"enum": ["float32", "float16"]},
}
INLINE = named("InlineVector", record(
    {"site": {"type": "string", "examples": ["layer_12"]}, "data": _NUMBERS["data"]},
    {"dtype": _NUMBERS["dtype"], "name": TEXT, "norm": NUMBER, "mean": NUMBER, "std": NUMBER, "typical_norm": NUMBER},
))  # fmt: skip
VECTOR = named(
    "Vector", either({"type": "string", "description": "a concept, a file, or file/concept"}, INLINE)
)
GATE = named("Gate", record(
    {"vector": VECTOR},
    {
        "above": nullable(NUMBER), "below": nullable(NUMBER), "layer": nullable(either({"type": "integer"}, TEXT)),
        "stream": nullable(TEXT), "at": {"enum": ["before", "after"]}, "z": FLAG,
    },
))  # fmt: skip
_PLACED: dict[str, Schema] = {
    "layers": nullable(LAYERS), "positions": POSITIONS, "stream": TEXT, "per_layer": FLAG, "renormalise": FLAG,
    "factor": NUMBER, "gate": nullable(GATE),
}  # fmt: skip


def _placement(op: str, numbers: Mapping[str, Schema], required: Mapping[str, Schema]) -> Schema:
    return named(op.capitalize(), record({"op": {"const": op}, **required}, {**numbers, **_PLACED}))


PLACEMENT = named("Placement", either(
    _placement(
        "add",
        {**{k: nullable(NUMBER) for k in ("dose", "scale", "amount")}, "relative": FLAG},
        {"vector": VECTOR},
    ),
    _placement("ablate", {"keep": NUMBER}, {"vector": VECTOR}),
    _placement("cap", {"low": nullable(NUMBER), "high": nullable(NUMBER), "z": FLAG}, {"vector": VECTOR}),
    _placement("pin", {"value": NUMBER, "z": FLAG}, {"vector": VECTOR}),
    _placement(
        "deltas",
        {"start": INDEX, "dtype": _NUMBERS["dtype"]},
        {"shape": {"type": "array", "items": INDEX, "minItems": 2, "maxItems": 2}, "data": _NUMBERS["data"]},
    ),
))  # fmt: skip
PLAN = named("SteeringPlan", record(
    {"placements": {"type": "array", "items": PLACEMENT}}, {"schema": {"const": SCHEMA}}
)) | {
    "description": "Placements in order, as SteeringPlan.to_json writes them; an empty list is explicitly no plan.",
}  # fmt: skip
ACTION = named("Action", either(
    {"enum": ["log", "abort"]}, record({"tag": TEXT}), record({"steer": either(PLAN, TEXT)})
))  # fmt: skip
WHEN = record(
    {"concept": TEXT},
    {
        "above": nullable(NUMBER), "below": nullable(NUMBER), "layer": nullable(INDEX), "unit": {"enum": list(UNITS)},
        "mean": {"type": "integer", "minimum": 1}, "tokens": {"type": "integer", "minimum": 1},
    },
)  # fmt: skip
RULE = named("Rule", either(
    {"type": "string", "examples": ["happy@4 z > 2.5 for 3 tokens -> tag cheerful, abort"]},
    record(
        {"name": TEXT, "when": WHEN, "then": either(ACTION, {"type": "array", "items": ACTION, "minItems": 1})},
        {"again": FLAG},
    ),
))  # fmt: skip
RULES: Schema = {"type": "array", "items": RULE, "maxItems": MAX_RULES}
READOUT = either(FLAG, named("ReadoutField", ReadoutField.model_json_schema()))
CAPTURE = named("CaptureField", CaptureField.model_json_schema())
CAPTURE["properties"]["positions"] = POSITIONS
#: The fields by name, as they stand beside OpenAI's in a request.
FIELDS: dict[str, Schema] = {
    "steering": nullable(PLAN)
    | {"description": "The plan of this request; null is the server's default plan."},
    "readout": nullable(READOUT)
    | {"description": "What to read of every token; true for what is read by default."},
    "capture": nullable(CAPTURE) | {"description": "States to keep until they are fetched."},
    "rules": nullable(RULES) | {"description": "What to do when a reading passes a threshold."},
}
PART: Schema = {
    "type": "object", "required": ["type", "text"], "properties": {"type": {"const": "text"}, "text": TEXT},
}  # fmt: skip
MESSAGES: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": TEXT, "content": either(TEXT, {"type": "array", "items": PART})},
    },
}
PLAIN_MESSAGES: Schema = {
    **MESSAGES,
    "items": {**MESSAGES["items"], "properties": {"role": TEXT, "content": TEXT}},
}
