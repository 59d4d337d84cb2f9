"""`.pt` layouts that hold directions themselves: one vector, a vector per layer, a trained vector in its folder.

* One vector [width] (refusal directions, arXiv 2406.11717): its layer is not inside. `direction_metadata.json`
  beside it says `{"pos", "layer"}`, where the layer is the block that the state *enters*.
* A stack [rows, width]: persona vectors (arXiv 2507.21509) are [n_layers + 1, width], row L what enters block L, with
  row 0 the embeddings; the assistant axis is [n_layers, width], row L what leaves block L. A tensor alone does not say
  which, so only the published file names are believed.
* `steering_vector.pt` with `steering_config.json` (chatspace): added to what leaves block `target_layer`; later files
  hold `layer_vectors {block: vector}`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.errors import FormatError, InputError
from trimtab.formats import FormatWarning
from trimtab.formats.foreign import CONVENTIONS, Row, assemble, site_of, stack_rows
from trimtab.formats.pt import Options, concept_of
from trimtab.sites import Site

#: Endings of persona-vector files, whose rows are hidden_states.
PERSONA = ("_response_avg_diff", "_prompt_avg_diff", "_prompt_last_diff")
#: Names of assistant-axis files, whose rows are block outputs.
AXIS = ("assistant_axis", "axis")


def ask_convention() -> str:
    """The two meanings of a layer number, for messages."""
    return " or ".join(f"convention={name!r} ({words})" for name, words in CONVENTIONS.items())


def metadata_beside(path: Path, names: tuple[str, ...]) -> dict[str, Any] | None:
    """The first JSON object of these names in the file's folder."""
    for place in (path.with_name(n) for n in names):
        if place.is_file():
            try:
                found = json.loads(place.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise FormatError(f"{place} beside {path.name} is not JSON: {error}") from error
            if not isinstance(found, dict):
                raise FormatError(f"{place} beside {path.name} does not hold an object")
            return found
    return None


class OneVector:
    """A tensor [width] or [1, width]."""

    takes = ("layer", "convention")
    what = "one vector"

    def claims(self, content: Any, path: Path) -> bool:
        return isinstance(content, np.ndarray) and (
            content.ndim == 1 or (content.ndim == 2 and len(content) == 1)
        )

    def load(self, content: np.ndarray, path: Path, options: Options) -> ConceptVectors:
        beside = metadata_beside(path, ("direction_metadata.json", f"{path.stem}_metadata.json"))
        layer, convention = options.layer, options.convention
        if beside is not None and isinstance(beside.get("layer"), int):
            if layer not in (None, beside["layer"]):
                raise InputError(
                    f"{path.name}: layer={layer}, but the metadata beside it say layer {beside['layer']}"
                )
            layer = beside["layer"]
            convention = convention or ("input" if "pos" in beside else None)
        lacking = " and ".join(
            said for said, value in (("layer=N", layer), (ask_convention(), convention)) if value is None
        )
        if layer is None or convention is None:
            raise InputError(
                f"{path.name} holds one vector of {content.size} numbers and does not say where it lives: "
                f"give {lacking}"
            )
        vector, name = content.reshape(-1), concept_of(path)
        known = {} if beside is None else {"parameters": {"pos": beside.get("pos")}}
        return assemble(
            name,
            [Row(site_of(layer, convention), f"layer {layer} ({convention})", vector)],
            "pt",
            path.name,
            known,
        )


class Stack:
    """A tensor [rows, width]."""

    takes = ("convention",)
    what = "a stack of one vector per layer"

    def claims(self, content: Any, path: Path) -> bool:
        return isinstance(content, np.ndarray) and content.ndim == 2 and len(content) > 1

    def load(self, content: np.ndarray, path: Path, options: Options) -> ConceptVectors:
        persona = path.stem.endswith(PERSONA)
        convention = options.convention or ("input" if persona else "output" if path.stem in AXIS else None)
        if convention is None:
            raise InputError(
                f"{path.name} holds {len(content)} rows and does not say which layers they are: give {ask_convention()}"
            )
        rows = stack_rows(content, convention, path.name, "tensor")
        known: dict[str, Any] = {"n_layers": len(rows)}
        if persona:
            known["method"] = path.stem.removeprefix(concept_of(path, PERSONA) + "_")
        return assemble(concept_of(path, PERSONA), rows, "pt", path.name, known)


class LayerDict:
    """A dictionary {layer number: vector}."""

    takes = ("convention",)
    what = "a dictionary of one vector per layer"

    def claims(self, content: Any, path: Path) -> bool:
        return _is_layers(content)

    def load(self, content: Mapping[Any, np.ndarray], path: Path, options: Options) -> ConceptVectors:
        if options.convention is None:
            raise InputError(
                f"{path.name} numbers its layers {sorted(int(k) for k in content)} and does not say what the numbers "
                f"mean: give {ask_convention()}"
            )
        return assemble(concept_of(path), _layer_rows(content, options.convention), "pt", path.name)


def _is_layers(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(str(k).isdecimal() and isinstance(v, np.ndarray) for k, v in content.items())
    )


def _layer_rows(content: Mapping[Any, np.ndarray], convention: str) -> list[Row]:
    return [Row(site_of(int(k), convention), f"layer {k}", v.reshape(-1)) for k, v in content.items()]


class SteeringFolder:
    """A vector trained by chatspace, named after its folder."""

    takes = ("layer",)
    what = "a trained steering vector"

    def claims(self, content: Any, path: Path) -> bool:
        return isinstance(content, Mapping) and bool({"steering_vector", "layer_vectors"} & set(content))

    def load(self, content: Mapping[str, Any], path: Path, options: Options) -> ConceptVectors:
        config = metadata_beside(path, ("steering_config.json",)) or {}
        known = {
            "model": config.get("model_name"),
            "method": "learned",
            "parameters": {k: v for k, v in config.items() if k != "model_name"},
        }
        left = [k for k in ("projection_caps", "ablations") if content.get(k)]
        layers = content.get("layer_vectors")
        if not layers and not isinstance(content.get("steering_vector"), np.ndarray):
            raise FormatError(
                f"{path} holds no vector to add{'; only ' + ' and '.join(left) if left else ''}"
            )
        if left:
            warnings.warn(
                f"{path.name}: left out its {' and '.join(left)}: edits, which belong in a plan, not in a vector file",
                FormatWarning,
                stacklevel=3,
            )
        name = path.parent.resolve().name if path.stem == "steering_vector" else path.stem
        if layers:
            if options.layer is not None:
                raise InputError(f"{path.name} names its own layers and takes no layer=")
            if not _is_layers(layers):
                raise FormatError(f"{path.name}: layer_vectors is not a dictionary {{block: vector}}")
            return assemble(name, _layer_rows(layers, "output"), "pt", path.name, known)
        return assemble(name, [self._row(content, path, config, options)], "pt", path.name, known)

    def _row(
        self, content: Mapping[str, Any], path: Path, config: Mapping[str, Any], options: Options
    ) -> Row:
        target = config.get("target_layer")
        if not isinstance(target, int):
            target = options.layer
        elif options.layer not in (None, target):
            raise InputError(f"{path.name}: layer={options.layer}, but steering_config.json says {target}")
        if target is None:
            raise InputError(
                f"{path.name} does not say its layer, and no steering_config.json with target_layer lies beside it: "
                "give layer=N, the 0-based block whose output it is added to"
            )
        return Row(Site(target), f"target_layer {target}", content["steering_vector"].reshape(-1))
