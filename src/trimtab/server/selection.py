"""Which rows a request reads, and how its readings are put into an answer."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.errors import InputError, UnknownName
from trimtab.readouts import Readout
from trimtab.server.wire import Layers, ReadoutField
from trimtab.sites import ModelInfo, Site, resolve_layers


@dataclass(frozen=True, eq=False)
class Selection:
    """What one request reads, in which form it wants it back."""

    readout: Readout
    field: ReadoutField

    @property
    def layers(self) -> list[int]:
        return [s.layer for s in self.readout.sites]

    def head(self) -> dict[str, Any]:
        """What the numbers are; said once, with the first of them."""
        return {
            "layers": self.layers,
            "concepts": list(self.readout.concepts),
            "z": self.readout.z,
            "at": self.readout.at,
            "align": self.field.align,
            "encoding": self.field.encoding,
        }

    def part(
        self, rows: Sequence[np.ndarray], first: int, length: int, *, begun: bool, whole: bool = False
    ) -> dict[str, Any]:
        """The readings of the states that emitted the tokens from `first` on, after a prompt of `length`; {} for none,
        unless the answer is `whole`. Until some have `begun`, they say what they are.

        `start` is the first generated token that is covered and `position` the absolute position of its state. Aligned
        as "own", the state that emitted token k is token k - 1's, and the one that emitted token 0 is the prompt's.
        """
        if self.field.align == "own":
            rows, first = (rows[1:], 0) if first == 0 else (rows, first - 1)
        if not rows and not whole:
            return {}
        position = length + first - (self.field.align == "emitting")
        values = self.pack(rows) if rows else {"values": []}
        return {"start": first, "position": position, **({} if begun else self.head()), **values}

    def prompt_part(self, rows: Sequence[np.ndarray]) -> dict[str, Any]:
        """The readings of the prompt's own states."""
        return {"start": 0, "position": 0, **self.head(), "align": "own", **self.pack(rows)}

    def pack(self, rows: Sequence[np.ndarray | None]) -> dict[str, Any]:
        """Scores [layers, concepts] of some tokens, as `values` [tokens][layers][concepts], or with `top_k` the
        highest ones with their `indices` into the concepts. An absent row is null (NaN when packed)."""
        shape = (len(self.readout.sites), len(self.readout.concepts))
        values = np.stack([np.full(shape, np.nan, np.float32) if r is None else r for r in rows])
        out: dict[str, Any] = {}
        if self.field.top_k is not None:
            order = np.argsort(-values, axis=-1, kind="stable")[..., : self.field.top_k]
            values = np.take_along_axis(values, order, axis=-1)
            out["indices"] = order.tolist() if self.field.encoding == "json" else _packed(order, "<u2")
        if self.field.encoding == "float16":
            with np.errstate(over="ignore"):
                return {"shape": list(values.shape), "values": _packed(values, "<f2"), **out}
        if not np.isfinite(values).all():
            listed: Any = [None if r is None else _listed(v) for r, v in zip(rows, values, strict=True)]
        else:
            listed = [_listed(v) for v in values]
        return {"values": listed, **out}


def _packed(array: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=dtype).tobytes()).decode()


def _listed(table: np.ndarray) -> list[list[float | None]]:
    """Seven digits are all that float32 has."""
    return [[float(f"{v:.7g}") if np.isfinite(v) else None for v in row] for row in table.tolist()]


def select(
    field: ReadoutField, library: dict[str, ConceptVectors], default: str | None, info: ModelInfo
) -> Selection:
    """The rows that a request asks for."""
    name = field.vectors or default or (next(iter(library)) if len(library) == 1 else None)
    if name is None:
        raise InputError(
            "this server reads nothing by default: name loaded vectors (readout.vectors), or let the operator set "
            "TRIMTAB_READOUT_VECTORS"
        )
    if name not in library:
        raise UnknownName.of("vector file", name, library, "Load it: POST /v1/vectors/load.")
    vectors = library[name]
    sites = [Site(layer) for layer in chosen_layers(field.layers, vectors, info)]
    readout = Readout.from_vectors(vectors, sites, field.concepts, field.z, field.at)
    readout.check_model(info)
    if field.concepts is not None and len(set(field.concepts)) != len(field.concepts):
        raise InputError("readout.concepts names a concept twice")
    return Selection(readout, field)


def chosen_layers(layers: Layers | None, vectors: ConceptVectors, info: ModelInfo) -> tuple[int, ...]:
    """Without a choice, where the file is read best; "all" is all that the file has."""
    if layers is None:
        return (vectors.read_site(info.n_layers).layer,)
    return vectors.choose_layers(_spec(layers), info.n_layers)


def model_layers(layers: Layers, info: ModelInfo) -> tuple[int, ...]:
    """Layers of the model."""
    return resolve_layers(_spec(layers), info.n_layers)


def _spec(layers: Layers) -> Any:
    """Numbers and words as `resolve_layers` takes them; a list is one spec as well."""
    if isinstance(layers, list):
        if not layers:
            raise InputError("layers is an empty list; name one, or write all")
        return ",".join(str(part) for part in layers)
    return layers
