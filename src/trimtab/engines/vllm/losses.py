"""A request that the worker lost ends with an error, whoever waits for it, and what it wrote leaves the prefix cache.

The worker says who is lost on the output of the step; the scheduler, in another process, ends those requests before it
looks at their tokens. That holds also where nobody listens to the worker's own channel, as behind a plain HTTP server.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

from trimtab.engines.vllm.ticket import first_steered

log = logging.getLogger("vllm.trimtab")
#: The attribute of vLLM's `ModelRunnerOutput`, {request id: why}: a plain dataclass, which pickles what it is given.
ATTRIBUTE = "trimtab_lost"


def tell(output: Any, lost: Mapping[str, str]) -> None:
    """Put losses on the output of a step, or on what becomes its output once it is copied from the device."""
    put(output, ATTRIBUTE, lost)


def put(output: Any, name: str, told: Mapping[str, str]) -> None:
    """Give the output of a step an attribute, where there is anything to tell."""
    if told and output is not None:
        inner = getattr(output, "model_runner_output", None) or getattr(output, "_model_runner_output", None)
        setattr(output if inner is None else inner, name, dict(told))


def install() -> None:
    """Wrap the scheduler's method that takes the output of a step."""
    from vllm.v1.core.sched.scheduler import Scheduler

    original = Scheduler.update_from_output
    if hasattr(original, "trimtab"):
        return

    @functools.wraps(original)
    def update_from_output(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        lost = getattr(model_runner_output, ATTRIBUTE, None)
        if not lost:
            return original(self, scheduler_output, model_runner_output)
        ended = end(self, lost)
        found = original(self, scheduler_output, model_runner_output)
        _announce(found, ended, lost)
        return found

    update_from_output.trimtab = True  # type: ignore[attr-defined]
    Scheduler.update_from_output = update_from_output


def end(scheduler: Any, lost: Mapping[str, str]) -> list[Any]:
    """Finish the requests that still run, with an error; those of another step were ended before."""
    from vllm.v1.request import RequestStatus

    for id, why in lost.items():
        request = scheduler.requests.get(id)
        if request is not None and not request.is_finished():
            log.warning("trimtab: request %s is lost: %s", id, why)
            scheduler.kv_cache_manager.evict_blocks(_written(scheduler, request))
    return scheduler.finish_requests(list(lost), RequestStatus.FINISHED_ERROR)


def _written(scheduler: Any, request: Any) -> set[int]:
    """The blocks from the first steered token on. Those before it are everybody's, and are right."""
    first = first_steered(request.sampling_params.extra_args)
    if first is None:
        return set()
    manager = scheduler.kv_cache_manager
    groups = zip(
        manager.kv_cache_config.kv_cache_groups, manager.get_block_ids(request.request_id), strict=True
    )
    return {i for group, ids in groups for i in ids[first // group.kv_cache_spec.block_size :]} - {0}


def _announce(found: Any, ended: list[Any], lost: Mapping[str, str]) -> None:
    """Tell each client, in the step's own outputs."""
    from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs

    for request in ended:
        outputs = found.setdefault(request.client_index, EngineCoreOutputs()).outputs
        outputs.append(
            EngineCoreOutput(
                request_id=request.request_id,
                new_token_ids=[],
                finish_reason=request.get_finished_reason(),
                stop_reason=f"trimtab: {lost[request.request_id]}",
                events=request.take_events(),
                trace_headers=request.trace_headers,
            )
        )
