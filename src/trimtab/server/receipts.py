"""What was applied, as an answer states it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.engines.requests import Receipt
from trimtab.resolved import ResolvedPlan

HEADER = "X-Trimtab-Fingerprint"


def applied(plan: ResolvedPlan, processed: Sequence[int]) -> dict[str, Any]:
    """`steering_applied` of one prompt; `processed` are the tokens that went through the model, sample by sample.

    `dose` is the total of each vector over its layers, null where the file has no typical norm; `tokens_steered` counts
    the tokens of all samples that some placement addresses.
    """
    receipt = Receipt.of(plan, 0)
    dose: dict[str, float | None] = {}
    for source in receipt.sources:
        name, here = str(source.get("concept", source.get("op", "inline"))), source.get("dose_here")
        if here is None or (name in dose and dose[name] is None):
            dose[name] = None
        else:
            dose[name] = round((dose.get(name) or 0.0) + float(here), 9)
    return {
        "fingerprint": receipt.fingerprint,
        "vectors": list(receipt.concepts),
        "layers": sorted({s.layer for s in receipt.sites}),
        "dose": dose,
        "tokens_steered": sum(plan.tokens_steered(n) for n in processed),
    }


def preview(plan: ResolvedPlan) -> dict[str, Any]:
    """What a plan would do: each placement with its site, its numbers and where they come from; a gate looks at a
    token's own state."""
    data = plan.to_json()
    del data["vectors"]
    for placement in data["placements"]:
        if placement.get("gate") is not None:
            placement["gate"] = {**placement["gate"], "align": "own"}
    return {**data, "layers": sorted({s.layer for s in plan.sites}), "first_position": plan.first_position()}
