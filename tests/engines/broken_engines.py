"""Mistakes around the edits: captures, readings, samples, scores, refusals, receipts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from engines.broken import broken
from trimtab.engines.base import CaptureItem
from trimtab.engines.reference import ReferenceEngine
from trimtab.engines.reference.forward import Pass, Track, View, rms
from trimtab.engines.requests import Event, PlanLike, Request
from trimtab.errors import UnknownName
from trimtab.plans import EMPTY
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

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


@broken("evidence_is_the_mean_of_captures", "captures_are_the_oracles")
class ReadsThePreviousToken(ReferenceEngine):
    """Every row is that of the token before."""

    def _capture(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
    ) -> list[dict[Site, np.ndarray]]:
        late = [replace(i, positions=np.maximum(i.positions - 1, 0)) for i in items]
        return super()._capture(late, sites, at)


# --- samples, scores and refusals -----------------------------------------------------------------------------


@broken("every_sample_is_steered")
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


@broken("sampling_filters_hold")
class IgnoresTopK(ReferenceEngine):
    """Draws from the whole vocabulary."""

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        yield from super()._iterate([replace(r, sampling=replace(r.sampling, top_k=0)) for r in requests])


@broken("streams_add_up")
class StreamsTheFirstTokenTwice(ReferenceEngine):
    """Sends a token again after the prompt is done."""

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        for i, event in enumerate(super()._iterate(requests)):
            yield event
            if i == 0:
                yield event


@broken("scores_of_prompts_and_texts")
class BeginsAContinuationAnew(ReferenceEngine):
    """Puts a beginning-of-text token in front of a continuation."""

    def _encode_continuation(self, text: str) -> Sequence[int]:
        return self._encode_text(text).tokens


@broken("chat_renders_the_template")
class DropsTheSystemMessage(ReferenceEngine):
    """Renders the template without the system message."""

    def _encode_messages(self, messages: Sequence[Any], *args: Any) -> Prompt:
        return super()._encode_messages([m for m in messages if m["role"] != "system"], *args)


@broken("bare_text_to_a_chat_model_warns_once")
class WarnsEveryTime(ReferenceEngine):
    """Forgets that it has warned."""

    def _encode_text(self, text: str) -> Prompt:
        self._warned_raw = False
        return super()._encode_text(text)


@broken("async_is_sync")
class LosesThePlanInTheThread(ReferenceEngine):
    """The asynchronous door drops what only the synchronous one passes on."""

    async def agenerate(self, requests: Any) -> Any:
        return await super().agenerate(replace(requests, plan=None))


@broken("streams_can_be_left_and_interleaved")
class LeavesItsPlanBehind(ReferenceEngine):
    """Sets the plan for the whole engine, and takes it off only where a run comes to its end."""

    running: PlanLike = None

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        self.running = requests[0].plan
        yield from super()._iterate(requests)
        self.running = None

    def resolve(self, plan: PlanLike, prompt: Prompt) -> ResolvedPlan:
        return super().resolve(self.running if plan is None else plan, prompt)


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
