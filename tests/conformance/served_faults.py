"""Engines with one mistake each that only a server makes, the healthy one beside them, and the stand that serves them:
preemption, a prefix cache, workers that forget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.faults import fault
from trimtab.conformance.stands import Answer, Direct, ReferenceStand
from trimtab.engines.reference import ReferenceEngine
from trimtab.engines.requests import Event, Request, Sampling
from trimtab.errors import SteeringLost
from trimtab.plans import EMPTY
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
