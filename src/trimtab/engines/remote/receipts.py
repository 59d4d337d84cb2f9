"""An answer counts as steered only where it says so itself: what it states must be what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.engines.requests import Receipt, Request, Sample
from trimtab.errors import SteeringLost, TrimtabError
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan


def check_answer(head: Mapping[str, Any], identity: str, plans: Sequence[ResolvedPlan]) -> None:
    """Refuse an answer of another model, and one whose plans are not those that were sent."""
    if head.get("model") != identity:
        raise TrimtabError(
            "another model answers at this address than when the engine was opened: open it again"
        )
    told, asked = head.get("applied"), [p.fingerprint for p in plans]
    if told is None:
        raise SteeringLost(
            "the answer lacks its receipt, so nothing shows that the plan was applied: withheld"
        )
    if told != asked:
        raise SteeringLost(f"the answer's receipt names plans {told}, but {asked} were sent: withheld")


def check_sample(sample: Sample, request: Request) -> None:
    """Refuse a finished sample whose receipt is not that of the request's plan over its tokens."""
    assert isinstance(request.prompt, Prompt) and isinstance(request.plan, ResolvedPlan)
    want = Receipt.of(request.plan, len(request.prompt) + len(sample.tokens) - 1)
    got = sample.applied
    for part in ("fingerprint", "sites", "tokens_steered"):
        if getattr(got, part) != getattr(want, part):
            raise SteeringLost(
                f"the receipt of an answer says {part} {getattr(got, part)}, but its plan gives "
                f"{getattr(want, part)}: withheld"
            )
