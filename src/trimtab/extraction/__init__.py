"""Extraction methods: evidence in, direction out. One file per method, one lazy line here.

A new method is a frozen dataclass of its knobs that derives from `method.Method`; the contract test, the
command line's choices and the documentation follow from the registry.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from trimtab.errors import UnknownName

if TYPE_CHECKING:
    from trimtab.extraction.method import Method

#: name -> "module:class"
METHODS: dict[str, str] = {
    "fisher": "trimtab.extraction.fisher:Fisher",
    "grad_mean": "trimtab.extraction.grad_mean:GradMean",
    "mean_diff": "trimtab.extraction.mean_diff:MeanDiff",
    "pca_diff": "trimtab.extraction.pca_diff:PcaDiff",
    "pca_diff_uncentered": "trimtab.extraction.pca_diff_uncentered:PcaDiffUncentered",
    "pca_diff_weighted": "trimtab.extraction.pca_diff_weighted:PcaDiffWeighted",
    "random": "trimtab.extraction.random:Random",
    "svd_gradient": "trimtab.extraction.svd_gradient:SvdGradient",
}
DEFAULT = "mean_diff"


def method_class(name: str) -> type[Method]:
    """The class of a registered method."""
    if name not in METHODS:
        raise UnknownName.of("method", name, METHODS)
    module, _, attribute = METHODS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def make(name: str, **knobs: Any) -> Method:
    """A method with its knobs; an unknown knob is an error that names those there are."""
    cls = method_class(name)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for knob in knobs:
        if knob not in known:
            raise UnknownName.of(f"knob of {name}", knob, known)
    return cls(**knobs)
