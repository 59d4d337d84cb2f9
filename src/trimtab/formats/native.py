"""The native file: safetensors with the manifest embedded in its metadata, and a copy of it beside as
NAME.json.

Tensors are float32, `layer_<i>.<field>` for resid_post and `layer_<i>.<stream>.<field>` for any other stream,
with the fields of `directions.Table`. A reader that knows only `{concepts, layers, hidden_size, dtype}` can
use the file, and a file whose manifest has only those is read too.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.directions import COLUMNS, ConceptVectors, Origin, Table
from trimtab.errors import FormatError, InputError
from trimtab.formats import FormatWarning
from trimtab.formats.writing import replacing
from trimtab.sites import Site

#: A native file says everything itself.
OPTIONS: tuple[str, ...] = ()
METADATA_KEY = "trimtab"
FIELDS = ("vectors", *COLUMNS, "cap", "basis")


def claims(path: Path) -> bool:
    """Any safetensors file."""
    return path.suffix == ".safetensors"


def manifest(vectors: ConceptVectors) -> dict[str, Any]:
    """Everything about the file that is not a tensor, JSON-able."""
    residual = vectors.layers()
    first = next((t for s, t in vectors.tables.items() if s.stream == "resid_post"), None)
    return {
        "concepts": list(vectors.concepts),
        "layers": list(residual),
        "hidden_size": None if first is None else first.vectors.shape[1],
        "dtype": "float32",
        "format": "trimtab",
        "version": 1,
        "sites": [
            {"layer": s.layer, "stream": s.stream, "width": t.vectors.shape[1]}
            for s, t in vectors.tables.items()
        ],
        "typical_norms": {s.key: float(n) for s, n in vectors.typical_norms.items()},
        "origin": asdict(vectors.origin),
        "calibration": dict(vectors.calibration),
        "content_hash": vectors.hash,
    }


def save(vectors: ConceptVectors, path: Path) -> None:
    """Write atomically: the file, then its manifest beside it. A folder that cannot be written is an error in
    words.
    """
    from safetensors.numpy import save as to_bytes

    if path.suffix != ".safetensors":
        raise InputError(f"the native format is written to NAME.safetensors, got {path.name}")
    tensors = {
        f"{site.key}.{name}": np.ascontiguousarray(value, dtype=np.float32)
        for site, table in vectors.tables.items()
        for name, value in table.fields()
    }
    text = json.dumps(manifest(vectors), allow_nan=False)
    for place, data in (
        (path, to_bytes(tensors, metadata={METADATA_KEY: text})),
        (path.with_suffix(".json"), (json.dumps(json.loads(text), indent=2) + "\n").encode()),
    ):
        with replacing(place) as temporary:
            temporary.write_bytes(data)


def load(path: Path) -> ConceptVectors:
    """Read the file and prove it: tensors, manifest and content hash must agree."""
    tensors, metadata = _read(path)
    description = _manifest_of(path, metadata)
    tables = _tables(path, tensors)
    _get(path, description, "concepts")
    try:
        vectors = ConceptVectors(
            tuple(description["concepts"]),
            tables,
            typical_norms={
                Site.from_key(k): float(v) for k, v in description.get("typical_norms", {}).items()
            },
            origin=_origin(description),
            calibration=dict(description.get("calibration") or {}),
        )
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"the manifest of {path} is malformed: {error}") from error
    _check(path, vectors, description)
    _warn(path, vectors.origin)
    return vectors


def _warn(path: Path, origin: Origin) -> None:
    """A vector found in one kind of state reads another kind on a shifted scale: its reader must know."""
    if None in (origin.pooling, origin.read_position) or origin.pooling == origin.read_position:
        return
    warnings.warn(
        f"{path.name} was extracted from {origin.pooling} states and is read at {origin.read_position}: the direction "
        "may lie differently there; extract it with the pooling that is read, or judge readings by their own baseline",
        FormatWarning,
        stacklevel=3,
    )


def glance(path: Path) -> dict[str, Any] | None:
    """The manifest, without reading a tensor; None where there is none (a model's weights, say). Damage raises."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path} is damaged or not a safetensors file: {error}") from error
    try:
        found = dict(_manifest_of(path, metadata))
    except FormatError:
        return None
    return found if "concepts" in found else None


def _read(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path} is damaged or not a safetensors file: {error}") from error


def _manifest_of(path: Path, metadata: Mapping[str, str]) -> Mapping[str, Any]:
    beside = path.with_suffix(".json")
    text = metadata.get(METADATA_KEY)
    if text is None and "concepts" in metadata:  # a small manifest spread over the metadata's own keys
        return {k: _maybe_json(v) for k, v in metadata.items()}
    if text is None and beside.exists():
        text = beside.read_text()
    if text is None:
        raise FormatError(f"{path} carries no manifest, and there is no {beside.name} beside it")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise FormatError(f"the manifest of {path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise FormatError(f"the manifest of {path} is not an object")
    return found


def _maybe_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _get(path: Path, description: Mapping[str, Any], key: str) -> Any:
    if key not in description:
        raise FormatError(f"the manifest of {path} lacks {key!r}; it has {sorted(description)}")
    return description[key]


def _tables(path: Path, tensors: Mapping[str, np.ndarray]) -> dict[Site, Table]:
    found: dict[Site, dict[str, np.ndarray]] = {}
    for key, value in tensors.items():
        match = re.fullmatch(r"(layer_\d+(?:\.\w+)?)\.(\w+)", key)
        if match is None or match[2] not in FIELDS:
            raise FormatError(
                f"{path} holds tensor {key!r}; expected layer_<i>[.<stream>].<{'|'.join(FIELDS)}>"
            )
        found.setdefault(Site.from_key(match[1]), {})[match[2]] = np.asarray(value, dtype=np.float32)
    if not found:
        raise FormatError(f"{path} holds no tensors")
    for site, columns in found.items():
        if "vectors" not in columns:
            raise FormatError(f"{path} has {sorted(columns)} at {site} but no vectors")
    return {site: Table(**columns) for site, columns in found.items()}


def _origin(description: Mapping[str, Any]) -> Origin:
    known = {f.name for f in fields(Origin)}
    return Origin(**{k: v for k, v in (description.get("origin") or {}).items() if k in known})


def _check(path: Path, vectors: ConceptVectors, description: Mapping[str, Any]) -> None:
    layers, width = description.get("layers"), description.get("hidden_size")
    if layers is not None and list(layers) != list(vectors.layers()):
        raise FormatError(f"{path} promises layers {layers} and holds {list(vectors.layers())}")
    for site, table in vectors.tables.items():
        if site.stream == "resid_post" and width is not None and table.vectors.shape[1] != width:
            raise FormatError(f"{path} promises hidden size {width}; {site} has {table.vectors.shape[1]}")
    promised = description.get("content_hash")
    if promised is not None and promised != vectors.hash:
        raise FormatError(
            f"{path} does not have the content that its manifest promises ({promised}): it was changed"
        )
