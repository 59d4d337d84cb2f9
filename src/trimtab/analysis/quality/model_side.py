"""What the model has to give to a report, asked once: neutral states, what heads and neurons of a layer write, and what
its neurons read.

One layer's matrices are held at a time (a W_down of 4096 x 14336 is a quarter of a gigabyte), so ask layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trimtab.analysis.quality.background import Neutral, neutral_states
from trimtab.analysis.quality.neurons import Neurons
from trimtab.analysis.quality.readers import reads
from trimtab.analysis.quality.study import FOUND, NO_MODEL, T
from trimtab.analysis.quality.writers import written
from trimtab.engines.base import Engine
from trimtab.errors import InputError, Unsupported
from trimtab.sites import Site


class ModelSide:
    """Refusals are remembered and raised again; without an engine everything is refused."""

    def __init__(self, engine: Engine | None, sites: Sequence[Site], seed: int) -> None:
        self._given, self.sites, self.seed = engine, sites, seed
        self._known: dict[Any, Any] = {}
        self._layer: int | None = None

    @property
    def engine(self) -> Engine:
        """The engine, or the refusal."""
        if self._given is None:
            raise InputError(NO_MODEL)
        return self._given

    def _once(self, key: Any, build: Callable[[], T]) -> T:
        if key not in self._known:
            try:
                self._known[key] = build()
            except FOUND as error:
                self._known[key] = error
        if isinstance(found := self._known[key], Exception):
            raise found
        return found

    def _at(self, layer: int, what: str, build: Callable[[], T]) -> T:
        """As `_once`, for one layer at a time."""
        if layer != self._layer:
            self._known = {k: v for k, v in self._known.items() if not isinstance(k, tuple)}
            self._layer = layer
        return self._once((layer, what), build)

    def output(self, layer: int) -> np.ndarray:
        """What the heads write: W_O [hidden, H * d_h]."""
        engine = self.engine
        return self._at(layer, "o", lambda: written(engine, layer, "o"))

    def neurons(self, layer: int) -> Neurons:
        """What the neurons write."""
        engine = self.engine
        return self._at(layer, "down", lambda: Neurons.of(written(engine, layer, "down"), self.seed))

    def readers(self, layer: int, projection: str) -> Neurons:
        """What the neurons read by "gate" or "up"."""
        engine = self.engine
        return self._at(layer, projection, lambda: Neurons.of(reads(engine, layer, projection), self.seed))

    def neutral(self, site: Site) -> Neutral:
        """Components of neutral text at a site."""
        engine = self.engine
        return self._once("neutral", lambda: neutral_states(engine, self.sites))[site]

    def heads(self, layer: int) -> int:
        """How many query heads there are; refuses layers whose mixer is not proven attention (it then has no "v")."""
        info = self.engine.info
        if info.n_heads is None:
            raise Unsupported(f"{info.id} does not say how many heads it has")
        if not {Site(layer, "head_out"), Site(layer, "v")} <= info.widths.keys():
            raise Unsupported(
                f"unsupported: layer {layer} has no attention heads that could be proved (linear attention, state "
                "space, or projections that could not be told apart)"
            )
        return info.n_heads
