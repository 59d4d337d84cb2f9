"""A flat JSON list of texts per concept, the layout of RepE's emotions (`happiness.json`, arXiv 2310.01405).

The negatives are a second file, or all sibling lists of the folder. Siblings whose name joins two with `_`
(`happiness_sadness.json`) hold mixtures and are never taken. Rows of two lists do not correspond: not paired.
"""

from __future__ import annotations

from pathlib import Path

from trimtab.data.contrast import Contrast
from trimtab.data.reading import first_character, json_of
from trimtab.errors import InputError


def claims(path: Path) -> bool:
    """A JSON list."""
    return path.suffix == ".json" and first_character(path) in ("[", "")


def load(path: Path, negatives: Path | None = None) -> list[Contrast]:
    """One unpaired contrast, named after the file."""
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
    return [Contrast(path.stem, positive, negative, source=str(path), notes=tuple(notes))]


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
        if other == path or "_" in other.stem or first_character(other) != "[":
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
