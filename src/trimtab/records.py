"""Records that leave the program as JSON: plain types, and null for every number that is not finite."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def finite(value: Any) -> Any:
    """A copy of `value` made of plain JSON types, with null for every number that is not finite."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted((finite(v) for v in value), key=str)
    if callable(tolist := getattr(value, "tolist", None)):  # numpy, without importing it
        return finite(tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: finite(getattr(value, f.name)) for f in fields(value)}
    return str(value)


def json_line(record: Any) -> str:
    """One line of strict ASCII JSON, so that no terminal encoding or line separator can break it."""
    return json.dumps(finite(record), allow_nan=False)


def unit_key(unit: Any) -> str:
    """The key of a unit of work: a hash of everything that identifies it."""
    text = json.dumps(finite(unit), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
