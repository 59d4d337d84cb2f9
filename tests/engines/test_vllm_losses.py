"""Lost requests in the scheduler, without vLLM's own: who is ended, what is told, which blocks leave the cache."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")

from trimtab.engines.vllm import losses
from trimtab.engines.vllm.ticket import KEY, Ticket

pytestmark = pytest.mark.engine


class Scheduler:
    """Holds requests that have five blocks of 32 tokens in each of two groups, numbered 10 i + block."""

    def __init__(self, *requests: SimpleNamespace) -> None:
        self.requests = {r.request_id: r for r in requests}
        self.evicted: set[int] = set()
        group = SimpleNamespace(kv_cache_spec=SimpleNamespace(block_size=32))
        self.kv_cache_manager = SimpleNamespace(
            kv_cache_config=SimpleNamespace(kv_cache_groups=[group, group]),
            get_block_ids=lambda id: tuple([10 * g + i for i in range(1, 6)] for g in (1, 2)),
            evict_blocks=self.evicted.update,
        )

    def finish_requests(self, ids, status):
        return [self.requests.pop(id) for id in ids if id in self.requests]


def request(id: str, first: int | None = None, text: str | None = None) -> SimpleNamespace:
    ticket = Ticket("k", 0, {"fingerprint": "f"}, first).to_text()
    return SimpleNamespace(
        request_id=id,
        is_finished=lambda: False,
        client_index=1,
        get_finished_reason=lambda: 3,
        take_events=lambda: None,
        trace_headers=None,
        sampling_params=SimpleNamespace(extra_args={KEY: text or ticket}),
    )


@pytest.mark.parametrize(
    ("first", "text", "blocks"),
    [
        (0, None, {11, 12, 13, 14, 15, 21, 22, 23, 24, 25}),
        (70, None, {13, 14, 15, 23, 24, 25}),
        (None, None, set()),
        (0, "{", {11, 12, 13, 14, 15, 21, 22, 23, 24, 25}),
    ],
)
def test_blocks_from_the_first_steered_token_on_leave_the_cache(first, text, blocks):
    scheduler = Scheduler(request("a", first, text), request("b", 0))
    (ended,) = losses.end(scheduler, {"a": "why", "gone": "why"})
    assert ended.request_id == "a" and list(scheduler.requests) == ["b"]
    assert scheduler.evicted == blocks


def test_losses_travel_on_the_output_of_the_step_and_reach_the_client(monkeypatch):
    from vllm.v1.core.sched import scheduler as theirs
    from vllm.v1.engine import EngineCoreOutputs
    from vllm.v1.outputs import ModelRunnerOutput

    def update(self, scheduled, output):
        return {0: EngineCoreOutputs()} if "a" not in self.requests else {}

    update_class = type("Original", (), {"update_from_output": update})
    monkeypatch.setattr(theirs, "Scheduler", update_class)
    for _ in range(2):
        losses.install()  # once, however often it is called
    mine = Scheduler(request("a", 0))
    output = ModelRunnerOutput([], {})
    assert update_class.update_from_output(mine, None, output) == {} and "a" in mine.requests
    losses.tell(output, {})
    assert not hasattr(output, losses.ATTRIBUTE)
    losses.tell(output, {"a": "its states are not finite"})
    found = update_class.update_from_output(mine, None, pickle.loads(pickle.dumps(output)))
    (told,) = found[1].outputs
    assert told.request_id == "a" and "not finite" in told.stop_reason and told.new_token_ids == []
    assert found[0].outputs == []
