"""The table of layouts, and how a path is recognised as one of them.

A layout module has `OPTIONS`, `claims(path) -> bool` and `load(path, options) -> list[Contrast]`, one contrast
per concept. A folder that no layout claims is read file by file, when all its files are of one layout.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from trimtab.errors import FormatError, UnknownName

#: layout -> (module, what it reads); sniffed in this order.
LAYOUTS: dict[str, tuple[str, str]] = {
    "dataset": (
        "trimtab.data.dataset",
        "a folder saved with datasets' save_to_disk, or a .parquet or .arrow file",
    ),
    "stories": (
        "trimtab.data.stories",
        "a folder of stories/, paired/ or direct/ texts, one .txt per concept",
    ),
    "instructions": (
        "trimtab.data.instructions",
        "role or trait instruction files (.json), alone or a folder",
    ),
    "scored": (
        "trimtab.data.scored",
        "JSON lines of judged responses: concept, question, response, score, side",
    ),
    "answers": ("trimtab.data.answers", "questions with the answers that match a behaviour and that do not"),
    "statements": ("trimtab.data.statements", "Yes/No question files, their statements alone (only by name)"),
    "labelled": ("trimtab.data.labelled", "a .csv, .tsv or JSON lines of statement (or text), label 1 or 0"),
    "pairs": ("trimtab.data.pairs", 'JSON lines {"positive": …, "negative": …}'),
    "table": ("trimtab.data.table", "a .csv or .tsv of pairs: columns positive and negative"),
    "template": ("trimtab.data.templates", "a persona template x suffix recipe, .json or .yaml"),
    "lists": ("trimtab.data.lists", "flat .json lists of texts, one per concept: a file or its folder"),
}
FOLDERS = (
    "stories/, paired/<scenario>/ or direct/ with <concept>.txt files (or one of these itself); role or trait "
    "instruction files; flat .json lists; a datasets folder; or files of one other layout, one per concept"
)
SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".yaml", ".yml")


def module_of(name: str) -> ModuleType:
    """The module of a layout."""
    if name not in LAYOUTS:
        raise UnknownName.of("data layout", name, LAYOUTS)
    return importlib.import_module(LAYOUTS[name][0])


def recognise(path: Path) -> str | None:
    """The layout that claims a path; None where none does."""
    return next((name for name in LAYOUTS if module_of(name).claims(path)), None)


def parts(path: Path, layout: str | None = None) -> tuple[str, list[Path]]:
    """The layout of `path` and what it is loaded from: itself, or the files of a folder of such files."""
    if layout is not None:
        module = module_of(layout)
        whole = path.is_file() or module.claims(path)
        return layout, [path] if whole else _files(path)
    found = recognise(path)
    if found is not None:
        return found, [path]
    if path.is_dir():
        return _folder(path)
    known = "; ".join(f"{k}: {what}" for k, (_, what) in LAYOUTS.items())
    raise FormatError(f"{path} is in no layout that trimtab reads. Known: {known}")


def _folder(path: Path) -> tuple[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in _files(path):
        found.setdefault(recognise(file) or "unknown", []).append(file)
    if len(found) == 1 and "unknown" not in found:
        return next(iter(found.items()))
    if found:
        kinds = "; ".join(f"{k}: {v[0].relative_to(path)}" for k, v in sorted(found.items()))
        raise FormatError(
            f"{path} is a folder of files of several layouts ({kinds}); name one file or folder in it"
        )
    raise FormatError(f"{path} is a folder in no layout that trimtab reads. A folder may hold: {FOLDERS}")


def _files(path: Path) -> list[Path]:
    """Data files of a folder, or of its subfolders where each concept has a folder of its own."""
    for pattern in ("*", "*/*"):
        files = [
            p
            for p in sorted(path.glob(pattern))
            if p.is_file() and p.suffix in SUFFIXES and not p.name.startswith((".", "_"))
        ]
        if files:
            return files
    if path.is_dir() and not any(path.iterdir()):
        raise FormatError(f"{path} is an empty folder. A folder may hold: {FOLDERS}")
    return []
