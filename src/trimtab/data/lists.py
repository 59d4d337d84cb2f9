"""A flat JSON list of texts per concept, the layout of RepE's emotions (`happiness.json`, arXiv 2310.01405).

The negatives are a second file, or all sibling lists of the folder. Siblings whose name joins two with `_`
(`happiness_sadness.json`) hold mixtures and are never taken. Rows of two lists do not correspond: not paired.
"""

from __future__ import annotations

from pathlib import Path

from trimtab.data.contrast import Contrast
from trimtab.data.options import Options
from trimtab.data.reading import first_character, is_blank, json_of
from trimtab.errors import InputError

OPTIONS = frozenset({"negatives"})


def claims(path: Path) -> bool:
    """A JSON list of texts, or a folder whose JSON files are such lists."""
    if path.is_dir():
        files = [f for f in sorted(path.glob("*.json")) if not is_blank(f)]
        return bool(files) and all(_starts_with_text(f) for f in files)
    return path.suffix == ".json" and first_character(path) in ("[", "")


def load(path: Path, options: Options) -> list[Contrast]:
    """One unpaired contrast, named after the file; of a folder, one per list that is no mixture."""
    if path.is_file():
        return [_one(path, options.negatives)]
    files = sorted(f for f in path.glob("*.json") if not f.name.startswith("."))
    blank = [f for f in files if is_blank(f)]
    mixed = [f for f in files if "_" in f.stem and f not in blank]
    notes = [*options.skip_empty([f.name for f in blank])]
    if mixed:
        notes.append(f"left out as mixtures (a name with _): {', '.join(f.name for f in mixed)}")
    found = [_one(f, options.negatives) for f in files if f not in blank and f not in mixed]
    return [found[0].noted(notes), *found[1:]] if found else []


def _starts_with_text(path: Path) -> bool:
    """Whether a JSON list opens with a text (a list of objects is another layout)."""
    head = path.read_bytes()[:4096].decode("utf-8", "ignore").lstrip("\ufeff \t\r\n")
    return head.startswith("[") and head[1:].lstrip()[:1] in ('"', "]", "")


def _one(path: Path, negatives: Path | None) -> Contrast:
    positive, repeated = _texts(path)
    notes = [f"{repeated} repeated texts of {path.name} are read once"] if repeated else []
    if negatives is not None:
        negative, _ = _texts(negatives)
    else:
        names, negative = _siblings(path)
        notes.append(f"no --negatives given: taking the sibling lists {', '.join(names)} as negatives")
        shared = set(positive) & set(negative)
        if shared:
            notes.append(f"{len(shared)} texts of the siblings that {path.name} holds too are left out")
            negative = tuple(t for t in negative if t not in shared)
    return Contrast(path.stem, positive, negative, source=str(path), notes=tuple(notes))


def _texts(path: Path) -> tuple[tuple[str, ...], int]:
    """Distinct texts in order, and how many were repeats."""
    rows = json_of(path)
    if not isinstance(rows, list) or not all(isinstance(r, str) for r in rows):
        raise InputError(f"{path} must be a flat JSON list of texts")
    if not rows:
        raise InputError(f"{path} is empty: it holds no texts")
    distinct = tuple(dict.fromkeys(rows))
    return distinct, len(rows) - len(distinct)


def _siblings(path: Path) -> tuple[list[str], tuple[str, ...]]:
    names, texts = [], {}
    for other in sorted(path.parent.glob("*.json")):
        if other == path or other.name.startswith(".") or "_" in other.stem or first_character(other) != "[":
            continue
        rows = json_of(other)
        if isinstance(rows, list) and rows and all(isinstance(r, str) and r.strip() for r in rows):
            names.append(other.name)
            texts |= dict.fromkeys(rows)
    if not texts:
        raise InputError(
            f"{path} is one-sided: a flat list of texts, with no sibling lists beside it to serve as "
            "negatives; "
            "give --negatives FILE"
        )
    return names, tuple(texts)
