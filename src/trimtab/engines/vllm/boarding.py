"""What one request of vLLM is to do and bring back, and how its sampling parameters come to say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.engines.requests import CaptureSpec
from trimtab.engines.vllm.ledger import Record
from trimtab.engines.vllm.ticket import KEY, Ticket, plan_json
from trimtab.errors import SteeringLost
from trimtab.prompts import Prompt, Range, resolve_positions
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.vllm.engine import VllmEngine


@dataclass(frozen=True)
class Order:
    """What one request of vLLM is to do and bring back: the plan, the states at `ranges` of `sites`, and a readout."""

    tokens: tuple[int, ...]
    plan: ResolvedPlan
    params: dict[str, Any]
    sites: tuple[Site, ...] = ()
    ranges: tuple[Range, ...] = ()
    at: str = "after"
    readout: Readout | None = None

    @classmethod
    def of(
        cls,
        prompt: Prompt,
        plan: ResolvedPlan,
        params: dict[str, Any],
        capture: CaptureSpec | None,
        readout: Readout | None,
    ) -> Order:
        """Of what a request asks for; without `capture` nothing is captured."""
        if capture is None:
            return cls(prompt.tokens, plan, params, readout=readout)
        ranges = resolve_positions(capture.positions, prompt)
        return cls(prompt.tokens, plan, params, capture.sites, ranges, capture.at, readout)

    @property
    def tells(self) -> bool:
        """Whether the worker has anything to do with it; a plain request is none of its business."""
        return bool(self.plan.effective) or bool(self.sites) or self.readout is not None


def board(engine: VllmEngine, order: Order, key: str, params: Any, held: list[tuple[str, ...]]) -> None:
    """Write an order's ticket into vLLM's sampling parameters, and see that the workers hold what it needs; the names
    that must be released once are put into `held`."""
    held.append(engine.shelf.hold(order.plan.vectors))
    name, last = None, len(order.tokens) - 1
    if order.readout is not None:
        name = engine.shelf.hold_readout(order.readout)
        held.append((name,))
    ticket = Ticket(
        key,
        engine.epoch,
        plan_json(order.plan),
        order.plan.first_position(),
        tuple(s.layer for s in order.sites),
        order.ranges,
        order.at,
        name,
        order.readout.at if order.readout is not None else "after",
        last,
    )
    params.extra_args = {**(params.extra_args or {}), KEY: ticket.to_text()}
    # A cached token is not computed, so its state is not seen; the last one of a prompt always is.
    if order.sites and any(a < last for a, _ in order.ranges):
        params.skip_reading_prefix_cache = True


def check_ended(done: Any) -> None:
    """Raise for a finished output of vLLM whose request was ended with an error."""
    if done.finish_reason == "error":
        why = done.stop_reason or "vLLM does not say why"
        raise SteeringLost(f"the request was not steered as asked, and is withheld: {why}")


def distrust(engine: VllmEngine) -> None:
    """What a lost request wrote to the prefix cache is keyed by its plan, and is not what the plan would have
    written."""
    engine.epoch += 1
    engine.shelf.forget()


def reading_of(engine: VllmEngine, record: Record, readout: Readout, position: int) -> np.ndarray:
    """The calibrated reading [L, C] of the state at a position; waits for it."""
    layers, found = [s.layer for s in readout.sites], []
    engine.ledger.wait(
        record, lambda: bool(found.append(record.reading(layers, position)) or found[-1]), "a reading"
    )
    scores = [
        (p - readout.offset[s]) / readout.scale[s] for s, p in zip(readout.sites, found[-1], strict=True)
    ]
    return np.stack(scores).astype(np.float32)
