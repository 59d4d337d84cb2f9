"""Both of vLLM's model runners, without a model, seen through their own classes of batches: what the watch on one tells
the kernel, the scheduler and the next worker.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")

from vllm.v1.core.sched.output import CachedRequestData, NewRequestData  # noqa: E402
from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers  # noqa: E402

from engines.registry import place  # noqa: E402
from engines.test_vllm_kernel import LAYERS, LENGTH, WIDTH, World  # noqa: E402
from trimtab.engines.vllm import losses, pipeline, runners, stops  # noqa: E402
from trimtab.engines.vllm.blocks import SPOILED  # noqa: E402
from trimtab.engines.vllm.judge import Clause  # noqa: E402
from trimtab.engines.vllm.kernel import Kernel  # noqa: E402
from trimtab.engines.vllm.pipeline import Place  # noqa: E402
from trimtab.engines.vllm.ticket import KEY, Ticket, plan_json  # noqa: E402
from trimtab.interventions import Add  # noqa: E402
from trimtab.rules import Rule  # noqa: E402
from trimtab.sites import Site  # noqa: E402

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def world() -> World:
    return World()


BLOCK = 4


class Fake:
    """A model runner without a model: V1 keeps its batch, V2 makes one, of vLLM's own class, for every step."""

    def __init__(self, v2: bool, world: World, first: bool = True, last: bool = True) -> None:
        self.cache = torch.zeros(32, BLOCK)
        group = SimpleNamespace(kv_cache_spec=SimpleNamespace(block_size=BLOCK), layer_names=["x"])
        self.kv_cache_config = SimpleNamespace(kv_cache_groups=[group])
        context = {"x": SimpleNamespace(kv_cache=self.cache)}
        self.compilation_config = SimpleNamespace(static_forward_context=context)
        self.world, self.v2, self.computed = world, v2, {}
        self.requests: dict[str, Any] = {}
        self.intermediate_tensors: Any = None if not first else "unused"
        self.max_num_tokens = 64
        self.kernel = Kernel(range(LAYERS), WIDTH, lambda *x: None)
        self.skip: int | None = None
        self.spoil = 0.0
        self.ends: dict[str, str] = {}
        if v2:
            self.prepare_inputs = self._batch
        else:
            self._prepare_inputs = self._batch
        self.watch = runners.Watch(self, self.kernel, Place(first=first, last=last))

    def _batch(self, scheduled: Any, *args: Any) -> Any:
        ids = list(scheduled.num_scheduled_tokens)
        counts = np.array([scheduled.num_scheduled_tokens[i] for i in ids], np.int32)
        positions = np.array([self.computed.get(i, 0) for i in ids], np.int32)
        if not self.v2:
            self.input_batch = SimpleNamespace(req_ids=ids, num_computed_tokens_cpu=positions, generators={})
            return None
        batch = InputBatch.make_dummy(len(ids), int(counts.sum()), InputBuffers(8, 64, torch.device("cpu")))
        batch.req_ids, batch.num_scheduled_tokens, batch.num_computed_tokens_np = ids, counts, positions
        return batch

    def _dummy_run(self) -> None:
        return None

    def execute_model(self, scheduled: Any, intermediate_tensors: Any = None, dummy_run: bool = False) -> Any:
        """The forward pass: states of the world for the rows of each request."""
        rows = 3
        if not dummy_run:
            prepare = self.prepare_inputs if self.v2 else self._prepare_inputs
            batch = prepare(scheduled, None)
            assert (batch is not None) is self.v2
            rows = sum(scheduled.num_scheduled_tokens.values())
            for id, n in scheduled.num_scheduled_tokens.items():
                self.computed[id] = self.computed.get(id, 0) + n
        self.seen = []
        for layer in range(LAYERS):
            hidden = torch.ones(rows, WIDTH)
            if layer != self.skip:
                self.kernel.visit(layer, hidden, None)
            self.seen.append(hidden)
        return None

    def sample_tokens(self, *args: Any) -> Any:
        output = SimpleNamespace()
        return SimpleNamespace(model_runner_output=output) if self.v2 else output

    # --- what a test does ---

    def step(self, new: list[NewRequestData] = [], cached: Any = None, gone: Any = (), **counts: int) -> Any:  # noqa: B006
        scheduled = SimpleNamespace(
            scheduled_new_reqs=new, scheduled_cached_reqs=cached or CachedRequestData.make_empty(),
            finished_req_ids=set(gone), num_scheduled_tokens=counts,
        )  # fmt: skip
        for request in new:
            self.computed[request.req_id] = request.num_computed_tokens
        self.execute_model(scheduled)
        output = self.sample_tokens()
        output = getattr(output, "model_runner_output", output)
        self.ends = getattr(output, stops.ATTRIBUTE, {})
        return getattr(output, losses.ATTRIBUTE, {})


def request(id: str, ticket: str | None, blocks: list[int], computed: int = 0) -> NewRequestData:
    params = SimpleNamespace(extra_args=None if ticket is None else {KEY: ticket})
    tokens = list(range(LENGTH))
    return NewRequestData(id, tokens, [], params, None, (blocks,), computed, None)  # type: ignore[arg-type]


def running(id: str, blocks: list[int] | None, computed: int, resumed: bool = False) -> CachedRequestData:
    found = CachedRequestData.make_empty()
    found.req_ids, found.num_computed_tokens = [id], [computed]
    found.new_block_ids = [None if blocks is None else (blocks,)]
    found.resumed_req_ids = {id} if resumed else set()
    return found


@pytest.fixture(params=[False, True], ids=["V1", "V2"])
def runner(request, world) -> Fake:
    return Fake(request.param, world)


def ticket_of(runner: Fake, amount: float = 4.0, first: int = 0) -> str:
    positions = {"ranges": [[first, None]]} if first else "all"
    plan = runner.world.resolve(place(runner.world, Add(amount=amount), Site(1), positions=positions))
    for name, array in plan.vectors.items():
        runner.kernel.put(name, array)
    return Ticket("k", plan=plan_json(plan), first=plan.first_position()).to_text()


def test_a_runner_tells_the_kernel_of_its_batch_and_the_scheduler_of_losses(runner):
    ticket = ticket_of(runner, first=2)
    new = [request("plain", None, [1, 2]), request("a", ticket, [3, 4])]
    assert runner.step(new, plain=3, a=5) == {}
    moved = (runner.seen[1] != 1).any(1).tolist()
    assert moved == [False] * 3 + [False, False, True, True, True]
    assert not any((h != 1).any() for i, h in enumerate(runner.seen) if i != 1)
    runner.step(cached=running("a", None, 5), plain=1, a=1)
    assert (runner.seen[1] != 1).any(1).tolist() == [False, True]
    runner.skip = 2
    found = runner.step(cached=running("a", None, 6), plain=1, a=1)
    assert list(found) == ["a"] and "layers [2] were never reached" in found["a"]
    runner.skip = None
    assert runner.step(gone=["a"], plain=1) == {}
    assert runner.kernel.counts()["requests"] == len(runner.watch.blocks) == len(runner.watch.tickets) == 0


def test_a_runner_tells_the_scheduler_whom_a_rule_ends(runner):
    """In the step of the state that fired, and not in the next one."""
    rows = np.ones((1, WIDTH), np.float32)
    runner.kernel.put_readout("readout", {1: rows})
    fires = Rule.from_json({"name": "r", "when": {"concept": "c", "layer": 1, "above": 0.0}, "then": "abort"})
    clause = Clause(fires, 0, 0.0, 1.0, stop=True).to_json(None)
    ticket = Ticket("k", readout="readout", reads_from=2, rules=(clause,), judged_from=2).to_text()
    assert runner.step([request("a", ticket, [1]), request("plain", None, [2])], a=2, plain=1) == {}
    assert runner.ends == {}
    assert runner.step(cached=running("a", None, 2), a=1, plain=1) == {}
    assert runner.ends == {"a": "r"}
    assert runner.step(gone=["a"], plain=1) == {} and runner.ends == {}


def test_a_warm_up_in_the_middle_is_plain(runner):
    runner.step([request("a", ticket_of(runner), [1])], a=3)
    if runner.v2:
        runner.execute_model(SimpleNamespace(), None, dummy_run=True)
        assert not any((h != 1).any() for h in runner.seen)
    runner._dummy_run()
    assert runner.kernel.step is None


def test_a_request_that_comes_again_with_another_plan_is_lost(runner):
    runner.step([request("a", ticket_of(runner), [1])], a=3)
    assert runner.step([request("a", ticket_of(runner), [2])], a=3) == {}  # V2, after a preemption
    assert "another plan" in runner.step([request("a", ticket_of(runner, 5.0), [3])], a=3)["a"]


def test_whoever_is_given_blocks_of_a_lost_request_is_lost_until_they_are_computed_anew(runner):
    ticket = ticket_of(runner, first=5)  # blocks 1 on
    runner.skip = 0
    assert list(runner.step([request("a", ticket, [1, 2, 3])], a=12)) == ["a"]
    runner.skip = None
    assert runner.watch.blocks.spoiled == {2, 3}
    # Under way before the scheduler hears of it: one of the same plan, one that shares only what is plain.
    new = [request("b", ticket, [1, 2, 9], computed=8), request("c", ticket, [1, 8], computed=4)]
    new.append(request("plain", None, [1, 7], computed=4))
    assert runner.step(new, b=2, c=2, plain=2) == {"b": SPOILED}
    assert runner.watch.blocks.spoiled == {2, 3, 9}
    # Block 2 has a new owner who computes it, and so has 3, as one more of a request that runs.
    assert runner.step([request("d", ticket, [2])], running("c", [3], 6), gone=["a", "b"], c=1, d=1) == {}
    assert runner.watch.blocks.spoiled == {9}
    assert runner.step([request("e", ticket, [1, 2, 3], computed=12)], e=1) == {}
    resumed = running("c", [1, 9], 8, resumed=True)
    assert list(runner.step(cached=resumed, c=1)) == ["c"]


def test_blocks_of_a_lost_request_that_are_not_finite_are_zeroed(runner):
    runner.step([request("a", ticket_of(runner), [5, 6])], a=6)
    runner.cache[5, 1], runner.cache[6] = 3.0, 7.0
    runner.cache[6, 2] = float("nan")
    runner.skip = 0
    runner.step(cached=running("a", None, 6), a=1)
    assert runner.cache[5, 1] == 3.0 and not runner.cache[6].any()


def test_a_runner_without_a_request_of_ours_does_nothing(runner):
    runner.step([request("plain", None, [1])], plain=3)
    assert runner.kernel.step is None and runner.kernel.counts()["requests"] == 0


def test_the_first_worker_of_a_pipeline_sends_and_the_last_one_reads(world):
    """Through the attributes that vLLM passes on, and without them in what the model is given."""
    ticket = ticket_of(start := Fake(False, world, last=False))
    inner, states = start.watch._execute, SimpleNamespace
    holder = type("Tensors", (), {"__init__": lambda self, tensors: setattr(self, "tensors", tensors)})
    start.watch._execute = lambda *a, **k: (inner(*a, **k), holder({"hidden_states": torch.ones(2)}))[1]
    start.skip = 0
    scheduled = states(
        scheduled_new_reqs=[request("a", ticket, [1])], scheduled_cached_reqs=CachedRequestData.make_empty(),
        finished_req_ids=set(), num_scheduled_tokens={"a": 3},
    )  # fmt: skip
    sent = start.execute_model(scheduled)
    assert set(sent.tensors) == {"hidden_states", pipeline.KEY}
    assert not hasattr(start.sample_tokens(), losses.ATTRIBUTE)  # nobody reads its output
    end = Fake(False, world, first=False)
    ticket_of(end)
    end.get_model = lambda: states(make_empty_intermediate_tensors=lambda **k: k)  # type: ignore[attr-defined]
    end.model_config, end.device = states(dtype=torch.float32), "cpu"  # type: ignore[attr-defined]
    end.execute_model(scheduled, sent)
    assert set(sent.tensors) == {"hidden_states"}
    assert end.intermediate_tensors["batch_size"] == 64  # which vLLM forgets without a warm-up
    (why,) = getattr(end.sample_tokens(), losses.ATTRIBUTE).values()
    assert re.search(r"layers \[0\] were never reached", why)
