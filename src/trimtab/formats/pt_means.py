"""`.pt` layouts of role, trait and persona studies (assistant axis, arXiv 2601.10387): tensors [n_layers, width] of
block outputs under names that say which responses they are the mean of.

`pos_neg`, `pos_neg_50`, `pos_default` and `pos_default_50` are differences, thus directions. `pos_0` … `pos_3`,
`pos_all`, `pos_70` and `pos_40_70` are *mean activations*: a direction only after a baseline, `default_1` of the
`default_vectors.pt` beside the folder, is taken away. Trap: an empty filter was saved as zeros, not left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.errors import FormatError, InputError
from trimtab.formats import torch_file
from trimtab.formats.foreign import assemble, stack_rows
from trimtab.formats.pt import Options, concept_of, pick

DIFFERENCES = ("pos_neg", "pos_neg_50", "pos_default", "pos_default_50")
MEANS = ("pos_0", "pos_1", "pos_2", "pos_3", "pos_all", "pos_70", "pos_40_70")
TRAIT_KEY, ROLE_KEY = "pos_neg_50", "pos_3"
BASELINE, BASELINE_KEY = "default_vectors.pt", "default_1"


class MeansByLabel:
    """A role or trait file: a dictionary of the names above."""

    takes = ("key", "baseline", "baseline_key")
    what = "a role or trait file"

    def claims(self, content: Any, path: Path) -> bool:
        return (
            isinstance(content, Mapping)
            and bool(set(content) & {*DIFFERENCES, *MEANS})
            and any(isinstance(v, np.ndarray) for v in content.values())
        )

    def load(self, content: Mapping[str, Any], path: Path, options: Options) -> ConceptVectors:
        key = options.key or (TRAIT_KEY if set(content) & set(DIFFERENCES) else ROLE_KEY)
        return _direction(pick(content, key, path), key, path, options)


class OneRole:
    """A role file of the assistant-axis pipeline: `{"vector", "type", "role"}`, with `default.pt` beside it."""

    takes = ("baseline", "baseline_key")
    what = "a role vector"

    def claims(self, content: Any, path: Path) -> bool:
        return (
            isinstance(content, Mapping)
            and isinstance(content.get("vector"), np.ndarray)
            and "role" in content
        )

    def load(self, content: Mapping[str, Any], path: Path, options: Options) -> ConceptVectors:
        if content["role"] == "default" and options.baseline is None:
            raise FormatError(
                f"{path} is the mean of the default role: what others are compared with, no direction"
            )
        return _direction(
            content["vector"], str(content.get("type", "vector")), path, options, str(content["role"])
        )


class Persona:
    """A persona file `{"activations", "contrast", "metadata"}`: `contrast` are directions, `activations` means."""

    takes = ("key", "baseline", "baseline_key")
    what = "a persona file"

    def claims(self, content: Any, path: Path) -> bool:
        return isinstance(content, Mapping) and bool({"activations", "contrast"} & set(content))

    def load(self, content: Mapping[str, Any], path: Path, options: Options) -> ConceptVectors:
        contrast, means = (_named(content.get(k), k) for k in ("contrast", "activations"))
        key = options.key or (next(iter(contrast)) if len(contrast) == 1 else None)
        if key is None:
            raise InputError(
                f"{path.name} holds contrasts {', '.join(contrast) or '(none)'} and mean activations "
                f"{', '.join(means) or '(none)'}: choose one with key="
            )
        if key in contrast:
            return _difference(pick(contrast, key, path), key, path, options)
        return _direction(pick({**means, **contrast}, key, path), key, path, options, mean=True)


def _named(found: Any, name: str) -> dict[str, Any]:
    if isinstance(found, Mapping):
        return {str(k): v for k, v in found.items()}
    return {} if found is None else {name: found}


def _direction(
    stack: np.ndarray, key: str, path: Path, options: Options, name: str | None = None, *, mean: bool = False
) -> ConceptVectors:
    """The stack itself where `key` is a difference, else the stack minus its baseline."""
    if key in DIFFERENCES and not mean:
        return _difference(stack, key, path, options)
    place, its_key, baseline = _baseline(path, key, options)
    if baseline.shape != stack.shape:
        raise FormatError(
            f"{path.name} [{key}] is {list(stack.shape)}, its baseline in {place} {list(baseline.shape)}"
        )
    if not np.any(stack):
        raise FormatError(
            f"{path.name}: {key!r} is all zeros: no response passed its filter; choose another key"
        )
    return _assembled(stack - baseline, key, path, name, {"baseline": f"{place.name}[{its_key}]"})


def _difference(stack: np.ndarray, key: str, path: Path, options: Options) -> ConceptVectors:
    if options.baseline is not None or options.baseline_key is not None:
        raise InputError(f"{path.name}: {key!r} is a difference already and takes no baseline=")
    return _assembled(stack, key, path, None, {})


def _assembled(
    stack: np.ndarray, key: str, path: Path, name: str | None, parameters: dict[str, Any]
) -> ConceptVectors:
    rows = stack_rows(stack, "output", path.name, key)
    known = {
        "n_layers": len(rows),
        "method": "role_difference" if parameters else "trait_contrast",
        "parameters": {"key": key, **parameters},
    }
    return assemble(name or concept_of(path), rows, "pt", path.name, known)


def _baseline(path: Path, key: str, options: Options) -> tuple[Path, str, np.ndarray]:
    """The mean that `key` is compared with: a given file, else the one beside the file or its folder."""
    home = path.resolve()
    beside = [home.parent / BASELINE, home.parent.parent / BASELINE, home.with_name("default.pt")]
    place = Path(options.baseline) if options.baseline else next((p for p in beside if p.is_file()), None)
    if place is None or not place.is_file():
        raise InputError(
            f"{path.name}: {key!r} is a mean activation, no direction, and there is no {BASELINE} beside it or its "
            f"folder to compare it with: give baseline=FILE{'' if place is None else f' (no such file: {place})'}"
        )
    found = torch_file.read(place)
    if isinstance(found, np.ndarray):
        return place, "tensor", found
    if isinstance(found, Mapping) and isinstance(found.get("vector"), np.ndarray):
        return place, "vector", found["vector"]
    inner = found.get("activations", found) if isinstance(found, Mapping) else {}
    its_key = options.baseline_key or BASELINE_KEY
    return place, its_key, pick(inner, its_key, place)
