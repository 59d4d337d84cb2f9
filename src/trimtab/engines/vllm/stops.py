"""A request that a rule ends: the worker says so on the output of the step, and the scheduler ends it with the token of
that step, before another one is scheduled.

It ends as if its length were reached, because vLLM cuts the last token off the text of a request that is *stopped*; who
asked for the rule says what it was.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from trimtab.engines.vllm import losses

#: The attribute of vLLM's `ModelRunnerOutput`, {request id: rule}; while the scheduler takes a step, also its own.
ATTRIBUTE = "trimtab_stopped"


def tell(output: Any, stopped: Mapping[str, str]) -> None:
    """Put those who end on the output of a step."""
    losses.put(output, ATTRIBUTE, stopped)


def install() -> None:
    """Wrap the scheduler's methods that take the output of a step and that look whether a request is done."""
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.request import RequestStatus

    take, look = Scheduler.update_from_output, Scheduler._update_request_with_output
    if hasattr(look, "trimtab"):
        return

    @functools.wraps(take)
    def update_from_output(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        setattr(self, ATTRIBUTE, getattr(model_runner_output, ATTRIBUTE, None))
        return take(self, scheduler_output, model_runner_output)

    @functools.wraps(look)
    def _update_request_with_output(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        tokens, done = look(self, request, *args, **kwargs)
        if not done and request.request_id in (getattr(self, ATTRIBUTE, None) or ()):
            request.status, done = RequestStatus.FINISHED_LENGTH_CAPPED, True
        return tokens, done

    update_from_output.trimtab = True  # type: ignore[attr-defined]
    _update_request_with_output.trimtab = True  # type: ignore[attr-defined]
    Scheduler.update_from_output = update_from_output
    Scheduler._update_request_with_output = _update_request_with_output
