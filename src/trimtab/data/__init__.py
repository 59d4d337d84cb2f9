"""Sources of contrast. A layout is one module here and one line in `LAYOUTS`; nothing in this room needs a
model.

A layout module has `claims(path) -> bool` and `load(path, negatives) -> list[Contrast]`, one contrast per
concept.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from trimtab.errors import FormatError, InputError, UnknownName

if TYPE_CHECKING:
    from trimtab.data.contrast import Contrast

#: layout -> (module, what it reads); sniffed in this order.
LAYOUTS: dict[str, tuple[str, str]] = {
    "pairs": ("trimtab.data.pairs", 'JSON lines {"positive": …, "negative": …}'),
    "template": ("trimtab.data.templates", "a persona template x suffix recipe, .json or .yaml"),
    "labelled": ("trimtab.data.labelled", "a .csv of statement,label with labels 1 and 0"),
    "lists": ("trimtab.data.lists", "a flat .json list of texts per concept"),
}


def load(
    path: str | os.PathLike[str],
    *,
    negatives: str | os.PathLike[str] | None = None,
    concept: str | None = None,
    layout: str | None = None,
) -> list[Contrast]:
    """Read a corpus into one `Contrast` per concept, checked.

    `negatives` is a second file, for layouts of one concept per file. `concept` picks one concept of a file
    that names several, or names the only one. `layout` skips the sniffing.
    """
    path = _existing(path)
    other = None if negatives is None else _existing(negatives)
    found = _layout(path, layout).load(path, other)
    if not found:
        raise InputError(f"{path} is empty: it holds no texts")
    if concept is None:
        return found
    named = [c for c in found if c.concept == concept]
    if named:
        return named
    if len(found) > 1:
        raise UnknownName.of("concept", concept, [c.concept for c in found], f"It stands in {path}.")
    return [found[0].renamed(concept)]


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.is_dir():
        raise FormatError(f"{path} is a folder; name one file in it")
    if not path.exists():
        raise FormatError(f"no such file: {path}")
    return path


def _layout(path: Path, name: str | None) -> ModuleType:
    if name is not None:
        if name not in LAYOUTS:
            raise UnknownName.of("data layout", name, LAYOUTS)
        return importlib.import_module(LAYOUTS[name][0])
    for module_name, _ in LAYOUTS.values():
        module = importlib.import_module(module_name)
        if module.claims(path):
            return module
    known = "; ".join(f"{k}: {what}" for k, (_, what) in LAYOUTS.items())
    raise FormatError(f"{path} is in no layout that trimtab reads. Known: {known}")
