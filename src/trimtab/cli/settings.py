"""Where a flag's value comes from: command line > environment > `--config` file > default.

Every flag `--max-tokens` of a verb is also the variable `TRIMTAB_MAX_TOKENS` and the key `max_tokens` (or
`max-tokens`) of a YAML file; positional arguments are keys too. Values of the environment and of the file
are handed to click as its default map, so they pass the same conversion and checks as a typed flag.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from trimtab.errors import FormatError, InputError, UnknownName

PREFIX = "TRIMTAB_"

# They choose how a run is shown or where settings come from, never what it computes.
PRESENTATION = frozenset({"config", "debug", "fresh", "json", "quiet", "runs_dir"})

# They add to the units of a run and leave what is finished as it is: the run folder stays the same with them.
ADDING = frozenset({"continue_to"})


def key_of(param: click.Parameter) -> str:
    """The key of a flag or argument: its longest spelling, with underscores."""
    if isinstance(param, click.Option):
        return max(param.opts, key=len).lstrip("-").replace("-", "_")
    return param.name or ""


def keys_of(command: click.Command) -> dict[str, click.Parameter]:
    """Every key that a config file for this verb may hold."""
    return {key_of(p): p for p in command.params if key_of(p) not in ("config", "help")}


def load_settings(ctx: click.Context, param: click.Parameter, path: str | None) -> Path | None:
    """Callback of `--config`: fill the context's default map before any other flag is read."""
    known = keys_of(ctx.command)
    path = path or os.environ.get(f"{PREFIX}CONFIG") or None
    found = read_config(Path(path), known) if path else {}
    found |= read_environment(os.environ, known)
    ctx.default_map = {known[key].name: value for key, value in found.items()}
    return Path(path) if path else None


def read_config(path: Path, known: Mapping[str, click.Parameter]) -> dict[str, Any]:
    """Read a YAML mapping of keys; an unknown key or a value of the wrong shape is an error."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        content, node = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise InputError(f"cannot read the config file {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise FormatError(f"{path} must hold `key: value` lines, not a {type(content).__name__}.")
    assert isinstance(node, yaml.MappingNode)
    keys = [str(k.value).replace("-", "_") for k, _ in node.value]  # YAML itself keeps the last of equal keys
    if twice := sorted({k for k in keys if keys.count(k) > 1}):
        raise FormatError(f"{path} has the key {twice[0]!r} more than once; a list holds several values.")
    found = {}
    for raw, value in content.items():
        key = str(raw).replace("-", "_")
        if key not in known:
            raise UnknownName.of("key", raw, known, mend=f"It stands in {path}.")
        if value is not None:
            found[key] = _shaped(value, known[key], f"key '{raw}' of {path}")
    return found


def read_environment(environ: Mapping[str, str], known: Mapping[str, click.Parameter]) -> dict[str, Any]:
    """Flags (not positional arguments) that are set in the environment; an empty variable is not set.

    A flag that may be repeated takes one value, or several as a YAML list: `["one", "two words"]`.
    """
    import yaml

    found = {}
    for key, param in known.items():
        value = environ.get(PREFIX + key.upper())
        if not value or not isinstance(param, click.Option):
            continue
        if _repeats(param):
            parsed = yaml.safe_load(value) if value.lstrip().startswith("[") else [value]
            found[key] = [str(v) for v in parsed]
        else:
            found[key] = value
    return found


def misspelt_environment(environ: Mapping[str, str], known: Mapping[str, click.Parameter]) -> list[str]:
    """One warning per TRIMTAB_ variable that looks like a flag of this verb but is none.

    Variables that resemble nothing stay unmentioned: they may belong to another verb.
    """
    names = [PREFIX + key.upper() for key in known] + [f"{PREFIX}CONFIG"]
    near = {
        name: difflib.get_close_matches(name, names, n=1, cutoff=0.92)
        for name in environ
        if name.startswith(PREFIX) and name not in names
    }
    return [f"{name} is not a flag of this verb; did you mean {n[0]}?" for name, n in near.items() if n]


def resolved(command: click.Command, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in force, as plain YAML values under their keys: a file that `--config` accepts."""
    named = {key: values.get(param.name or "") for key, param in keys_of(command).items()}
    return {key: _plain(value) for key, value in named.items() if value is not None}


def command_line(verb: str, command: click.Command, values: Mapping[str, Any]) -> str:
    """The command that asks for the same again, whatever came from the environment or a config file: arguments, and
    every flag that differs from its default."""
    arguments: list[str] = []
    flags: list[str] = []
    for key, param in keys_of(command).items():
        value = values.get(param.name or "")
        if key in PRESENTATION or value is None:
            continue
        if not isinstance(param, click.Option):
            arguments += map(str, value) if isinstance(value, tuple) else [str(value)]
        elif param.is_flag:
            spelled = {True: param.opts, False: param.secondary_opts}[bool(value)]
            flags += [max(spelled, key=len)] if spelled and value != param.default else []
        else:
            many = value if _repeats(param) else (value,)
            default = param.default
            if [*many] != ([*default] if isinstance(default, tuple | list) else [default]):
                flags += [part for v in many for part in (max(param.opts, key=len), str(v))]
    return shlex.join(["trimtab", *verb.split(), *arguments, *flags])


def _repeats(param: click.Parameter) -> bool:
    return param.nargs != 1 or getattr(param, "multiple", False)


def _shaped(value: Any, param: click.Parameter, where: str) -> Any:
    """Refuse mappings; a single value may stand for a list; `[12, 18]` may stand for `12,18`."""
    if isinstance(value, Mapping):
        raise InputError(f"{where} is a mapping; it takes a {param.type.name} value.")
    if _repeats(param):
        return value if isinstance(value, list) else [value]
    if isinstance(value, list):
        if param.type is not click.STRING:
            raise InputError(f"{where} is a list; it takes one {param.type.name} value.")
        return ",".join(str(v) for v in value)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value if isinstance(value, bool | int | float | str) else str(value)
