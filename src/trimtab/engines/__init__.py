"""Engines run models under plans. Each is one lazy line here; importing this package imports none of them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trimtab.errors import UnknownName

if TYPE_CHECKING:
    from trimtab.engines.base import Engine

#: name -> "module:class"
ENGINES: dict[str, str] = {
    "reference": "trimtab.engines.reference:ReferenceEngine",
    "transformers": "trimtab.engines.transformers:TransformersEngine",
    "mlx": "trimtab.engines.mlx:MLXEngine",
    "vllm": "trimtab.engines.vllm.engine:VllmEngine",
    "remote": "trimtab.engines.remote:RemoteEngine",
}
DEFAULT = "transformers"


def engine_class(name: str) -> type[Engine]:
    """The class of a registered engine; imports its module (which names the install line if a package is
    absent).
    """
    if name not in ENGINES:
        raise UnknownName.of("engine", name, ENGINES)
    module, _, attribute = ENGINES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_engine(
    model: str | os.PathLike[str] | Sequence[str], engine: str = DEFAULT, **options: Any
) -> Engine:
    """Load `model` (a local directory, a hub id, or "embedded"; for the remote engine a server's address, or several)
    on an engine; options go to its `load`.
    """
    if str(model) == "embedded" and engine != "remote":
        from trimtab import embedded

        model = embedded.MODEL
        options.setdefault("id", "embedded")
    return engine_class(engine).load(model, **options)  # type: ignore[attr-defined]
