"""Rules judged in the worker: the state that fires, what acts after it, who ends, and what the prefix cache is told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engines.registry import place  # noqa: E402
from engines.test_vllm_kernel import LENGTH, WIDTH, Runner, World  # noqa: E402
from trimtab.engines.vllm import cache_keys  # noqa: E402
from trimtab.engines.vllm.judge import NAME, VERDICT, Clause, Judge, reading  # noqa: E402
from trimtab.engines.vllm.ticket import KEY, Ticket, plan_json  # noqa: E402
from trimtab.interventions import Add, Pin  # noqa: E402
from trimtab.resolved import ResolvedPlan  # noqa: E402
from trimtab.rules import Rule  # noqa: E402
from trimtab.sites import Site  # noqa: E402

pytestmark = pytest.mark.engine
#: The prompt's last position; the layer that is read, whose states no plan here changes.
LAST, READ = 9, 1
OFFSET, SCALE = 0.25, 2.0


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def scores(world: World) -> tuple[np.ndarray, np.ndarray]:
    """(rows [2, WIDTH], z of column 1 [LENGTH], which is highest at position 13)."""
    rows = np.random.default_rng(3).standard_normal((2, WIDTH)).astype(np.float32)
    rows[1] = world.states[READ, 13]
    products = world.states[READ] @ rows[1]
    return rows, np.array([reading(p, OFFSET, SCALE) for p in products])


def rule(above: float, **when) -> Rule:
    then = "log"
    return Rule.from_json(
        {"name": "r", "when": {"concept": "c", "layer": READ, "above": above, **when}, "then": then}
    )


def admit(world, runner, id, rules, plan=None, base=None) -> None:
    rows, _ = scores(world)
    runner.kernel.put_readout("readout", {READ: rows})
    for each in (plan, base):
        for name, array in (each or ResolvedPlan()).vectors.items():
            runner.kernel.put(name, array)
    told = None if plan is None else plan_json(plan)
    clauses = tuple(Clause(r, 1, OFFSET, SCALE, stop=plan is None).to_json(told) for r in rules)
    wants = {"readout": "readout", "reads_from": LAST, "rules": clauses, "judged_from": LAST}
    runner.admit(id, base or ResolvedPlan(), **wants)


def token_by_token(runner: Runner, *ids: str, until: int = LENGTH) -> None:
    runner.run([(id, 0, LAST + 1) for id in ids])
    for p in range(LAST + 1, until):
        runner.run([(id, p, 1) for id in ids])


def rises(world: World) -> tuple[int, float]:
    """(position, a threshold that its reading is the first one of the generated states to pass)."""
    _, z = scores(world)
    p = next(p for p in range(LAST + 2, LENGTH - 3) if z[p] > z[LAST:p].max() + 1e-3)
    return p, float((z[p] + z[LAST:p].max()) / 2)


@pytest.mark.parametrize("split", [False, True])
def test_the_plan_of_a_rule_is_the_plan_after_the_state_that_fired(world, split):
    position, above = rises(world)
    switched = world.resolve(place(world, Add(amount=4.0), Site(3)) | place(world, Pin(1.0), Site(2), 1))
    base = world.resolve(place(world, Add(amount=-2.0), Site(3), 2))
    runner = Runner(world, split)
    admit(world, runner, "ruled", [rule(above)], switched, base)
    admit(world, runner, "beside", [rule(1e9)], switched, base)
    token_by_token(runner, "ruled", "beside")
    want = world.trace_of(base.then(switched.beyond(position)))
    assert np.abs(runner.after["ruled"] - np.stack([*want.after.values()])).max() < 5e-6
    plain = world.trace_of(base)
    assert np.abs(runner.after["beside"] - np.stack([*plain.after.values()])).max() < 5e-6
    assert np.abs(runner.after["ruled"][3, position + 1] - runner.after["beside"][3, position + 1]).max() > 1
    # Preempted: everything is computed again, under the same plans; nothing is judged twice.
    before = runner.after["ruled"].copy()
    runner.after["ruled"][:] = np.nan
    runner.sent.clear()
    runner.run([("ruled", 0, 14)])
    runner.run([("ruled", 14, LENGTH - 14)])
    assert np.abs(runner.after["ruled"] - before).max() < 5e-6
    assert not [a for _, results in runner.sent for a, _ in results if a[2] == VERDICT]
    runner.kernel.finish(["ruled", "beside"])
    counts = runner.kernel.counts()
    assert (counts["requests"], counts["programs"], counts["bank"]) == (0, 0, 0)


def test_every_state_from_the_prompts_last_on_has_a_verdict(world):
    position, above = rises(world)
    runner = Runner(world, split=False)
    admit(world, runner, "a", [rule(1e9), rule(above)])
    token_by_token(runner, "a")
    told = {a[4][0][0]: row for _, results in runner.sent for a, row in results if a[2:4] == (VERDICT, NAME)}
    assert sorted(told) == list(range(LAST, LENGTH))
    assert [p for p, row in told.items() if row.any()] == [position]
    assert told[position].tolist() == [[0.0, 1.0]]


def test_a_rule_that_ends_the_request_says_so_in_the_step_of_its_state(world):
    position, above = rises(world)
    runner = Runner(world, split=False)
    admit(world, runner, "a", [rule(above)])
    admit(world, runner, "b", [rule(1e9)])
    token_by_token(runner, "a", "b", until=position)
    assert runner.kernel.stopped == {}
    runner.run([("a", position, 1), ("b", position, 1)])
    assert runner.kernel.stopped == {"a": "r"} and runner.lost == {}
    runner.run([("b", position + 1, 1)])
    assert runner.kernel.stopped == {}


def test_means_and_runs_are_those_of_the_rule(world):
    _, z = scores(world)
    when = {"mean": 3, "tokens": 2}
    judge = Judge([Clause(rule(-0.2, **when), 0, OFFSET, SCALE)], LAST)
    products = (world.states[READ] @ scores(world)[0].T)[:, 1:]
    fired = [p for p in range(LENGTH) if (judge.see(p, {READ: products[p]}) or [0])[0]]
    passed = [p for p in range(LAST + 2, LENGTH) if z[p - 2 : p + 1].mean() > -0.2]
    assert fired == next([p] for p in passed if p - 1 in passed)


def test_room_for_what_may_be_switched_on_is_kept_from_the_start(world):
    """Else a request would be lost in the middle of its reply because others took the rows."""
    _, above = rises(world)
    plan = world.resolve(place(world, Add(amount=4.0), Site(3)))
    other = world.resolve(place(world, Add(amount=4.0), Site(2), 5))
    runner = Runner(world, split=False, capacity=1)
    admit(world, runner, "ruled", [rule(above)], plan)
    runner.admit("other", other)
    runner.run([("ruled", 0, LAST + 1)])
    runner.run([("other", 0, 3), ("ruled", LAST + 1, 1)])
    assert "bank" in runner.lost.pop("other") and runner.lost == {}
    runner.kernel.finish(["ruled", "other"])
    assert runner.kernel.counts()["bank"] == 0


def test_a_step_that_went_beyond_the_state_that_fired_is_lost(world):
    position, above = rises(world)
    plan = world.resolve(place(world, Add(amount=4.0), Site(3)))
    runner = Runner(world, split=False)
    admit(world, runner, "a", [rule(above)], plan)
    runner.run([("a", 0, position + 2)])
    assert "beyond it" in runner.lost["a"]


def test_malformed_rules_lose_their_request(world):
    runner = Runner(world, split=False)
    admit(world, runner, "a", [rule(1.0)])
    runner.extra["a"] = {KEY: runner.extra["a"][KEY].replace('"column"', '"row"')}
    runner.run([("a", 0, 4)])
    assert "rules" in runner.lost["a"]


def test_rules_and_their_plans_are_for_layers_that_this_worker_has(world):
    runner = Runner(world, split=False)
    admit(world, runner, "a", [rule(1.0)], world.resolve(place(world, Add(amount=4.0), Site(3))))
    runner.kernel.depth = 3
    runner.run([("a", 0, 4)])
    assert "layers 0 to 2" in runner.lost["a"]
    runner.kernel.finish(["a"])
    runner.kernel.depth = 5  # a pipeline's other worker has the rest
    runner.run([("a", 0, 4)])
    assert "every layer" in runner.lost["a"]


def test_blocks_that_a_rule_may_steer_are_nobodys_but_the_requests(world):
    plan = plan_json(world.resolve(place(world, Add(amount=4.0), Site(3))))
    clause = Clause(rule(1.0), 0, 0.0, 1.0).to_json(plan)
    ticket = Ticket("k", 0, {"fingerprint": "f"}, 10, rules=(clause,), judged_from=39)

    def keys(ticket: Ticket, id: str) -> list:
        extra = {KEY: ticket.to_text()}
        return [cache_keys.extra_key(extra, 32 * i, 32 * i + 32, id) for i in range(4)]

    one, two = keys(ticket, "a"), keys(ticket, "b")
    assert one[0] == two[0] and one[1] != two[1] and one[1] is not None and one[2:] == two[2:] == [None] * 2
    assert one == keys(ticket, "a")  # after a preemption it finds its own
    unruled = replace(ticket, rules=())
    assert keys(unruled, "a")[0] == one[0] and keys(unruled, "a")[1] is None
    # Ending a request changes no state, and is shared.
    ends = replace(ticket, rules=(Clause(rule(1.0), 0, 0.0, 1.0, stop=True).to_json(None),))
    assert keys(ends, "a") == keys(unruled, "a")
    both = keys(replace(ticket, first=40), "a")[1]
    assert both is not None and both[1].startswith("f 0 ") and both[1].endswith(" a")
    assert ticket.acts_from == 10 and replace(ticket, first=None).acts_from == 40 and ends.acts_from == 10


def test_the_scheduler_ends_a_request_with_the_token_of_the_step(monkeypatch):
    pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")
    from vllm.v1.core.sched import scheduler as theirs
    from vllm.v1.request import RequestStatus

    from trimtab.engines.vllm import stops

    class Theirs:
        def update_from_output(self, scheduled, output):
            return {r.request_id: self._update_request_with_output(r, [7]) for r in self.requests}

        def _update_request_with_output(self, request, new_token_ids, is_stale=False):
            return new_token_ids, request.request_id == "eos"

    monkeypatch.setattr(theirs, "Scheduler", Theirs)
    for _ in range(2):
        stops.install()
    mine = Theirs()
    mine.requests = [SimpleNamespace(request_id=i, status="running") for i in ("a", "b", "eos")]
    output = SimpleNamespace()
    stops.tell(output, {})
    assert mine.update_from_output(None, output)["a"] == ([7], False)
    stops.tell(output, {"a": "rule", "eos": "rule"})
    found = mine.update_from_output(None, output)
    assert found == {"a": ([7], True), "b": ([7], False), "eos": ([7], True)}
    assert [r.status for r in mine.requests] == [RequestStatus.FINISHED_LENGTH_CAPPED, "running", "running"]
    assert mine.update_from_output(None, SimpleNamespace())["a"] == ([7], False)
