"""Samples of the reference engine that run together. Its passes lay tracks end to end, so that a newcomer's prompt
simply runs with the next token of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trimtab.engines.joining import Part, Place
from trimtab.engines.reference.forward import log_probabilities
from trimtab.engines.reference.runs import Run
from trimtab.engines.requests import Event

if TYPE_CHECKING:
    from trimtab.engines.reference.engine import ReferenceEngine


class Batch(Part):
    """Some runs; those that have ended are dropped."""

    def __init__(self, engine: ReferenceEngine, places: Sequence[Place]) -> None:
        self.engine, self.runs = engine, [Run.of(*place) for place in places]

    def prefill(self) -> bool:
        """Nothing to do before the first step."""
        return True

    def absorb(self, other: Batch) -> None:
        """Run on with the other's runs, too."""
        self.runs += other.runs

    def step(self) -> Iterator[Event]:
        """The next chunk of every track, and a token where that was its last one."""
        runs = self.runs = self._alive()
        step = self.engine._forward([r.track for r in runs], {v for r in runs for v in r.views})
        for run, part in zip(runs, step.parts, strict=True):
            run.keep({view: step.seen[view][part.rows] for view in run.views}, part.start)
            if part.stop == len(run.track.tokens):
                yield run.advance(log_probabilities(self.engine.weights, step.last[part.rows][-1]))
            if run.finish is not None:
                yield Event(run.request, run.index, text=run.tail, sample=run.sample())

    def leave(self, key: int) -> None:
        """Stop the runs of a request."""
        self.runs = [r for r in self.runs if r.request != key]

    def keys(self) -> list[int]:
        """The requests of those that run."""
        return [r.request for r in self._alive()]

    def _alive(self) -> list[Run]:
        return [r for r in self.runs if r.finish is None]
