"""Rules over a request's live readings: which are in force, what they read, and what happens when one fires.

The operator's rules come from the file that TRIMTAB_RULES names and hold for every request; a request may add rules
of its own. Readings that only a rule needs are taken and not returned.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.directions import ConceptVectors
from trimtab.engines.requests import Verdict
from trimtab.errors import FormatError, InputError, TrimtabError
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.records import finite, json_line
from trimtab.resolved import ResolvedPlan
from trimtab.rules import Action, Firing, Rule, Watch, load_rules
from trimtab.server.joint import Joint
from trimtab.sites import ModelInfo, Site

log = logging.getLogger("trimtab.server")


@dataclass(frozen=True, eq=False)
class Group:
    """Rules that one readout serves: of one vector file, in one unit."""

    rules: tuple[Rule, ...]
    readout: Readout

    def watch(self) -> Watch:
        """These rules over one sample."""
        layers = [s.layer for s in self.readout.sites]
        return Watch(self.rules, layers, self.readout.concepts, "z" if self.readout.z else "raw")


@dataclass(eq=False)
class _Sample:
    watches: list[Watch]
    plan: ResolvedPlan
    fired: list[Firing] = field(default_factory=list)
    on: set[str] = field(default_factory=set)


class Ruling:
    """The rules of one request, as an engine's monitor. `steer` has the plans that each rule switches on, resolved."""

    def __init__(
        self, id: str, plan: ResolvedPlan, groups: Sequence[Group], steer: Mapping[str, ResolvedPlan]
    ) -> None:
        self.id, self.plan, self.groups, self.steer = id, plan, tuple(groups), dict(steer)
        self.joint: Joint | None = None
        self.first = 0
        self._samples: dict[int, _Sample] = {}

    @property
    def plans(self) -> Sequence[ResolvedPlan]:
        """Every plan that may be switched on."""
        return tuple(self.steer.values())

    def bind(self, joint: Joint, first: int) -> None:
        """The rules' readouts are the parts of `joint` from `first` on."""
        self.joint, self.first = joint, first

    def _sample(self, index: int) -> _Sample:
        if index not in self._samples:
            self._samples[index] = _Sample([g.watch() for g in self.groups], self.plan)
        return self._samples[index]

    def see(self, index: int, position: int, reading: np.ndarray) -> Verdict | None:
        """What fires on the joint `reading` of the state at `position`, and what that does to sample `index`."""
        assert self.joint is not None
        sample = self._sample(index)
        fired: list[Firing] = []
        for i, watch in enumerate(sample.watches):
            fired += watch.see(position, self.joint.part(self.first + i, reading))
        if not fired:
            return None
        sample.fired += fired
        stop, before = False, sample.plan
        for firing in fired:
            kinds = {a.kind for a in firing.rule.then}
            stop = stop or "abort" in kinds
            if "log" in kinds:
                log.warning(
                    json_line({"event": "rule", "request": self.id, "index": index, **firing.to_json()})
                )
            if "steer" in kinds and firing.rule.name not in sample.on:
                sample.on.add(firing.rule.name)
                sample.plan = sample.plan.then(self.steer[firing.rule.name].beyond(position))
        return Verdict(stop, sample.plan if sample.plan is not before else None)

    def plan_of(self, index: int) -> ResolvedPlan:
        """What acts on a sample, with everything that was switched on."""
        return self._sample(index).plan

    def fired(self, index: int, position: int) -> list[dict[str, Any]]:
        """What fired on the state at one position of one sample, for the chunk of its token."""
        return [finite(f.to_json()) for f in self._sample(index).fired if f.position == position]

    def report(self) -> list[dict[str, Any]]:
        """Everything that fired, sample by sample, each in order."""
        return [
            {"index": i, **finite(f.to_json())} for i in sorted(self._samples) for f in self._samples[i].fired
        ]


def grouped(
    rules: Iterable[Rule], vectors: ConceptVectors | None, info: ModelInfo, layer: int | None = None
) -> list[Group]:
    """Rules with the readouts that they need of one file. A rule without a layer is about `layer`, else about the one
    where the file is read best."""
    rules = list(rules)
    if not rules:
        return []
    if vectors is None:
        raise InputError(
            f"the rule {rules[0].name!r} has nothing to read with: the operator has to set TRIMTAB_READOUT_VECTORS"
        )
    usual = vectors.read_site(info.n_layers).layer if layer is None else layer
    placed = [r if r.when.layer is not None else replace(r, when=replace(r.when, layer=usual)) for r in rules]
    found = []
    for unit in ("z", "raw"):
        mine = tuple(r for r in placed if r.when.unit == unit)
        if not mine:
            continue
        sites = [Site(n) for n in sorted({r.when.layer for r in mine if r.when.layer is not None})]
        concepts = list(dict.fromkeys(r.when.concept for r in mine))
        readout = Readout.from_vectors(vectors, sites, concepts, z=unit == "z")
        readout.check_model(info)
        found.append(Group(mine, readout))
        found[-1].watch()
    return found


def operator_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a file. `steer NAME` is the plan in NAME.json beside it."""
    try:
        rules = load_rules(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"cannot read the rules {path}: {error.strerror or error}") from error
    return tuple(replace(r, then=tuple(_filled(a, path.parent) for a in r.then)) for r in rules)


def _filled(action: Action, folder: Path) -> Action:
    if not isinstance(action.plan, str):
        return action
    file = folder / f"{action.plan}.json"
    try:
        return Action("steer", plan=SteeringPlan.from_json(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise FormatError(
            f"the rules steer by {action.plan!r}, and {file} cannot be read: {error.strerror or error}"
        ) from error


def switched(rules: Iterable[Rule], resolve: Any, prompt: Prompt) -> dict[str, ResolvedPlan]:
    """By rule, what its plans are for one prompt. One that could not act on a generated token is refused."""
    found: dict[str, ResolvedPlan] = {}
    for rule in rules:
        plans = [a.plan for a in rule.then if a.kind == "steer"]
        if not plans:
            continue
        whole = ResolvedPlan()
        for plan in plans:
            if not isinstance(plan, SteeringPlan):
                raise InputError(
                    f"the rule {rule.name!r} steers by {plan!r}; give the plan itself: names are the operator's"
                )
            try:
                whole = whole.then(resolve(plan, prompt))
            except TrimtabError as error:
                raise InputError(f"the plan of the rule {rule.name!r}: {error}") from error
        if not whole.beyond(len(prompt) - 1).effective:
            raise InputError(f"the plan of the rule {rule.name!r} acts on no token that is generated")
        found[rule.name] = whole
    return found
