"""Engines with one mistake each, of kinds that have shipped in this field. The contract must catch every one.

This file is the register; `broken_edits` breaks how states are edited, `broken_engines` everything around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engines.oracles import LoopOracle
from engines.subjects import Subject
from trimtab.engines.reference import ReferenceEngine
from trimtab.engines.reference.forward import Pass


@dataclass(frozen=True)
class Broken:
    """A broken engine, and the clauses that must name its mistake."""

    engine: type[ReferenceEngine]
    clauses: tuple[str, ...]

    def subject(self) -> Subject:
        """The engine in the reference's place, with a healthy oracle."""
        engine = self.engine.load()
        return Subject(
            "reference",
            engine,
            LoopOracle(engine.weights),
            chunked=lambda n: self.engine.load(chunk=n),
            forwards=lambda: engine.forwards,
        )


BROKEN: dict[str, Broken] = {}


def broken(*clauses: str) -> Any:
    """Register an engine, or a pass that a plain engine then runs, under its class name."""

    def register(cls: type) -> type:
        engine = cls
        if issubclass(cls, Pass):
            engine = type(cls.__name__, (ReferenceEngine,), {"passes": cls})
        BROKEN[cls.__name__] = Broken(engine, clauses)
        return cls

    return register
