"""`.pt` files: the layouts of the field, told apart by what is inside.

A layout is a class with `takes` (the options it has a use for), `claims(content, path)` and `load(content, path,
options)`; the first that claims reads. What none claims is refused with an account of what the file holds; one entry
of any dictionary of tensors can be picked with `key`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.errors import FormatError, InputError, UnknownName
from trimtab.formats import torch_file


@dataclass(frozen=True)
class Options:
    """What the caller says because the file does not; None where it was not said."""

    layer: int | None = None
    convention: str | None = None
    key: str | None = None
    baseline: str | None = None
    baseline_key: str | None = None

    def given(self) -> list[str]:
        """Names of the options that were said."""
        return [f.name for f in fields(self) if getattr(self, f.name) is not None]


class Layout(Protocol):
    """One kind of content."""

    @property
    def takes(self) -> tuple[str, ...]: ...

    @property
    def what(self) -> str: ...

    def claims(self, content: Any, path: Path) -> bool: ...

    def load(self, content: Any, path: Path, options: Options) -> ConceptVectors: ...


OPTIONS: tuple[str, ...] = tuple(f.name for f in fields(Options))


def claims(path: Path) -> bool:
    """Files by the suffixes that torch.save is given."""
    return path.suffix in (".pt", ".pth", ".bin") and path.is_file()


def load(path: Path, **options: Any) -> ConceptVectors:
    """Open the file safely, find its layout, read it."""
    return from_content(torch_file.read(path), path, Options(**options))


def layouts() -> tuple[Layout, ...]:
    """Every layout, the most telling first."""
    from trimtab.formats import pt_means, pt_vectors

    return (
        pt_vectors.SteeringFolder(),
        pt_means.MeansByLabel(),
        pt_means.OneRole(),
        pt_means.Persona(),
        pt_vectors.LayerDict(),
        pt_vectors.Stack(),
        pt_vectors.OneVector(),
    )


def from_content(content: Any, path: Path, options: Options) -> ConceptVectors:
    """The layout that claims `content` reads it; options it has no use for are refused by name."""
    for layout in layouts():
        if layout.claims(content, path):
            extra = [o for o in options.given() if o not in layout.takes]
            if extra:
                takes = ", ".join(f"{o}=" for o in layout.takes) or "none"
                raise InputError(f"{path.name} is {layout.what} and takes no {extra[0]}=; options: {takes}")
            return layout.load(content, path, options)
    tensors = isinstance(content, Mapping) and any(isinstance(v, np.ndarray) for v in content.values())
    if tensors and options.key is not None:
        return from_content(pick(content, options.key, path), path, replace(options, key=None))
    mend = "; pick one of its tensors with key= (--key)" if tensors else ""
    raise FormatError(
        f"{path} is no vector file that trimtab knows: it holds {torch_file.describe(content)}{mend}"
    )


def pick(content: Mapping[Any, Any], key: str, path: Path) -> np.ndarray:
    """One tensor of a dictionary; a missing key raises and lists those that are there."""
    named = {str(k): v for k, v in content.items()}
    if key not in named:
        raise UnknownName.of(f"key in {path.name}", key, named)
    if not isinstance(named[key], np.ndarray):
        raise FormatError(f"{path.name}: {key!r} holds {torch_file.describe(named[key])}, not a tensor")
    return named[key]


def concept_of(path: Path, endings: tuple[str, ...] = ()) -> str:
    """A concept's name from a file's: its stem without a known ending."""
    for ending in endings:
        if path.stem.endswith(ending) and path.stem != ending:
            return path.stem.removesuffix(ending)
    return path.stem
