"""Mistakes in how a state is edited: where, when, how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engines.broken import broken
from trimtab.engines.reference.forward import Part, Pass, View
from trimtab.interventions import edit
from trimtab.resolved import ResolvedPlacement, ResolvedPlan
from trimtab.sites import Site

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


@broken("chunks_do_not_matter")
class RestartsPositionsInEveryChunk(Pass):
    """Takes the first token of each chunk for position 0."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        if part.stop - part.start == 1 and part.stop == len(part.track.tokens):
            return super().apply(part, p, h)  # a decode step
        return super().apply(replace(part, start=0, stop=part.stop - part.start), p, h)


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


@broken("empty_plan_is_plain")
class RunsThePlainThroughTheKernel(Pass):
    """Recomputes the state also where an operator can change nothing, and so loses its last bits."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        u = part.track.plan.vectors[p.vector].astype(np.float64)
        got = super().apply(part, p, h)
        if p.table_start is not None or len(u) != h.shape[1]:
            return got
        along = (got.astype(np.float32) @ u)[:, None] * u
        return along + (got.astype(np.float32) - along)


@broken("ablate_keeps_a_share", "every_operator_is_the_oracles")
class AblatesAlways(Pass):
    """Removes the direction whatever share was to be kept."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        if p.coefficients.gain != 1.0:
            p = replace(p, coefficients=replace(p.coefficients, gain=0.0))
        return super().apply(part, p, h)


@broken("every_stream_can_be_steered", "captures_are_the_oracles")
class TakesOForAttnOut(Pass):
    """Takes the projection's output for what the branch adds, forgetting the scale between them."""

    def visit(self, layer: int, stream: str, states: np.ndarray) -> np.ndarray:
        if stream != "attn_out":
            return super().visit(layer, stream, states)
        scale = self.weights.blocks[layer].attn_scale
        return super().visit(layer, stream, states / scale) * scale


@broken("cap_holds_its_bounds", "pin_sets_the_coordinate", "every_operator_is_the_oracles")
class KnowsNoBounds(Pass):
    """An edit of gains and shifts only: caps and pins do nothing."""

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        if p.coefficients.adds or p.table_start is not None:
            return super().apply(part, p, h)
        row = replace(p.coefficients, low=-np.inf, high=np.inf)
        return edit(h, part.track.plan.vectors[p.vector], row)
