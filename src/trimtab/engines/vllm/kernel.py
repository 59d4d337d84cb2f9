"""The state of one worker: arrays that were sent ahead, requests that are tracked, and the step that runs.

The runner calls `begin` before every forward pass, `fill` when it knows the batch, `harvest` after it, and `finish` for
requests that are gone. Every layer calls `visit` through the custom op. A step without tracked requests costs one test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trimtab.directions import content_hash
from trimtab.engines.vllm.bank import Bank
from trimtab.engines.vllm.edits import Edit, GeneralEdit
from trimtab.engines.vllm.judge import Clause, Judge, judge
from trimtab.engines.vllm.programs import Programs, Stretch
from trimtab.engines.vllm.steps import Span, Step, Steps, Tracked
from trimtab.engines.vllm.ticket import Ticket, ticket_of
from trimtab.errors import InputError
from trimtab.resolved import ResolvedPlan


@dataclass(frozen=True)
class Item:
    """A request in the batch: its rows [start, stop), the absolute position of the first, and its extra arguments."""

    id: str
    start: int
    stop: int
    position: int
    extra_args: Mapping[str, object] | None


#: (key, id, position, count, lost): `count` tokens from `position` on went through every layer, or `lost` says why not.
Report = tuple[str, str, int, int, str]
#: (key, id, layer, readout or "", positions): whose rows an array holds.
Address = tuple[str, str, int, str, tuple[tuple[int, int], ...]]


class Kernel:
    """`layers` are the decoder layers of this worker, of `depth` in all. `send(reports, [(address, rows)])` passes
    results on. `body` is "torch" or "triton"; without it, Triton's on a GPU and torch's elsewhere."""

    def __init__(
        self,
        layers: Iterable[int],
        width: int,
        send: Callable[[list[Report], list[tuple[Address, np.ndarray]]], None],
        *,
        capacity: int = 1024,
        depth: int | None = None,
        device: torch.device | str = "cpu",
        body: str | None = None,
    ) -> None:
        self.layers = frozenset(layers)
        self.depth = depth or max(self.layers) + 1
        self.send = send
        self.arrays: dict[str, np.ndarray] = {}
        self.readouts: dict[str, dict[int, torch.Tensor]] = {}
        self.bank = Bank(capacity, width, device)
        self.programs = Programs(self.bank)
        self.steps = Steps(self.bank, self.layers, _body(body, self.bank.rows.device))
        self.tracked: dict[str, Tracked | None] = {}
        self.step: Step | None = None
        #: Coordinates of gates for the worker with the next layers; None after a step in which nothing was due.
        self.onward: list[np.ndarray] | None = None
        #: Whom the rules of the step before end, {request id: rule}.
        self.stopped: dict[str, str] = {}

    # --- what is sent ahead ------------------------------------------------------------------------------------

    def put(self, name: str, array: np.ndarray) -> None:
        """Hold an array under its content hash."""
        if content_hash(array) != name:
            raise InputError(f"array {name} does not have the content its name promises")
        self.arrays[name] = array

    def put_readout(self, name: str, rows: Mapping[int, np.ndarray]) -> None:
        """Hold the rows [concepts, width] of a readout at each layer."""
        self.readouts[name] = {
            layer: torch.from_numpy(np.array(r, dtype=np.float32)).to(self.bank.rows.device)
            for layer, r in rows.items()
        }

    def drop(self, names: Iterable[str]) -> None:
        """Forget arrays and readouts; requests under way keep the rows that they hold in the bank."""
        for name in names:
            self.arrays.pop(name, None)
            self.readouts.pop(name, None)

    # --- a step ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Nothing is due: also what a warm-up or a dummy run sees."""
        self.step = self.onward = None

    def fill(self, items: Sequence[Item], lost: Mapping[str, str] | None = None) -> None:
        """Prepare the step of a batch, of which some requests are `lost` already, {id: why}."""
        spans = []
        for item in items:
            tracked = self._track(item)
            if tracked is not None:
                spans.append(Span(tracked, item.start, item.stop, item.position))
        lose(spans, lost or {})
        self.step = self.steps.build(spans) if spans else None

    def receive(self, lost: Mapping[str, str] | None, found: Sequence[np.ndarray]) -> None:
        """What the worker with the layers before these says of the step: who is lost, and its coordinates of gates;
        None where it said nothing."""
        if self.step is None:
            return
        if lost is None:
            self.step.broken = "the worker with the layers before these does not say that it steered"
            return
        lose(self.step.spans, lost)
        if len(found) != len(self.step.coming):
            self.step.broken = (
                f"{len(found)} gates came from the layers before, and not {len(self.step.coming)}"
            )
            return
        for measure, coordinates in zip(self.step.coming, found):
            if len(coordinates):
                measure.found = torch.from_numpy(coordinates).to(self.bank.rows.device)

    def visit(self, layer: int, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """A layer is done."""
        if self.step is not None:
            self.step.visit(layer, hidden, residual)

    def harvest(self) -> dict[str, str]:
        """The forward pass is over: send on what was found. Who was lost, {request id: why}."""
        step, self.step = self.step, None
        self.stopped = {}
        if step is None:
            return {}
        broken = step.broken
        if not broken and step.passed != self.layers:
            missed = sorted(self.layers - step.passed)
            broken = f"layers {missed} were never reached: the compiled model does not hold trimtab's op"
        why = f"its plan made states that are not finite, seen after layer {step.last}; weaken the plan"
        lose(step.overflown, {s.tracked.id: why for s in step.overflown})
        # For good: vLLM may have more of their tokens under way.
        lose(step.spans, {s.tracked.id: broken for s in step.spans if broken})
        self.onward = [
            np.empty(0, np.float32) if m.found is None else m.found.float().cpu().numpy() for m in step.going
        ]
        results = [] if broken else self._results(step)
        if not broken:
            self.stopped, verdicts = judge(
                (
                    (d.span.tracked, d.layer, d.positions, rows)
                    for d, (_, rows) in zip(step.deliveries, results, strict=True)
                    if d.readout is not None
                ),
                self._switch,
            )
            results += verdicts
        reports: list[Report] = [
            (
                s.tracked.ticket.key,
                s.tracked.id,
                s.position,
                s.stop - s.start,
                s.tracked.lost,
            )
            for s in step.spans
        ]
        self.send(reports, results)
        return {id: lost for _, id, _, _, lost in reports if lost}

    def _results(self, step: Step) -> list[tuple[Address, np.ndarray]]:
        products: dict[int, np.ndarray] = {}
        found = []
        for d in step.deliveries:
            if id(d.grab) not in products:
                states = d.grab.found
                assert states is not None, "a layer was passed without being looked at"
                if d.readout is not None:
                    states = states @ d.span.tracked.readout[d.layer].T
                products[id(d.grab)] = states.cpu().numpy()
            count = sum(b - a for a, b in d.positions)
            address = (d.span.tracked.ticket.key, d.span.tracked.id, d.layer, d.readout or "", d.positions)
            found.append((address, products[id(d.grab)][d.first : d.first + count]))
        return found

    # --- requests ----------------------------------------------------------------------------------------------

    def _track(self, item: Item) -> Tracked | None:
        if item.id not in self.tracked:
            self.tracked[item.id] = self._admit(item)
        return self.tracked[item.id]

    def _admit(self, item: Item) -> Tracked | None:
        try:
            ticket = ticket_of(item.extra_args)
        except InputError as error:
            return Tracked(item.id, Ticket(""), lost=str(error))
        if ticket is None:
            return None
        try:
            if ticket.readout is not None and ticket.readout not in self.readouts:
                raise InputError(f"the worker does not hold the readout {ticket.readout}")
            plan = ResolvedPlan() if ticket.plan is None else ResolvedPlan.from_json(ticket.plan, self.arrays)
            read = self.readouts.get(ticket.readout or "", {})
            self._check(plan, {*ticket.capture, *read})
            judge = self._judge(ticket)
            stretches = self.programs.acquire(plan)
            reserved = self._reserve(judge, stretches)
        except InputError as error:
            return Tracked(item.id, ticket, lost=str(error))
        self.steps.forget()
        return Tracked(item.id, ticket, stretches, read, "", judge, plan, reserved)

    def _check(self, plan: ResolvedPlan, looked_at: set[int]) -> None:
        sites = {*plan.sites, *(p.gate.site for p in plan.placements if p.gate is not None)}
        strange = {s.layer for s in sites if s.stream != "resid_post"}
        if strange:
            raise InputError(f"only resid_post can be steered, but a plan acts elsewhere at {strange}")
        beyond = ({s.layer for s in sites} | looked_at) - set(range(self.depth))
        if beyond:
            raise InputError(f"the model has layers 0 to {self.depth - 1}, and not {sorted(beyond)}")

    def _judge(self, ticket: Ticket) -> Judge | None:
        if not ticket.rules:
            return None
        if len(self.layers) < self.depth:
            raise InputError(
                "rules that act are judged by a worker that has every layer, and this one has not"
            )
        try:
            clauses = [Clause.from_json(r, self.arrays) for r in ticket.rules]
        except (KeyError, TypeError) as error:
            raise InputError(f"the request's rules are malformed: {error!r}") from error
        for clause in clauses:
            if clause.plan is not None:
                self._check(clause.plan, set())
        return Judge(clauses, ticket.judged_from)

    def _reserve(self, judge: Judge | None, held: tuple[Stretch, ...]) -> tuple[Stretch, ...]:
        """Rows of the bank for the plans that may be switched on, so that there is room when they are."""
        found: tuple[Stretch, ...] = ()
        try:
            for clause in () if judge is None else judge.clauses:
                if clause.plan is not None:
                    found += self.programs.acquire(clause.plan)
        except InputError:
            self.programs.release((*held, *found))
            raise
        return found

    def _switch(self, tracked: Tracked, plan: ResolvedPlan) -> None:
        """From the next step on `plan` acts; where it was changed, the positions of before are as they were."""
        stretches = self.programs.acquire(plan)
        self.programs.release(tracked.stretches)
        tracked.stretches, tracked.plan = stretches, plan
        self.steps.forget()

    def finish(self, ids: Iterable[str]) -> None:
        """Requests are gone; their programs are freed."""
        for id in ids:
            tracked = self.tracked.pop(id, None)
            if tracked is not None and (tracked.stretches or tracked.reserved):
                self.programs.release((*tracked.stretches, *tracked.reserved))
                self.steps.forget()

    def counts(self) -> dict[str, int]:
        """What is held, for tests and for whoever watches memory."""
        return {
            "requests": len(self.tracked),
            "programs": len(self.programs),
            "bank": len(self.bank),
            "arrays": len(self.arrays),
            "readouts": len(self.readouts),
        }


def _body(name: str | None, device: torch.device) -> Callable[[GeneralEdit], Edit] | None:
    if (name or ("triton" if device.type == "cuda" else "torch")) == "torch":
        return None
    from trimtab.engines.vllm.triton_body import Launch

    return Launch.of


def lose(spans: Iterable[Span], lost: Mapping[str, str]) -> None:
    """Mark the requests that are `lost`, {id: why}; the first reason is the one that is told."""
    for span in spans:
        span.tracked.lost = span.tracked.lost or lost.get(span.tracked.id, "")
