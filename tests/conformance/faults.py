"""Engines with one mistake each that a wrapper around an engine makes; each in the reference's place.

What is broken inside an engine is in `engines.broken`, what only a server can break in `served_faults`. These mistakes
have been seen in this field from outside: caches that do not know of plans, requests matched by a part of their id,
names that stand for content, slots never freed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.conformance.stands import ReferenceStand
from trimtab.engines.reference import ReferenceEngine
from trimtab.engines.requests import Event, PlanLike, Request
from trimtab.errors import InputError, Mismatch
from trimtab.plans import EMPTY, SteeringPlan
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan


@dataclass(frozen=True)
class Fault:
    engine: type[ReferenceEngine]
    checks: tuple[str, ...]
    stand: type[ReferenceStand]


FAULTS: dict[str, Fault] = {}


def fault(*checks: str, stand: type[ReferenceStand] = ReferenceStand) -> Any:
    """Register an engine under its class name with the checks that must name its mistake."""

    def register(cls: type[ReferenceEngine]) -> type[ReferenceEngine]:
        FAULTS[cls.__name__] = Fault(cls, checks, stand)
        return cls

    return register


# --- caches and names ---------------------------------------------------------------------------------------------


class Remembering(ReferenceEngine):
    """Runs a request under the plan that a key of it was first seen with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: dict[Any, ResolvedPlan] = {}

    def key(self, prompt: Prompt, plan: ResolvedPlan) -> Any:
        raise NotImplementedError

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        changed = []
        for r in requests:
            assert isinstance(r.prompt, Prompt) and isinstance(r.plan, ResolvedPlan)
            key = self.key(r.prompt, r.plan)
            changed.append(replace(r, plan=r.plan if key is None else self.seen.setdefault(key, r.plan)))
        for event in super()._iterate(changed):
            if event.sample is not None:  # the receipt says what was asked, as such servers do
                plan = requests[event.request].plan
                assert isinstance(plan, ResolvedPlan)
                receipt = replace(event.sample.applied, fingerprint=plan.fingerprint)
                event = replace(event, sample=replace(event.sample, applied=receipt))
            yield event


@fault("cache_isolation", "cache_rounds")
class SharesKeysAndValuesOfAnyPlan(Remembering):
    """A prefix cache that is keyed by tokens alone: whoever comes first steers all who share a long prompt."""

    def key(self, prompt: Prompt, plan: ResolvedPlan) -> Any:
        return prompt.tokens if len(prompt) > 60 else None


@fault("content_not_name")
class KeysByName(ReferenceEngine):
    """The cache of resolved vectors goes by their name: a name that is given again steers by the old content."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.by_name: dict[str, Any] = {}

    def resolve(self, plan: PlanLike, prompt: Prompt) -> ResolvedPlan:
        if isinstance(plan, SteeringPlan):
            for p in plan.placements:
                if isinstance(p.vector, str) and p.vector in self.library:
                    vector = self.by_name.setdefault(p.vector, self.library[p.vector])
                    plan = SteeringPlan(tuple(replace(x, vector=vector) for x in plan.placements))
        return super().resolve(plan, prompt)


@fault("id_prefix")
class MatchesIdsByTheirBeginning(ReferenceEngine):
    """A steered request lends its plan to every request whose id begins with its own."""

    def generate(self, requests: Any) -> Any:
        many = [requests] if isinstance(requests, Request) else list(requests)
        steered = {r.id: r.plan for r in many if r.id and r.plan}
        return super().generate([
            replace(r, plan=next((p for id, p in steered.items() if r.id and r.id.startswith(id)), r.plan))
            for r in many
        ])  # fmt: skip


@fault("many_vectors")
class NeverFreesASlot(ReferenceEngine):
    """A vector keeps its slot for ever; who comes when all are taken gets the last one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots: list[str] = []

    def resolve(self, plan: PlanLike, prompt: Prompt) -> ResolvedPlan:
        found = super().resolve(plan, prompt)
        for name in found.vectors:
            if name not in self.slots and len(self.slots) < 40:
                self.slots.append(name)
        if len(found.vectors) == 1 and not set(found.vectors) & set(self.slots):
            return EMPTY
        return found


@fault("abort")
class KeepsAbortedPlans(ReferenceEngine):
    """What was held for a stream that is left is never let go of."""

    held = 0

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        self.held += len(requests)
        yield from super()._iterate(requests)
        self.held -= len(requests)


class CountingStand(ReferenceStand):
    """Sees what `KeepsAbortedPlans` holds."""

    def held(self, engine: Any) -> int:
        return engine.held


FAULTS["KeepsAbortedPlans"] = replace(FAULTS["KeepsAbortedPlans"], stand=CountingStand)

# --- what should be refused, and what it costs --------------------------------------------------------------------


@fault("length_refused")
class CutsOffWhatIsTooLong(ReferenceEngine):
    """Keeps the end of a prompt that does not fit, and says nothing."""

    def _check_length(self, prompt: int, new: int = 0) -> None:
        pass


@fault("mismatch_refused")
class FillsUpWhatDoesNotFit(ReferenceEngine):
    """A vector of another width is dropped, and the request served plain."""

    def resolve(self, plan: PlanLike, prompt: Prompt) -> ResolvedPlan:
        try:
            return super().resolve(plan, prompt)
        except Mismatch:
            return EMPTY


@fault("malformed_refused")
class TakesAnythingForAPlan(ReferenceEngine):
    """What is no plan is no steering."""

    def resolve(self, plan: PlanLike, prompt: Prompt) -> ResolvedPlan:
        try:
            return super().resolve(plan, prompt)
        except InputError:
            return EMPTY


@fault("cost")
class SlowWhenSteered(ReferenceEngine):
    """Takes five times as long with a vector: so much that no other work on the machine hides it."""

    def generate(self, requests: Any) -> Any:
        many = [requests] if isinstance(requests, Request) else list(requests)
        started = time.perf_counter()
        done = super().generate(many)
        if any(r.plan for r in many):
            time.sleep(4 * (time.perf_counter() - started))
        return done


@fault("plain_afterwards")
class WearsOut(ReferenceEngine):
    """Every steered request leaves a trace of itself in the weights."""

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        yield from super()._iterate(requests)
        if any(isinstance(r.plan, ResolvedPlan) and r.plan.effective for r in requests):
            self.weights = replace(self.weights, norm=self.weights.norm * (1 + 1e-5))


@fault("capture_parity")
class CapturesDependOnTheBatch(ReferenceEngine):
    """Rows of a batch of captures come back in the order of length."""

    def _capture(self, items: Any, sites: Any, at: str) -> Any:
        found = super()._capture(items, sites, at)
        if len(found) < 2:
            return found
        longest = max(range(len(items)), key=lambda i: len(items[i].positions))
        return [
            {s: found[longest][s][: len(v)] for s, v in one.items()} if i != longest else one
            for i, one in enumerate(found)
        ]


@fault("capture_rows")
class CapturesFromTheStart(ReferenceEngine):
    """As many rows as were asked for, but always the first ones."""

    def _capture(self, items: Any, sites: Any, at: str) -> Any:
        return super()._capture([replace(i, positions=np.arange(len(i.positions))) for i in items], sites, at)
