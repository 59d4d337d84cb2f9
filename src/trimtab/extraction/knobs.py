"""Knobs as text: `trim=0.1` becomes a value of the type that the method's dataclass declares."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable
from typing import Any

from trimtab.errors import InputError, UnknownName
from trimtab.extraction.method import Method

_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def parse_knobs(cls: type[Method], settings: Iterable[str]) -> dict[str, Any]:
    """`NAME=VALUE` settings of one method, checked against its knobs; a knob set twice is an error."""
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for setting in settings:
        knob, separator, text = (part.strip() for part in setting.partition("="))
        if not separator or not text:
            raise InputError(f"a knob is set as NAME=VALUE, got {setting!r}")
        if knob not in known:
            raise UnknownName.of(f"knob of {cls.name}", knob, known)
        if knob in found:
            raise InputError(f"the knob {knob} of {cls.name} is set twice")
        found[knob] = _value(text, hints[knob], f"the knob {knob} of {cls.name}")
    return found


def _value(text: str, kind: Any, what: str) -> Any:
    """The text as the type, or an error that says which values there are."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = [k for k in typing.get_args(kind) if k is not type(None)]
        return None if text.lower() == "none" else _value(text, kinds[0], what)
    if typing.get_origin(kind) is typing.Literal:
        if text not in typing.get_args(kind):
            raise UnknownName.of(f"value of {what},", text, typing.get_args(kind))
        return text
    if kind is bool:
        if text.lower() not in _WORDS:
            raise InputError(f"{what} is true or false, got {text!r}")
        return _WORDS[text.lower()]
    try:
        return kind(text)
    except ValueError:
        named = {int: "a whole number", float: "a number"}.get(kind, getattr(kind, "__name__", str(kind)))
        raise InputError(f"{what} is {named}, got {text!r}") from None
