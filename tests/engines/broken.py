"""Engines with one mistake each, of kinds that have shipped in this field. The contract must catch every one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from engines.oracles import LoopOracle
from engines.subjects import Subject

from trimtab.engines.base import CaptureItem
from trimtab.engines.reference import ReferenceEngine
from trimtab.engines.reference.forward import Part, Pass, Track, View, rms
from trimtab.engines.requests import Event, PlanLike, Request
from trimtab.errors import UnknownName
from trimtab.interventions import edit
from trimtab.plans import EMPTY
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlacement, ResolvedPlan
from trimtab.sites import Site


@dataclass(frozen=True)
class Broken:
    """A broken engine, and the clauses that must name its mistake."""

    engine: type[ReferenceEngine]
    clauses: tuple[str, ...]

    def subject(self) -> Subject:
        """The engine in the reference's place, with a healthy oracle."""
        engine = self.engine.load()
        return Subject("reference", engine, LoopOracle(engine.weights), forwards=lambda: engine.forwards)


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


def moved(plan: ResolvedPlan, **changes: Any) -> ResolvedPlan:
    """The plan with some fields of every placement replaced."""
    return ResolvedPlan(tuple(replace(p, **changes) for p in plan.placements), plan.vectors)


# --- where and when -------------------------------------------------------------------------------------------


@broken("add_moves_one_layer_by_the_vector", "captures_are_the_oracles")
class SteersTheWrongLayer(Pass):
    """Off by one: what is placed after block l acts after block l - 1 (block 0 stays)."""

    def edit(self, site: Site, states: np.ndarray) -> np.ndarray:
        if site.stream != "resid_post":
            return super().edit(site, states)
        for part in self.parts:
            for p in part.track.plan.effective:
                if max(0, p.site.layer - 1) == site.layer and p.site.stream == site.stream:
                    states = states.copy()
                    states[part.rows] = self.apply(part, p, states[part.rows])
        return states

    def open(self, part: Part, gate: Any, vectors: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.ones(part.stop - part.start, dtype=bool)


@broken("only_addressed_positions_move", "cached_is_the_full_forward", "every_sample_is_steered")
class ForgetsDecodeSteps(Pass):
    """Steers the prompt and no token that is generated from a cache."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        return h if part.start > 0 else super().apply(part, p, h)


@broken("only_addressed_positions_move", "add_moves_one_layer_by_the_vector", "cached_is_the_full_forward")
class SteersOnlyDecodeSteps(Pass):
    """The prompt goes through unsteered, as where a hook is only on the decode path."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        return h if part.stop - part.start > 1 else super().apply(part, p, h)


@broken("batchmates_do_not_matter", "batches_of_captures_and_scores")
class LeaksToABatchmate(Pass):
    """One hook for the batch: the first steered row's plan acts on every row."""

    def edit(self, site: Site, states: np.ndarray) -> np.ndarray:
        plans = [p.track.plan for p in self.parts if p.track.plan]
        for part in self.parts if plans else ():
            part.track.plan = plans[0]
        return super().edit(site, states)


@broken("deltas_follow_absolute_positions", "batchmates_do_not_matter")
class CountsColumnsAsPositions(Pass):
    """Indexes a table by the column of a left-padded batch."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        if p.table_start is None:
            return super().apply(part, p, h)
        padding = max(x.stop for x in self.parts) - part.stop
        return super().apply(part, replace(p, table_start=max(0, p.table_start - padding)), h)


# --- what the edit is -----------------------------------------------------------------------------------------


@broken("add_moves_one_layer_by_the_vector", "strengths_are_totals_over_layers")
class LosesTheScale(Pass):
    """Normalises the displacement away: every `Add` moves by 1."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        if p.coefficients.adds and p.table_start is None:
            p = replace(p, coefficients=replace(p.coefficients, shift=np.sign(p.coefficients.shift)))
        return super().apply(part, p, h)


@broken("gates_choose_tokens", "every_operator_is_the_oracles")
class IgnoresGates(Pass):
    """Acts on every addressed token, whatever its gate says."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        return super().apply(part, replace(p, gate=None), h)


@broken("gates_choose_tokens")
class GatesAfterTheEdits(Pass):
    """A gate that should read before its site's edits reads after them."""

    def open(self, part: Part, gate: Any, vectors: Mapping[str, np.ndarray]) -> np.ndarray:
        view = (gate.site, "after")
        return super().open(part, replace(gate, at="after") if view in self.seen else gate, vectors)

    def show(self, view: View, states: np.ndarray) -> None:
        self.seen[view] = states


@broken("edits_act_in_plan_order", "every_operator_is_the_oracles")
class ActsInReverseOrder(Pass):
    """The last placement at a site acts first."""

    def __init__(self, weights: Any, parts: Sequence[Part], watch: Any = ()) -> None:
        for part in parts:
            plan = part.track.plan
            part.track.plan = ResolvedPlan(plan.placements[::-1], plan.vectors)
        super().__init__(weights, parts, watch)

    def run(self, deepest: int | None = None) -> None:
        super().run(deepest)
        for part in self.parts:  # turned back, or every second step would be right
            plan = part.track.plan
            part.track.plan = ResolvedPlan(plan.placements[::-1], plan.vectors)


@broken("relative_scales_with_the_state", "every_operator_is_the_oracles")
class IgnoresRelative(Pass):
    """Takes a multiple of the norm for a displacement."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        return super().apply(part, replace(p, relative=False), h)


@broken("renormalise_keeps_the_norm", "every_operator_is_the_oracles")
class IgnoresRenormalise(Pass):
    """Leaves the longer state as it is."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        return super().apply(part, replace(p, renormalise=False), h)


@broken("cap_holds_its_bounds", "renormalise_keeps_the_norm")
class RoundsWhatItDoesNotTouch(Pass):
    """Rebuilds every addressed state from its parts, so that untouched tokens lose their last bits."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        got = super().apply(part, p, h)
        return got.astype(np.float16).astype(np.float64) if p.site.stream == "resid_post" else got


@broken("scaled_is_a_share_of_the_change", "every_operator_is_the_oracles")
class IgnoresStrength(Pass):
    """`scaled` reaches `Add` alone."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        return super().apply(part, replace(p, coefficients=replace(p.coefficients, strength=1.0)), h)


@broken("every_stream_can_be_steered", "captures_are_the_oracles")
class TakesOForAttnOut(Pass):
    """Takes the projection's output for what the branch adds, forgetting the scale between them."""

    def visit(self, layer: int, stream: str, states: np.ndarray) -> np.ndarray:
        if stream != "attn_out":
            return super().visit(layer, stream, states)
        scale = self.weights.blocks[layer].attn_scale
        return super().visit(layer, stream, states / scale) * scale


# --- what is captured and read --------------------------------------------------------------------------------


@broken("captures_are_the_oracles", "add_moves_one_layer_by_the_vector")
class CapturesAfterTheNorm(Pass):
    """Reads the last block as `hidden_states[-1]`, which has gone through the final norm."""

    def show(self, view: View, states: np.ndarray) -> None:
        site, _ = view
        if site.stream == "resid_post" and site.layer == len(self.weights.blocks) - 1:
            states = rms(states, self.weights.norm)
        super().show(view, states)


@broken("captures_are_the_oracles", "captures_are_exactly_what_was_asked")
class DropsBlockZero(ReferenceEngine):
    """Takes layer 0 for "no layer": its states never come back."""

    def _capture(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
    ) -> list[dict[Site, np.ndarray]]:
        found = super()._capture(items, sites, at)
        return [{s: v for s, v in item.items() if s.layer} for item in found]


@broken("captures_while_generating_cover_what_was_processed")
class DropsBlockZeroWhileGenerating(ReferenceEngine):
    """The same in the captures of a generation."""

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        for event in super()._iterate(requests):
            if event.sample is None or event.sample.capture is None:
                yield event
                continue
            capture = event.sample.capture
            kept = replace(capture, values={s: v for s, v in capture.values.items() if s.layer})
            yield replace(event, sample=replace(event.sample, capture=kept))


@broken("captures_are_exactly_what_was_asked", "captures_are_the_oracles")
class ReturnsFewerRows(ReferenceEngine):
    """Loses the first row, as where the first token is skipped as a sink."""

    def _capture(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
    ) -> list[dict[Site, np.ndarray]]:
        return [{s: v[1:] for s, v in item.items()} for item in super()._capture(items, sites, at)]


@broken("captures_are_the_oracles", "only_addressed_positions_move")
class CapturesBeforeInsteadOfAfter(Pass):
    """Shows the state of before the edits under both names."""

    def visit(self, layer: int, stream: str, states: np.ndarray) -> np.ndarray:
        after = super().visit(layer, stream, states)
        self.show((Site(layer, stream), "after"), states)
        return after


@broken("readings_are_captures_times_rows")
class ReadsBeforeInsteadOfAfter(ReferenceEngine):
    """Readings of before the edits, whatever was asked for."""

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        def early(readout: Readout | None) -> Readout | None:
            return None if readout is None else replace(readout, at="before")

        yield from super()._iterate([replace(r, readout=early(r.readout)) for r in requests])


# --- samples, scores and refusals -----------------------------------------------------------------------------


@broken("every_sample_is_steered", "batchmates_do_not_matter")
class SteersTheFirstSampleOnly(ReferenceEngine):
    """Copies of a request lose its plan."""

    def _forward(self, tracks: Sequence[Track], views: set[View], deepest: int | None = None) -> Pass:
        first: dict[int, Track] = {}
        for track in tracks:
            kept = first.setdefault(id(track.plan), track)
            if kept is not track and track.plan:
                track.plan = EMPTY
        return super()._forward(tracks, views, deepest)


@broken("seeds_reproduce_in_any_batch", "batchmates_do_not_matter")
class SharesOneRandomStream(ReferenceEngine):
    """One generator for the batch: what a seeded request gets depends on who came before it."""

    shared: ClassVar[np.random.Generator]

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        from trimtab.engines.reference import runs

        fresh, one = runs.generator, np.random.default_rng(0)
        runs.generator = lambda sampling, index: one
        try:
            yield from super()._iterate(requests)
        finally:
            runs.generator = fresh


@broken("distributions_are_the_oracles", "cached_is_the_full_forward")
class ScoresPlain(ReferenceEngine):
    """Scores without the plan."""

    def _score(self, items: Sequence[tuple[Prompt, int, ResolvedPlan, str]]) -> Any:
        return super()._score([(p, first, EMPTY, wanted) for p, first, _, wanted in items])


@broken("bad_requests_are_refused_before_running", "library_names_are_their_vectors")
class IgnoresAnUnknownVector(ReferenceEngine):
    """Serves a plan whose vector it does not have as if there were none."""

    def resolve(self, plan: PlanLike, prompt: Prompt) -> ResolvedPlan:
        try:
            return super().resolve(plan, prompt)
        except UnknownName:
            return EMPTY


@broken("bad_requests_are_refused_before_running")
class RefusesTooLate(ReferenceEngine):
    """Runs the good requests of a batch before it looks at the bad one."""

    def generate(self, requests: Any) -> Any:
        many = [requests] if isinstance(requests, Request) else list(requests)
        return [super(RefusesTooLate, self).generate(r)[0] for r in many]


@broken("receipts_say_what_was_applied")
class StampsEveryToken(ReferenceEngine):
    """The receipt counts all tokens as steered, whatever the plan addresses."""

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        for event in super()._iterate(requests):
            if event.sample is not None:
                applied = replace(event.sample.applied, tokens_steered=999)
                event = replace(event, sample=replace(event.sample, applied=applied))
            yield event


@broken("stop_strings_end_the_text")
class LeaksTheStopString(ReferenceEngine):
    """Streams text at once, so that the beginning of a stop string is already out when it is complete."""

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        for event in super()._iterate(requests):
            yield event if event.token is None else replace(event, text=self.decode([event.token]))


@broken("steered_is_the_default_plan")
class ForgetsTheDefaultPlan(ReferenceEngine):
    """`steered` reaches generation only while there is no plan object at all: an empty plan is taken for none."""

    def resolve(self, plan: PlanLike, prompt: Prompt) -> ResolvedPlan:
        return super().resolve(plan or None, prompt)


def kernel_without_clamp(part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
    """An edit that knows gains and shifts, and no bounds."""
    row = replace(p.coefficients, low=-np.inf, high=np.inf)
    return edit(h, part.track.plan.vectors[p.vector], row)


@broken("cap_holds_its_bounds", "pin_sets_the_coordinate", "every_operator_is_the_oracles")
class KnowsNoBounds(Pass):
    """Caps and pins do nothing."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        if p.coefficients.adds or p.table_start is not None:
            return super().apply(part, p, h)
        return kernel_without_clamp(part, p, h)
