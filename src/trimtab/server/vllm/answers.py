"""Readings and receipts in an answer, whole or chunk by chunk."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from trimtab.server.receipts import applied
from trimtab.server.vllm.admission import Admission, Journey, Part

DATA = "data: "


def complete(admission: Admission, response: Any) -> Any:
    """A whole answer with what belongs to each choice, and what was applied."""
    at = 0
    for journey in admission.journeys:
        for part in journey.parts:
            for name, value in _choice(journey, part, whole=True).items():
                setattr(response.choices[at], name, value)
            at += 1
    response.steering_applied = receipt(admission)
    if admission.ruled:
        response.rules = fired(admission)
    return response


def fired(admission: Admission) -> list[dict[str, Any]]:
    """Every rule that fired, by the index of its choice."""
    found, before = [], 0
    for journey in admission.journeys:
        report = [] if journey.order.ruling is None else journey.order.ruling.report()
        found += [{**f, "index": before + f["index"]} for f in report]
        before += len(journey.parts)
    return found


def receipt(admission: Admission) -> Any:
    """`steering_applied`; a list where a request has several prompts, or where rules gave its samples different
    plans."""
    found = [stated for journey in admission.journeys for stated in _stated(journey)]
    return found[0] if len(found) == 1 else found


def _stated(journey: Journey) -> list[dict[str, Any]]:
    processed, ruling = journey.processed(), journey.order.ruling
    if ruling is None:
        return [applied(journey.order.plan, processed)]
    plans = [ruling.plan_of(i) for i in range(len(processed))]
    if len({p.fingerprint for p in plans}) == 1:
        return [applied(plans[0], processed)]
    return [applied(p, [n]) for p, n in zip(plans, processed, strict=True)]


def _choice(journey: Journey, part: Part, whole: bool) -> dict[str, Any]:
    """What goes into a choice now: the readings of one chunk's tokens, or of all."""
    out: dict[str, Any] = {}
    selection = journey.order.selection
    if selection is not None and part.waiting:
        if part.prompt_rows is not None:
            out["prompt_readout"] = selection.prompt_part(part.prompt_rows)
            part.prompt_rows = None
        rows = [row for _, some in part.waiting for row in some]
        first, length = part.waiting[0][0], len(journey.order.prompt)
        found = selection.part(rows, first, length, begun=part.begun, whole=whole)
        part.waiting.clear()
        if found:
            part.begun, out["readout"] = True, found
    if part.fired:
        out["rules"], part.fired = part.fired, []
    if part.capture is not None:
        out["capture"], part.capture = part.capture, None
    return out


class Chunks:
    """A stream of server-sent events with readings in the chunks of their tokens and the receipt in the last one.

    An object rather than a generator, so that a stream that is never begun is cleaned up as well.
    """

    def __init__(self, admission: Admission, inner: AsyncGenerator[str, None], usage: bool) -> None:
        self.admission, self._inner, self._usage = admission, inner, usage
        self._parts = [(j, p) for j in admission.journeys for p in j.parts]
        self._unfinished = len(self._parts)

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> str:
        try:
            return self._with_readings(await self._inner.__anext__())
        except BaseException:
            self.admission.close()
            raise

    async def aclose(self) -> None:
        """The client is gone: stop generating."""
        try:
            await self._inner.aclose()
        finally:
            self.admission.close()

    def __del__(self) -> None:
        self.admission.close()

    def _with_readings(self, event: str) -> str:
        if not event.startswith(DATA + "{"):
            return event
        chunk = json.loads(event[len(DATA) :])
        if "choices" not in chunk:
            return event
        changed = False
        for choice in chunk["choices"]:
            if "role" in choice.get("delta", {}) and choice.get("finish_reason") is None:
                continue  # it announces the speaker, and has no token
            journey, part = self._parts[choice["index"]]
            more = _choice(journey, part, whole=False)
            choice.update(more)
            self._unfinished -= choice.get("finish_reason") is not None
            changed = changed or bool(more) or choice.get("finish_reason") is not None
        if not self._unfinished and bool(chunk["choices"]) != self._usage:
            chunk["steering_applied"] = receipt(self.admission)
            if self.admission.ruled:
                chunk["rules"] = fired(self.admission)
            changed = True
        if not changed:
            return event
        return DATA + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")) + "\n\n"
