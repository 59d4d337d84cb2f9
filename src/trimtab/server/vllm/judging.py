"""Rules between the server and vLLM's workers: what the workers must judge themselves, and whether both sides agree.

Every rule is judged here, where it is logged and reported. One that ends the request or switches a plan on is judged in
the worker as well (`trimtab.engines.vllm.judge`), because only there it acts exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from trimtab.engines.vllm.judge import Clause
from trimtab.engines.vllm.ticket import plan_json
from trimtab.errors import SteeringLost, Unsupported
from trimtab.rules import Rule
from trimtab.server.ruling import Ruling
from trimtab.sites import Site

ACTING = {"abort", "steer"}


def acts(rule: Rule) -> bool:
    """Whether a rule does more than to report."""
    return bool(ACTING & {a.kind for a in rule.then})


def check(rules: Iterable[Rule], why_not: str) -> None:
    """Refuse rules that the workers would have to judge, where they cannot; `why_not` is "" where they can."""
    for rule in rules:
        if why_not and acts(rule):
            kinds = sorted(ACTING & {a.kind for a in rule.then})
            raise Unsupported(
                f"rules: {rule.name!r} wants to {' and '.join(kinds)}, which vLLM's server does not do {why_not}: let "
                "it tag and log, or serve the model with trimtab serve --engine transformers"
            )


def inexact(config: Any) -> str:
    """Why rules that act have not been proven with this configuration of vLLM; "" where they have."""
    parallel = config.parallel_config
    if parallel.world_size > 1:
        return f"on {parallel.world_size} workers, which would have to agree to the last bit"
    if config.scheduler_config.async_scheduling:
        return "with asynchronous scheduling, which runs a step ahead (--no-async-scheduling ends that)"
    return ""


def clauses(ruling: Ruling) -> list[Clause]:
    """What the worker judges, in the order in which the rules are judged here."""
    joint, found = ruling.joint, []
    assert joint is not None
    for i, group in enumerate(ruling.groups):
        first = joint.places[ruling.first + i][1].indices(len(joint.readout.concepts))[0]
        for rule in filter(acts, group.rules):
            column = first + group.readout.concepts.index(rule.when.concept)
            site = Site(rule.when.layer or 0)
            offset, scale = joint.readout.offset[site][column], joint.readout.scale[site][column]
            stop = any(a.kind == "abort" for a in rule.then)
            found.append(Clause(rule, column, float(offset), float(scale), stop, ruling.steer.get(rule.name)))
    return found


def told(found: Iterable[Clause]) -> tuple[dict[str, Any], ...]:
    """The clauses as a ticket carries them."""
    return tuple(c.to_json(None if c.plan is None else plan_json(c.plan)) for c in found)


def agree(ruling: Ruling, found: Iterable[Clause], index: int, position: int, verdict: np.ndarray) -> None:
    """Raise where the worker and the server judged one state differently: nobody knows then what acted."""
    here = {f["rule"] for f in ruling.fired(index, position)}
    for clause, there in zip(found, verdict, strict=True):
        if (clause.rule.name in here) != bool(there):
            raise SteeringLost(
                f"the worker and the server judged the rule {clause.rule.name!r} differently at position {position}; "
                "the output is withheld"
            )
