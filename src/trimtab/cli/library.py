"""Vectors that have a name: a folder of vector files, where `--steer happy` finds `happy.safetensors`.

It is `~/.local/share/trimtab/vectors` (`$XDG_DATA_HOME` is heeded) unless `--library DIR`, thus `TRIMTAB_LIBRARY` or a
config file, names another. Only the command line knows it; in Python a library is a dictionary.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from trimtab.errors import FormatError, InputError

_CHOSEN = "trimtab.library"
#: Kinds that a library holds: those that say everything themselves.
KINDS = (".safetensors", ".gguf")
_NAME = re.compile(r"[\w][\w.+ -]*")


def library_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--library`, which is remembered for `folder` rather than passed on."""
    return click.option(
        "--library", default=None, metavar="DIR", expose_value=False, callback=_choose,
        help="Folder of named vectors [default: ~/.local/share/trimtab/vectors].",
    )(function)  # fmt: skip


def _choose(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value:
        ctx.meta[_CHOSEN] = Path(value).expanduser()


def folder() -> Path:
    """Where named vectors lie; it need not exist."""
    context = click.get_current_context(silent=True)
    chosen = None if context is None else context.meta.get(_CHOSEN)
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return chosen or Path(data).expanduser() / "trimtab" / "vectors"


def entries() -> dict[str, list[Path]]:
    """Every name with its files; a name with several is ambiguous."""
    found: dict[str, list[Path]] = {}
    if folder().is_dir():
        for path in sorted(folder().iterdir()):
            if path.suffix in KINDS and path.is_file() and not path.name.startswith("."):
                found.setdefault(path.stem, []).append(path)
    return found


def find(name: str) -> Path | None:
    """The file called `name`; None where there is none, an error where there are several."""
    if not _NAME.fullmatch(name):
        return None
    files = entries().get(name, [])
    if len(files) > 1:
        raise InputError(
            f"{name!r} is {len(files)} files in the library: give one of {', '.join(map(str, files))}"
        )
    return files[0] if files else None


def locate(reference: str, beside: Path | None = None) -> Path | None:
    """A file, sought in `beside` first and where the command runs, else a name of the library."""
    places = [Path(reference)] if beside is None else [beside / reference, Path(reference)]
    file = next((p for p in places if p.is_file()), None)
    return file or find(reference) or next((p for p in places if p.exists()), None)


def absent(reference: str) -> FormatError:
    """The error for a reference that is neither a file nor a name; lists the names there are."""
    if not _NAME.fullmatch(reference) or Path(reference).suffix:
        return FormatError(f"no such file: {reference}")
    names = ", ".join(entries()) or "nothing"
    return FormatError(
        f"no such file: {reference}, and the library {folder()} has none of that name; it has: {names}"
    )


def target(name: str) -> Path:
    """Where a vector of that name is written."""
    if not _NAME.fullmatch(name) or Path(name).suffix in KINDS:
        raise InputError(
            f"a name in the library is a plain word such as 'happy', without folder or suffix; got {name!r}"
        )
    return folder() / f"{name}.safetensors"
