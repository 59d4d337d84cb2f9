"""Extraction methods: evidence in, direction out. One file per method, one lazy line here.

A new method is a frozen dataclass of its knobs that derives from `method.Method`; the contract test, the
command line's choices and the documentation follow from the registry.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from trimtab.errors import UnknownName
from trimtab.extraction.names import ALIASES, resolve

if TYPE_CHECKING:
    from trimtab.extraction.method import Method

#: name -> "module:class"
METHODS: dict[str, str] = {
    "fisher": "trimtab.extraction.fisher:Fisher",
    "grad_mean": "trimtab.extraction.grad_mean:GradMean",
    "leace": "trimtab.extraction.leace:Leace",
    "logistic": "trimtab.extraction.logistic:Logistic",
    "logistic_l1": "trimtab.extraction.logistic_l1:LogisticL1",
    "mean_diff": "trimtab.extraction.mean_diff:MeanDiff",
    "pca_center": "trimtab.extraction.pca_center:PcaCenter",
    "pca_diff": "trimtab.extraction.pca_diff:PcaDiff",
    "pca_diff_uncentered": "trimtab.extraction.pca_diff_uncentered:PcaDiffUncentered",
    "pca_diff_weighted": "trimtab.extraction.pca_diff_weighted:PcaDiffWeighted",
    "pca_topk": "trimtab.extraction.pca_topk:PcaTopk",
    "persona_response_avg": "trimtab.extraction.persona_response_avg:PersonaResponseAvg",
    "random": "trimtab.extraction.random:Random",
    "ridge": "trimtab.extraction.ridge:Ridge",
    "role_difference": "trimtab.extraction.role_difference:RoleDifference",
    "s_space": "trimtab.extraction.s_space:SSpace",
    "subspace": "trimtab.extraction.subspace:Subspace",
    "svd_gradient": "trimtab.extraction.svd_gradient:SvdGradient",
    "trait_contrast": "trimtab.extraction.trait_contrast:TraitContrast",
}
DEFAULT = "mean_diff"


def method_class(name: str) -> type[Method]:
    """The class of a method, by our name or the field's."""
    ours, _ = resolve(name)
    if ours not in METHODS:
        raise UnknownName.of("method", name, METHODS)
    module, _, attribute = METHODS[ours].partition(":")
    return getattr(importlib.import_module(module), attribute)


def make(name: str, **knobs: Any) -> Method:
    """A method with its knobs; an unknown knob is an error that names those there are.

    The field's names are taken too (`trimtab.extraction.names`); knobs given here win over those that such a
    name brings.
    """
    cls = method_class(name)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for knob in knobs:
        if knob not in known:
            raise UnknownName.of(f"knob of {cls.name}", knob, known)
    return cls(**{**resolve(name)[1], **knobs})


def known_names() -> list[str]:
    """Every fixed spelling that `make` takes: our names and the field's."""
    return sorted({*METHODS, *(a for a, (ours, _) in ALIASES.items() if ours in METHODS)})
