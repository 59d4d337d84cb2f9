"""One step: which rows of the batch are edited, captured and read, found from absolute positions.

A step sees some rows of some requests, `Span`s: a chunk of a prompt, the whole of it, one new token, or tokens computed
again after a preemption. Nothing here asks which of these it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from trimtab.engines.vllm.bank import Bank
from trimtab.engines.vllm.compiling import Segment, compile_edits, rows_of_spans
from trimtab.engines.vllm.edits import Edit, GeneralEdit, Grab, Measure, Stage, states
from trimtab.engines.vllm.judge import Judge
from trimtab.engines.vllm.programs import Stretch
from trimtab.engines.vllm.ticket import Ticket
from trimtab.prompts import Range
from trimtab.resolved import ResolvedPlan


@dataclass(eq=False)
class Tracked:
    """A request that the worker knows: its ticket, the stretches of its plan, the rows [concepts, width] of its readout
    at each layer, and why it is lost, if it is. `judge` judges its rules; `plan` is what acts now, and `reserved` keeps
    the rows of what a rule may switch on."""

    id: str
    ticket: Ticket
    stretches: tuple[Stretch, ...] = ()
    readout: Mapping[int, torch.Tensor] = field(default_factory=dict)
    lost: str = ""
    judge: Judge | None = None
    plan: ResolvedPlan = field(default_factory=ResolvedPlan)
    reserved: tuple[Stretch, ...] = ()


@dataclass(frozen=True)
class Span:
    """Rows [start, stop) of the batch belong to a request, at absolute positions from `position` on."""

    tracked: Tracked
    start: int
    stop: int
    position: int


@dataclass(frozen=True)
class Delivery:
    """Rows [first, first + n) of a grab belong to a request, at the absolute `positions` (half-open, n in all)."""

    span: Span
    grab: Grab
    layer: int
    first: int
    positions: tuple[tuple[int, int], ...]
    readout: str | None = None


@dataclass(eq=False)
class Step:
    """What each layer does, who gets what is looked up, and which layers have been passed. `coming` are the gates that
    the worker before this one has measured, `going` those that the next one needs, both in the same order there."""

    spans: Sequence[Span]
    stages: Mapping[int, Stage]
    deliveries: list[Delivery]
    last: int
    coming: Sequence[Measure] = ()
    going: Sequence[Measure] = ()
    passed: set[int] = field(default_factory=set)
    broken: str = ""
    overflown: list[Span] = field(default_factory=list)

    def visit(self, layer: int, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Do what is due after a layer. An error loses the requests of this step and nobody else."""
        self.passed.add(layer)
        stage = self.stages.get(layer)
        if self.broken or (stage is None and layer != self.last):
            return
        try:
            if stage is not None:
                stage(hidden, residual)
            if layer == self.last:
                self.overflown = overflown(self.spans, hidden, residual)
        except Exception as error:
            self.broken = f"layer {layer}: {type(error).__name__}: {error}"


class Steps:
    """Builds steps. The edits of a step are kept for the next one, because a decoding batch rarely changes.

    `layers` are those of this worker. The edits of all others are compiled too: a gate's site may be in another worker.
    `body` turns the torch form of an edit into that of another backend.
    """

    def __init__(
        self, bank: Bank, layers: frozenset[int], body: Callable[[GeneralEdit], Edit] | None = None
    ) -> None:
        self.bank, self.layers, self.body = bank, layers, body
        self._key: tuple[tuple[int, int, str], ...] | None = None
        self._edits: dict[int, Stage] = {}
        self._coming: list[Measure] = []
        self._going: list[Measure] = []

    def build(self, spans: Sequence[Span]) -> Step:
        """The step of a batch."""
        edits = self._edit(segments_of(spans))
        for measure in self._coming:
            measure.found = None
        looks, deliveries = self._looks(spans)
        stages = {
            layer: Stage(
                [*looks.get((layer, "before"), ()), *kept.before],
                kept.edit,
                [*kept.after, *looks.get((layer, "after"), ())],
            )
            for layer in (edits.keys() & self.layers) | {layer for layer, _ in looks}
            for kept in (edits.get(layer) or Stage(),)
        }
        return Step(spans, stages, deliveries, max(self.layers), self._coming, self._going)

    def _edit(self, segments: list[Segment]) -> dict[int, Stage]:
        key = tuple((s.start, s.stop, s.program.key) for s in segments)
        if key != self._key:
            self._edits = {}
            compile_edits(segments, self.bank, self._edits)
            self._coming, self._going = crossings(self._edits, min(self.layers), max(self.layers))
            for layer in self._edits.keys() & self.layers:
                edit = self._edits[layer].edit
                if self.body is not None and isinstance(edit, GeneralEdit):
                    self._edits[layer].edit = self.body(edit)
            # A program that came and went may hold other rows of the bank when it comes again, and a table moves on.
            self._key = None if any(s.program.moves_with_position for s in segments) else key
        return self._edits

    def forget(self) -> None:
        """Compile anew: rows of the bank may have changed hands."""
        self._key = None

    def _looks(self, spans: Sequence[Span]) -> tuple[dict[tuple[int, str], list[Grab]], list[Delivery]]:
        wanted: dict[tuple[int, str, str | None], list[tuple[Span, list[tuple[int, int]]]]] = {}
        for span in spans:
            ticket, end = span.tracked.ticket, span.position + span.stop - span.start
            if span.tracked.lost:
                continue
            kept = overlaps(ticket.ranges, span.position, end)
            if kept:
                for layer in self.layers.intersection(ticket.capture):
                    wanted.setdefault((layer, ticket.at, None), []).append((span, kept))
            if ticket.readout is not None and end > ticket.reads_from:
                read = [(max(span.position, ticket.reads_from), end)]
                for layer in self.layers.intersection(span.tracked.readout):
                    wanted.setdefault((layer, ticket.reads_at, ticket.readout), []).append((span, read))
        looks: dict[tuple[int, str], list[Grab]] = {}
        deliveries = []
        for (layer, at, readout), members in wanted.items():
            rows = [
                (a - span.position + span.start, b - span.position + span.start)
                for span, kept in members
                for a, b in kept
            ]
            grab, first = Grab(rows_of_spans(rows)), 0
            looks.setdefault((layer, at), []).append(grab)
            for span, kept in members:
                deliveries.append(Delivery(span, grab, layer, first, tuple(kept), readout))
                first += sum(b - a for a, b in kept)
        return looks, deliveries


def crossings(edits: Mapping[int, Stage], first: int, last: int) -> tuple[list[Measure], list[Measure]]:
    """Gates measured before the layers [first, last] and read in or after them, and those measured before the end of
    them and read after it. What goes from one worker is what comes to the next: both compile the same batch."""
    coming, going = [], []
    for layer in sorted(edits):
        edit = edits[layer].edit
        for step in edit.passes if isinstance(edit, GeneralEdit) else ():
            for measure in (gate.measure for gate in step.gates):
                if measure.layer < first <= layer:
                    coming.append(measure)
                if measure.layer <= last < layer:
                    going.append(measure)
    return coming, going


def overflown(spans: Sequence[Span], hidden: torch.Tensor, residual: torch.Tensor | None) -> list[Span]:
    """Requests with a plan whose state after the last layer is not finite. What is not finite stays so in a residual
    stream, so that one look at its end sees every layer; one sum over all rows finds nothing, nearly always.
    """
    steered = [s for s in spans if s.tracked.stretches]
    if not steered:
        return []

    def state(some: Sequence[Span]) -> torch.Tensor:
        found = states(hidden, residual, rows_of_spans([(s.start, s.stop) for s in some]))
        return found.to(hidden.dtype)  # what the next layer makes of the sum

    if torch.isfinite(state(steered).sum(dtype=torch.float32)):
        return []
    return [s for s in steered if not torch.isfinite(state([s])).all()]


def segments_of(spans: Sequence[Span]) -> list[Segment]:
    """The stretches of every request's plan that fall on its rows."""
    found = []
    for span in spans:
        end = span.position + span.stop - span.start
        for stretch in span.tracked.stretches:
            a, b = max(span.position, stretch.start), end if stretch.end is None else min(end, stretch.end)
            if a < b:
                shift = span.start - span.position
                found.append(Segment(a + shift, b + shift, a, stretch.program))
    return found


def overlaps(ranges: Sequence[Range], start: int, end: int) -> list[tuple[int, int]]:
    """The parts of sorted ranges inside [start, end)."""
    parts = ((max(a, start), end if b is None else min(b, end)) for a, b in ranges)
    return [(a, b) for a, b in parts if a < b]
