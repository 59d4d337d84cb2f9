"""What all foreign layouts share: the two names of each layer, and one rule that turns rows into `ConceptVectors`.

Layer numbers are this field's most repeated bug, so they are converted here and nowhere else. A number N means
either what *leaves* 0-based block N ("output": repeng, llama.cpp, steering-vectors, assistant-axis) or what *enters*
it ("input": Hugging Face's `hidden_states[N]`, persona vectors, refusal directions), which is what leaves block
N - 1. A file keeps, in `origin.parameters["source"]`, what its layers were called at home.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors, Direction, Origin
from trimtab.errors import FormatError, InputError, UnknownName
from trimtab.formats import FormatWarning
from trimtab.sites import Site

CONVENTIONS = {
    "output": "layer N is what leaves 0-based block N",
    "input": "layer N is what enters block N, hidden_states[N]",
}


def site_of(layer: int, convention: str) -> Site:
    """Our site of a foreign layer number; what enters block 0, the embeddings, is its `resid_pre`."""
    if convention not in CONVENTIONS:
        raise UnknownName.of("convention", convention, CONVENTIONS)
    if layer < 0:
        raise InputError(
            f"layer {layer} counts from the end, which a file of one layer cannot resolve; give N >= 0"
        )
    if convention == "output":
        return Site(layer)
    return Site(layer - 1) if layer else Site(0, "resid_pre")


@dataclass(frozen=True)
class Row:
    """One vector [width] of a foreign file: where it acts, and what its layer is called there."""

    site: Site
    theirs: str
    vector: np.ndarray


def assemble(
    name: str, rows: list[Row], format: str, file: str, origin: Mapping[str, Any] | None = None
) -> ConceptVectors:
    """One concept from raw rows. Rows of zeros say nothing: they are left out and named; only zeros are an error.

    `origin` are fields of `Origin`; their `parameters` are kept beside the names of the layers.
    """
    if not rows:
        raise FormatError(f"{file} holds no vectors")
    widths = {r.theirs: r.vector.shape for r in rows}
    if len(set(widths.values())) > 1 or any(len(shape) != 1 for shape in widths.values()):
        raise FormatError(f"{file}: every layer holds one vector of the same width; here: {widths}")
    for row in rows:
        if not np.isfinite(row.vector).all():
            raise FormatError(f"{file}: {row.theirs} is not finite")
    kept = [r for r in rows if np.any(r.vector)]
    if not kept:
        raise FormatError(
            f"{file}: every vector is zero. Where vectors are means over filtered responses, no response passed the "
            "filter: choose another key"
        )
    if len(kept) < len(rows):
        empty = ", ".join(r.theirs for r in rows if not np.any(r.vector))
        warnings.warn(f"{file}: left out {empty}: only zeros", FormatWarning, stacklevel=2)
    known = dict(origin or {})
    source = {"file": file, "format": format, "layers": {r.site.key: r.theirs for r in kept}}
    known["parameters"] = {**known.get("parameters", {}), "source": source}
    directions = [Direction.from_raw(name, r.site, r.vector) for r in kept]
    return ConceptVectors.from_directions(directions, origin=Origin(**known))


def layer_names(vectors: ConceptVectors) -> dict[Site, str]:
    """What each site was called at home, "direction.3 of happy.gguf"; empty for files of our own making."""
    source = vectors.origin.parameters.get("source")
    if not isinstance(source, Mapping) or not isinstance(source.get("layers"), Mapping):
        return {}
    return {
        s: f"{source['layers'][s.key]} of {source.get('file')}"
        for s in vectors.sites
        if s.key in source["layers"]
    }


def stack_rows(stack: np.ndarray, convention: str, file: str, what: str) -> list[Row]:
    """Rows of [layers, width]; with "input" row 0 is the embeddings, which no block puts out: dropped, and said."""
    if stack.ndim != 2:
        raise FormatError(f"{file}: {what} has shape {list(stack.shape)}; expected [layers, width]")
    rows = [Row(site_of(n, convention), f"{what} row {n}", stack[n]) for n in range(len(stack))]
    if convention == "input":
        warnings.warn(
            f"{file}: dropped row 0 of {what} (the embeddings); row N is the output of block N - 1. If the file was "
            f"made from hidden_states, its last row was read after the final norm",
            FormatWarning,
            stacklevel=3,
        )
        rows = rows[1:]
    return rows
