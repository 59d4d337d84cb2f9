"""The two model runners of vLLM, as far as steering goes: when a step begins, what its batch is, when it is over.

The older one, V1, keeps requests and their parameters; V2 keeps arrays. What is needed of a request is therefore taken
from the scheduler's words, which are the same for both: its ticket when it is new, and the blocks it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.engines.vllm import losses, pipeline, seeds, stops
from trimtab.engines.vllm.blocks import Blocks
from trimtab.engines.vllm.kernel import Item, Kernel
from trimtab.engines.vllm.ticket import KEY

CHANGED = "the request came again with another plan; open a new one for it"


class Watch:
    """Tells a kernel of every batch of a runner, before and after its forward pass, and the scheduler who was lost."""

    def __init__(self, runner: Any, kernel: Kernel, place: pipeline.Place) -> None:
        self.runner, self.kernel, self.place = runner, kernel, place
        self.blocks = Blocks(runner)
        #: Extra arguments of the requests that carry a ticket.
        self.tickets: dict[str, Mapping[str, Any]] = {}
        #: Who is lost in this step, {id: why}, known before it and after it.
        self.early: dict[str, str] = {}
        self.lost: dict[str, str] = {}
        self._told: Any = None
        self._execute, self._dummy = runner.execute_model, runner._dummy_run
        self._sample = runner.sample_tokens
        runner.execute_model, runner._dummy_run = self.execute_model, self.dummy_run
        runner.sample_tokens = self.sample_tokens
        if is_v2(runner):
            self._prepare, runner.prepare_inputs = runner.prepare_inputs, self.prepare_v2
        else:
            self._prepare, runner._prepare_inputs = runner._prepare_inputs, self.prepare_v1

    def execute_model(
        self, scheduled: Any, intermediate_tensors: Any = None, dummy_run: bool = False, **kwargs: Any
    ) -> Any:
        """A step; V2 runs its warm-ups through here, too."""
        if dummy_run:
            self.kernel.begin()
            return self._execute(scheduled, intermediate_tensors, dummy_run=True, **kwargs)
        self._begin(scheduled, intermediate_tensors)
        result = self._execute(scheduled, intermediate_tensors, **kwargs)
        self.lost = self.kernel.harvest()
        if self.lost:
            self.blocks.lose(self.lost)
        if not self.place.last and self.kernel.onward is not None:
            # In an object of its own: a replayed graph hands out the same one each time.
            told = pipeline.pack(self.lost, self.kernel.onward, self.place.tensors)
            result = type(result)({**result.tensors, pipeline.KEY: told})
        return result

    def _begin(self, scheduled: Any, states: Any) -> None:
        self.kernel.begin()
        gone = scheduled.finished_req_ids
        self.kernel.finish(gone)
        self.blocks.finish(gone)
        for id in gone:
            self.tickets.pop(id, None)
        changed = self._admit(scheduled)
        self.early = self.blocks.begin(scheduled, self.tickets) | changed
        self._told = None
        if states is not None:
            self._told = states.tensors.pop(pipeline.KEY, None)
            if getattr(self.runner, "intermediate_tensors", self) is None:
                # vLLM makes them in a warm-up, which it leaves out on a CPU without compiling; then it fails (0.32).
                self.runner.intermediate_tensors = pipeline.empty_states(
                    self.runner, self.runner.max_num_tokens
                )

    def _admit(self, scheduled: Any) -> dict[str, str]:
        """Remember the tickets of new requests; V2 calls one new again that comes back after a preemption."""
        changed = {}
        for new in scheduled.scheduled_new_reqs:
            params = new.sampling_params
            extra = (params.extra_args if params is not None else None) or {}
            known = self.tickets.get(new.req_id)
            if known is not None and known[KEY] != extra.get(KEY):
                changed[new.req_id] = CHANGED
            elif KEY in extra:
                self.tickets[new.req_id] = extra
        return changed

    def prepare_v1(self, scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        """Only after this are the order of the batch and the positions final."""
        result = self._prepare(scheduled, *args, **kwargs)
        batch = self.runner.input_batch
        seeds.protect(self.runner, scheduled)
        if self.tickets:
            counts = map(scheduled.num_scheduled_tokens.__getitem__, batch.req_ids)
            self._fill(batch.req_ids, counts, batch.num_computed_tokens_cpu)
        return result

    def prepare_v2(self, *args: Any, **kwargs: Any) -> Any:
        """The same, of the batch that is made anew for every step."""
        batch = self._prepare(*args, **kwargs)
        if self.tickets:
            self._fill(batch.req_ids, batch.num_scheduled_tokens, batch.num_computed_tokens_np)
        return batch

    def _fill(self, ids: Any, counts: Any, positions: Any) -> None:
        items, at = [], 0
        for i, (id, count) in enumerate(zip(ids, counts)):
            if id in self.tickets:
                items.append(Item(id, at, at + int(count), int(positions[i]), self.tickets[id]))
            at += int(count)
        self.kernel.fill(items, self.early)
        if not self.place.first:
            self.kernel.receive(*pipeline.unpack(self._told))

    def sample_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """Losses and ends go to the scheduler on the output of the step, from the one worker whose output it reads."""
        output = self._sample(*args, **kwargs)
        if self.place.last:
            losses.tell(output, self.lost)
            stops.tell(output, self.kernel.stopped)
        return output

    def dummy_run(self, *args: Any, **kwargs: Any) -> Any:
        """A warm-up: nothing is due."""
        self.kernel.begin()
        return self._dummy(*args, **kwargs)


def is_v2(runner: Any) -> bool:
    """Whether it is the V2 runner, which makes a batch of arrays anew for every step."""
    return not hasattr(runner, "_prepare_inputs")


def refuse(runner: Any, why: str) -> None:
    """Nothing is steered here: a request that comes with a ticket all the same is lost, and not served plain."""
    execute, sample, lost = runner.execute_model, runner.sample_tokens, {}

    def executed(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        lost.clear()
        for new in scheduled.scheduled_new_reqs:
            if new.sampling_params is not None and KEY in (new.sampling_params.extra_args or {}):
                lost[new.req_id] = why
        return execute(scheduled, *args, **kwargs)

    def sampled(*args: Any, **kwargs: Any) -> Any:
        output = sample(*args, **kwargs)
        losses.tell(output, lost)
        return output

    runner.execute_model, runner.sample_tokens = executed, sampled
