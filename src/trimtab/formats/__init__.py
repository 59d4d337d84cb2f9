"""Files: read any known layout into `ConceptVectors`, write the native one and those of the field.

A reader is one module with `claims(path) -> bool`, `OPTIONS` and `load(path, **options) -> ConceptVectors`; adding
one is a file here and a line in `READERS`. Layers are converted once, at this border: what comes in is 0-based
block outputs, and `foreign.layer_names` still knows what each layer was called where it came from.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from trimtab.directions import ConceptVectors
from trimtab.errors import FormatError, InputError, UnknownName
from trimtab.sites import ModelInfo

#: Reader modules, asked in order; the first that claims a path reads it.
READERS: tuple[str, ...] = ("trimtab.formats.native", "trimtab.formats.gguf", "trimtab.formats.pt")
WRITERS: dict[str, str] = {
    "native": "trimtab.formats.native",
    "gguf": "trimtab.formats.gguf",
    "peft": "trimtab.formats.peft",
}
#: What a file's name says about its format, for writing.
SUFFIXES: dict[str, str] = {".safetensors": "native", ".gguf": "gguf"}


class FormatWarning(UserWarning):
    """Something about a file that its reader had to leave out, or that its user must know."""


def load(path: str | os.PathLike[str], model: ModelInfo | None = None, **options: Any) -> ConceptVectors:
    """Read a vector file. With `model`, a file of another width, depth or stream is refused in words.

    `options` say what a foreign file does not: `layer` and `convention` ("output": layer N is what leaves 0-based
    block N; "input": what enters it, `hidden_states[N]`), `key` of a `.pt` dictionary, `baseline` and `baseline_key`
    for files of mean activations. A file that needs one says so; one that it has no use for is refused.
    """
    path = Path(path)
    if not path.exists():
        raise FormatError(f"no such file: {path}")
    for name in READERS:
        reader = importlib.import_module(name)
        if reader.claims(path):
            given = {k: v for k, v in options.items() if v is not None}
            unknown = sorted(set(given) - set(reader.OPTIONS))
            if unknown:
                takes = ", ".join(f"{o}=" for o in reader.OPTIONS) or "none"
                raise InputError(
                    f"{path.name}: files of this format say it themselves and take no {unknown[0]}=; options: {takes}"
                )
            vectors = reader.load(path, **given)
            if model is not None:
                vectors.check_model(model)
            return vectors
    raise FormatError(
        f"{path} is not a vector file that trimtab reads; known: .safetensors (native), .gguf (control vector), "
        ".pt, .pth and .bin (tensors saved by torch)"
    )


def save(
    vectors: ConceptVectors, path: str | os.PathLike[str], format: str | None = None, **options: Any
) -> None:
    """Write `vectors` in `format` (by default what the name says: .safetensors is native, .gguf a control vector;
    "peft" writes a folder, and only where such an adapter is exact).

    The native format also writes the manifest beside the file as NAME.json. `options` are the writer's: `model_hint`
    for GGUF, `model` and `scale` for PEFT. What a format cannot hold exactly is refused, never left out.
    """
    path = Path(path)
    if format is None:
        format = SUFFIXES.get(path.suffix)
        if format is None:
            raise InputError(
                f"vectors are written to NAME.safetensors (native) or NAME.gguf (control vector), got {path.name}"
            )
    if format not in WRITERS:
        raise UnknownName.of("format", format, WRITERS)
    importlib.import_module(WRITERS[format]).save(vectors, path, **options)


def from_object(vectors: object, name: str | None = None) -> ConceptVectors:
    """Vectors held by another library's object, e.g. repeng's ControlVector (`formats.objects`)."""
    from trimtab.formats.objects import from_object

    return from_object(vectors, name)
