"""Files: read any known layout into `ConceptVectors`, write the native one.

A format is one module with `claims(path) -> bool`, `load(path) -> ConceptVectors` and, where it can, `save`.
Adding one is a file here and a line in `READERS`.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from trimtab.directions import ConceptVectors
from trimtab.errors import FormatError, UnknownName
from trimtab.sites import ModelInfo

#: Reader modules, asked in order; the first that claims a path reads it.
READERS: tuple[str, ...] = ("trimtab.formats.native",)
WRITERS: dict[str, str] = {"native": "trimtab.formats.native"}


def load(path: str | os.PathLike[str], model: ModelInfo | None = None) -> ConceptVectors:
    """Read a vector file. With `model`, a file of another width, depth or stream is refused in words."""
    path = Path(path)
    if not path.exists():
        raise FormatError(f"no such file: {path}")
    for name in READERS:
        reader = importlib.import_module(name)
        if reader.claims(path):
            vectors = reader.load(path)
            if model is not None:
                vectors.check_model(model)
            return vectors
    raise FormatError(f"{path} is not a vector file that trimtab reads; known: .safetensors (native)")


def save(vectors: ConceptVectors, path: str | os.PathLike[str], format: str = "native") -> None:
    """Write `vectors`; the native format also writes the manifest beside the file as NAME.json."""
    if format not in WRITERS:
        raise UnknownName.of("format", format, WRITERS)
    importlib.import_module(WRITERS[format]).save(vectors, Path(path))
