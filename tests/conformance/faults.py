"""Engines with one mistake each that only a server, or a wrapper around one, makes; each in the reference's place.

What is broken inside an engine is in `engines.broken`. These mistakes have been seen in this field from outside: caches
that do not know of plans, requests matched by a part of their id, names that stand for content, slots never freed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.conformance.stands import Answer, Direct, ReferenceStand
from trimtab.engines.reference import ReferenceEngine
from trimtab.engines.requests import Event, PlanLike, Request, Sampling
from trimtab.errors import InputError, Mismatch, SteeringLost
from trimtab.plans import EMPTY, SteeringPlan
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan

#: The checks that only a server has; the reference stands in for one.
SERVED = ("prefix_cache", "preemption", "bank", "plugin", "workers")


class ServedStand(ReferenceStand):
    """The reference as if it were served: preempted now and then, with workers that can forget, with a prefix cache
    that knows plans by their content."""

    def __init__(self) -> None:
        super().__init__()
        self.has = self.has | set(SERVED)
        self.block, self.bank, self.count = 8, 64, 0
        self.blocks: set[tuple[Any, ...]] = set()

    def preemptions(self, engine: Any) -> int:
        self.count += 1
        return getattr(engine, "preempted", lambda n: n)(self.count)

    def forget(self, engine: Any, plan: ResolvedPlan) -> None:
        engine.forgotten = set(plan.vectors)

    def register_again(self) -> None:
        type(self).registered = True

    registered = False

    def send(self, engine: Any, requests: Sequence[Direct]) -> list[list[Answer]]:
        found = []
        for r in requests:
            sampling = Sampling(
                r.new, r.temperature, seed=5 if r.temperature else None, n=r.n, ignore_eos=True
            )
            plan = engine.matched(r) if hasattr(engine, "matched") else r.plan
            (done,) = engine.generate(Request(Prompt(r.tokens), plan, sampling))
            cached = self.cached(engine, r)
            found.append([Answer(x.tokens, np.asarray(x.logprobs), cached) for x in done.samples])
        return found

    def cached(self, engine: Any, r: Direct) -> int:
        first, hits = r.plan.first_position(), 0
        keyed = getattr(engine, "keyed", lambda plan: plan.fingerprint)
        keys = [
            (r.tokens[:end], keyed(r.plan) if first is not None and first < end else "")
            for end in range(self.block, len(r.tokens), self.block)
        ]
        for key in keys:
            if key not in self.blocks:
                break
            hits += self.block
        self.blocks |= set(keys)
        return hits


class Served(ReferenceEngine):
    """A healthy one: what the workers forgot is withheld once, and sent again; what is not finite is withheld."""

    forgotten: frozenset[str] = frozenset()

    def generate(self, requests: Any) -> Any:
        many = [requests] if isinstance(requests, Request) else list(requests)
        lost = set(self.forgotten)
        self.forgotten = frozenset()
        if any(lost & set(self.resolve(r.plan, self.encode(r.prompt)).vectors) for r in many):
            return self.without()
        with np.errstate(all="ignore"):
            done = super().generate(many)
        if not all(np.isfinite(x.logprobs).all() for d in done for x in d.samples):
            return self.overflown(done)
        return done

    def overflown(self, done: Any) -> Any:
        """What happens to a request whose states are not finite."""
        raise SteeringLost("its plan made states that are not finite")

    def without(self) -> Any:
        """What happens to a request whose vectors are gone."""
        raise SteeringLost("the worker does not carry the vectors of this request")


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


@fault("filters")
class DrawsFromAll(ReferenceEngine):
    """top_k is read and dropped."""

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        yield from super()._iterate([replace(r, sampling=replace(r.sampling, top_k=0)) for r in requests])


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


# --- what only a server does --------------------------------------------------------------------------------------


@fault("preemption", stand=ServedStand)
class IsNeverPreempted(Served):
    """Nothing was thrown out: a check that then passes has shown nothing."""

    def preempted(self, count: int) -> int:
        return 0


@fault("preemption", stand=ServedStand)
class MixesRowsAfterPreemption(Served):
    """Captured rows of the right shape, some of them of the beginning that was thrown away."""

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        for event in super()._iterate(requests):
            sample = event.sample
            if len(requests) >= 16 and sample is not None and sample.capture is not None:
                values = {s: np.roll(v, 1, axis=0) for s, v in sample.capture.values.items()}
                capture = replace(sample.capture, values=values)
                event = replace(event, sample=replace(sample, capture=capture))
            yield event


@fault("cache_sharing", stand=ServedStand)
class TurnsTheCacheOff(Served):
    """Right, and as slow as if there were no prefix cache."""

    def keyed(self, plan: ResolvedPlan) -> object:
        return object()

    def resolve(self, plan: PlanLike, prompt: Prompt) -> ResolvedPlan:
        return super().resolve(plan, prompt)


@fault("cache_sharing", stand=ServedStand)
class KeysByPlanWithoutStrength(Served):
    """Blocks that were written at one strength are read at another."""

    def keyed(self, plan: ResolvedPlan) -> object:
        return tuple(sorted(plan.vectors))


@fault("lost_is_withheld", stand=ServedStand)
class ServesTheLostPlain(Served):
    """A request whose vectors are gone is served without them, with a warning in a log."""

    def generate(self, requests: Any) -> Any:
        lost = bool(self.forgotten)
        self.forgotten = frozenset()
        if lost:
            return ReferenceEngine.generate(self, replace(requests, plan=EMPTY))
        return super().generate(requests)


@fault("non_finite_contained", stand=ServedStand)
class ServesWhatIsNotFinite(Served):
    """Numbers that are none are handed out as an answer."""

    def overflown(self, done: Any) -> Any:
        return done


@fault("non_finite_contained", stand=ServedStand)
class StaysNotFinite(Served):
    """The blocks of the cache that it wrote go to the next request, which reads them."""

    spoilt = 0

    def overflown(self, done: Any) -> Any:
        self.spoilt = 6
        return super().overflown(done)

    def generate(self, requests: Any) -> Any:
        done = super().generate(requests)
        if self.spoilt:
            self.spoilt -= 1
            for d in done:
                d.samples[0].logprobs[-1] += 1.0
        return done


@fault("non_finite_contained", stand=ServedStand)
class LosesTheWholeBatch(Served):
    """One request that is lost takes with it whoever comes next."""

    falling = 0

    def overflown(self, done: Any) -> Any:
        self.falling = 6
        return super().overflown(done)

    def generate(self, requests: Any) -> Any:
        if self.falling:
            self.falling -= 1
            raise SteeringLost("a step of the batch was lost: states are not finite")
        return super().generate(requests)


@fault("id_prefix", stand=ServedStand)
class LosesThePlanOfCopies(Served):
    """Samples of one request get ids of their own, which nobody knows: they run plain."""

    def matched(self, request: Direct) -> ResolvedPlan:
        return EMPTY if request.n > 1 else request.plan


class TwiceStand(ServedStand):
    """Sees to it that its engine knows when the plugin was loaded again."""

    def register_again(self) -> None:
        AppliesEveryEditTwice.twice = True


@fault("registered_twice", stand=TwiceStand)
class AppliesEveryEditTwice(Served):
    """Wraps what is wrapped already: every edit is applied twice from then on."""

    twice = False

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        if type(self).twice:
            requests = [
                replace(r, plan=ResolvedPlan(r.plan.placements * 2, r.plan.vectors))  # type: ignore[union-attr]
                for r in requests
            ]
        yield from super()._iterate(requests)
