"""The embedded model: a small causal LM with readable and steerable concepts, and the data for its demonstration.

It is made by this repository (``embedded/``) from text that this repository generates; ``model/README.md`` is its
card.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["MODEL", "data"]

_HERE = Path(__file__).parent
MODEL: Path = _HERE / "model"


def data(name: str) -> Path:
    """Path of one of the data files, for example ``data("pairs.jsonl")``."""
    path = _HERE / "data" / name
    if not path.is_file():
        known = ", ".join(sorted(p.name for p in path.parent.iterdir() if p.is_file()))
        raise FileNotFoundError(f"no embedded data file {name!r}; there are: {known}")
    return path
