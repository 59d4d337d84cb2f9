"""The vLLM engine's kernel without vLLM: batches of chunks of requests against the token-by-token oracle."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engines.oracles import Trace  # noqa: E402
from engines.registry import coordinates, every_operator, gap, place  # noqa: E402
from engines.subjects import Subject  # noqa: E402
from trimtab.engines.vllm import kernel  # noqa: E402
from trimtab.engines.vllm.bank import Bank  # noqa: E402
from trimtab.engines.vllm.kernel import Item, Kernel  # noqa: E402
from trimtab.engines.vllm.programs import Programs, Stretch, stretches  # noqa: E402
from trimtab.engines.vllm.steps import Span, Tracked, overflown  # noqa: E402
from trimtab.engines.vllm.ticket import KEY, Ticket, plan_json, ticket_of  # noqa: E402
from trimtab.errors import InputError  # noqa: E402
from trimtab.interventions import Ablate, Add, Cap, Deltas, Gate, Pin  # noqa: E402
from trimtab.plans import SteeringPlan  # noqa: E402
from trimtab.prompts import Prompt  # noqa: E402
from trimtab.resolved import ResolvedPlan  # noqa: E402
from trimtab.sites import ModelInfo, Site  # noqa: E402

pytestmark = pytest.mark.engine

LAYERS, WIDTH, LENGTH = 4, 24, 23


class World(Subject):
    """States without a model: layer after layer [LENGTH, WIDTH], each independent of the last, so that an edit shows
    only where it was made. Stands in for a subject, so that plans are those of the contract."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.states = rng.standard_normal((LAYERS, LENGTH, WIDTH)).astype(np.float32)
        widths = {Site(n): WIDTH for n in range(LAYERS)}
        self.info = ModelInfo("world", LAYERS, WIDTH, widths)
        self.engine = SimpleNamespace(info=self.info)  # type: ignore[assignment]
        self.prompt = Prompt(tuple(range(15)))
        self.plain = functools.cache(lambda i: self.trace_of(ResolvedPlan()))

    def trace_of(self, plan: ResolvedPlan) -> Trace:
        trace = Trace(plan)
        for layer in range(LAYERS):
            trace.steer(Site(layer), self.states[layer])
        return trace

    def resolve(self, plan) -> ResolvedPlan:
        return ResolvedPlan() if plan is None else plan.resolve(self.prompt, {}, self.info)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def plans_of(world: World):
    first, last = Site(0), Site(LAYERS - 1)
    found = {"plain": None}
    for site in (first, last):
        found |= {f"{name} at {site}": plan for name, plan in every_operator(world, site).items()}
    gate = Gate(world.direction(first, 1), above=gap(coordinates(world, first, 1)), layer=0, at="after")
    found["gate from below, after"] = place(world, Pin(2.0), first, 1, positions="prompt") | place(
        world, Add(amount=3.0), last, gate=gate
    )
    below = Gate(world.direction(first, 1), below=0.1, layer=0)
    found["two gates"] = place(world, Add(amount=2.0), last, 2, gate=below) | place(
        world, Ablate(), last, gate=gate, renormalise=True
    )
    found["generated"] = place(world, Add(amount=2.0), Site(1), positions="generated")
    found["some, then others"] = (
        place(world, Cap(high=0.1), Site(1), 1, positions={"ranges": [[2, 5], [9, 20]]})
        | place(world, Add(amount=-2.0), Site(1), 2, positions={"after": 11})
        | place(world, Deltas(np.ones((9, WIDTH)), start=10), Site(2))
    )
    return found


class Runner:
    """Feeds chunks of requests to a kernel as a scheduler would, and keeps what comes out."""

    def __init__(self, world: World, split: bool, capacity: int = 64) -> None:
        self.world, self.split = world, split
        self.sent: list = []
        self.kernel = Kernel(range(LAYERS), WIDTH, lambda *x: self.sent.append(x), capacity=capacity)
        self.extra: dict[str, dict[str, str]] = {}
        self.after: dict[str, np.ndarray] = {}
        self.seen: dict[tuple[str, int], np.ndarray] = {}

    def admit(self, id: str, plan: ResolvedPlan, **wants) -> None:
        for name, array in plan.vectors.items():
            self.kernel.put(name, array)
        self.extra[id] = {KEY: Ticket(id, plan=plan_json(plan), **wants).to_text()}
        self.after[id] = np.full((LAYERS, LENGTH, WIDTH), np.nan, np.float32)

    def run(self, chunks: list[tuple[str, int, int]], skip: int | None = None) -> None:
        """One step of (id, first position, count)."""
        items, at = [], 0
        for id, position, count in chunks:
            items.append(Item(id, at, at + count, position, self.extra.get(id)))
            at += count
        self.kernel.begin()
        self.kernel.fill(items)
        for layer in range(LAYERS):
            x = np.concatenate([self.world.states[layer, p : p + n] for _, p, n in chunks])
            residual = np.random.default_rng(layer).standard_normal(x.shape).astype(np.float32)
            hidden = torch.from_numpy(x - residual if self.split else x.copy())
            if layer != skip:
                self.kernel.visit(layer, hidden, torch.from_numpy(residual) if self.split else None)
            done = hidden.numpy() + residual if self.split else hidden.numpy().copy()
            for item, (id, p, n) in zip(items, chunks):
                self.after.setdefault(id, np.full((LAYERS, LENGTH, WIDTH), np.nan, np.float32))
                self.after[id][layer, p : p + n] = done[item.start : item.stop]
            hidden.fill_(float("nan"))  # compiled code gives the memory to somebody else
        self.lost = self.kernel.harvest()


def chunked(ids: list[str], seed: int) -> list[list[tuple[str, int, int]]]:
    """Steps in which every request advances by random chunks, in random order; some sit steps out."""
    rng = np.random.default_rng(seed)
    done, steps = dict.fromkeys(ids, 0), []
    while any(v < LENGTH for v in done.values()):
        step = []
        for id in rng.permutation([i for i in ids if done[i] < LENGTH]):
            if rng.random() < 0.8:
                count = int(min(LENGTH - done[id], rng.integers(1, 8)))
                step.append((str(id), done[id], count))
                done[id] += count
        if step:
            steps.append(step)
    return steps


@pytest.mark.parametrize("split", [False, True], ids=["one tensor", "two tensors"])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_plan_in_one_batch_is_the_oracles(world, split, seed):
    plans = {name: world.resolve(plan) for name, plan in plans_of(world).items()}
    runner = Runner(world, split)
    for name, plan in plans.items():
        runner.admit(name, plan)
    steps = [[(n, 0, LENGTH) for n in plans]] if seed is None else chunked(list(plans), seed)
    for step in steps:
        runner.run(step)
    for name, plan in plans.items():
        want = world.trace_of(plan)
        for layer in range(LAYERS):
            error = np.abs(runner.after[name][layer] - want.after[Site(layer)]).max()
            assert error < 5e-6, f"{name}, layer {layer}: {error}"
    moved = [
        n for n, p in plans.items() if np.abs(world.trace_of(p).after[Site(0)] - world.states[0]).max() > 0.1
    ]
    assert len(moved) > 10, "the plans are too weak to tell anything"


def test_what_is_not_addressed_keeps_its_bits(world):
    site = Site(1)
    inside = place(world, Cap(low=-100.0, high=100.0), site)
    some = place(world, Pin(3.0), site, positions={"ranges": [[4, 6]]})
    runner = Runner(world, split=False)
    runner.admit("cap", world.resolve(inside))
    runner.admit("some", world.resolve(some))
    runner.run([("plain", 0, LENGTH), ("cap", 0, LENGTH), ("some", 0, LENGTH), ("other", 0, 3)])
    assert np.array_equal(runner.after["cap"], world.states)
    assert np.array_equal(runner.after["plain"], world.states)
    changed = (runner.after["some"] != world.states).any(-1)
    assert [tuple(x) for x in np.argwhere(changed)] == [(1, 4), (1, 5)]


@pytest.mark.parametrize("split", [False, True], ids=["one tensor", "two tensors"])
@pytest.mark.parametrize("seed", [None, 3])
def test_captures_and_readings_are_delivered_by_position(world, split, seed):
    plan = world.resolve(place(world, Add(amount=4.0), Site(2)))
    rows = {2: np.eye(3, WIDTH, dtype=np.float32)}
    runner = Runner(world, split)
    runner.kernel.put_readout("r", rows)
    runner.admit("a", plan, capture=(0, 2), ranges=((3, 7), (12, None)), readout="r", reads_from=14)
    runner.admit("b", plan, capture=(2,), ranges=((0, None),), at="before")
    whole = [[("a", 0, LENGTH), ("b", 0, LENGTH)]]
    for step in whole if seed is None else chunked(["a", "b", "plain"], seed):
        runner.run(step)
    want = world.trace_of(plan)
    got: dict = {}
    for _, results in runner.sent:
        for (key, _, layer, readout, positions), states in results:
            at = [i for a, b in positions for i in range(a, b)]
            assert len(at) == len(states)
            for i, state in zip(at, states):
                assert (key, layer, readout, i) not in got, "delivered twice"
                got[key, layer, readout, i] = state
    expected = [3, 4, 5, 6, *range(12, LENGTH)]
    assert sorted(i for k, layer, r, i in got if (k, layer, r) == ("a", 0, "")) == expected
    assert sorted(i for k, _, r, i in got if r) == list(range(14, LENGTH))
    for (key, layer, readout, i), state in got.items():
        truth = want.state(Site(layer), "before" if key == "b" else "after")[i]
        truth = rows[2] @ truth if readout else truth
        assert np.abs(state - truth).max() < 5e-6, (key, layer, readout, i)
    reports = [r for reports, _ in runner.sent for r in reports]
    assert sum(count for key, _, _, count, _ in reports if key == "a") == LENGTH
    assert {key for key, *_ in reports} == {"a", "b"} and not any(lost for *_, lost in reports)


def test_a_layer_that_is_never_reached_loses_the_request(world):
    runner = Runner(world, split=False)
    runner.admit("a", world.resolve(place(world, Add(amount=4.0), Site(2))))
    runner.run([("a", 0, LENGTH)], skip=3)
    ((reports, results),) = runner.sent
    assert "layers [3] were never reached" in reports[0][-1] and results == []


@pytest.mark.parametrize("split", [False, True], ids=["one tensor", "two tensors"])
@pytest.mark.parametrize("kind", ["overflow", "not a number"])
def test_a_plan_that_breaks_states_loses_its_request_alone(world, split, kind):
    """Batchmates keep their bits, and the next step of everybody else is clean."""
    mild, last = world.resolve(place(world, Add(amount=4.0), Site(2))), Site(LAYERS - 1)
    strong = SteeringPlan(place(world, Add(amount=3e38), last).placements * 9)
    if kind == "not a number":
        strong = strong | place(world, Ablate(), last)
    seen = []
    for bad in (mild, world.resolve(strong)):
        runner = Runner(world, split)
        runner.admit("good", mild)
        runner.admit("bad", bad)
        runner.run([("good", 0, 5), ("bad", 0, 9), ("plain", 0, 4)])
        seen.append((runner, dict(runner.lost)))
        runner.run([("good", 5, 7), ("plain", 4, 3)])
        assert runner.lost == {}
    (calm, none), (storm, lost) = seen
    assert none == {} and list(lost) == ["bad"] and "not finite" in lost["bad"] and "3" in lost["bad"]
    assert not np.isfinite(storm.after["bad"][-1, :9]).all()
    for id in ("good", "plain"):
        assert np.array_equal(calm.after[id], storm.after[id], equal_nan=True)
    storm.run([("bad", 9, 1)])
    assert list(storm.lost) == ["bad"]  # and stays lost


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_overflow_is_seen_in_the_type_of_the_activations(dtype):
    """Two halves of a state may be finite where their sum, which the next layer computes, is not."""
    big = float(torch.finfo(dtype).max)

    def span(start: int, steered: bool) -> Span:
        return Span(
            Tracked(f"r{start}", Ticket("k"), (Stretch(0, None, None),) * steered), start, start + 2, 0
        )

    spans = [span(0, True), span(2, False), span(4, True), span(6, True)]
    hidden, residual = (torch.zeros(8, WIDTH, dtype=dtype) for _ in range(2))
    assert overflown(spans, hidden, residual) == []
    hidden[0, 3] = residual[0, 4] = hidden[1, 3] = big  # large, and finite
    hidden[2, 1] = torch.nan  # a plain request's own affair
    assert overflown(spans, hidden, residual) == []
    hidden[5, 0] = residual[5, 0] = 0.75 * big
    hidden[6, 0] = torch.nan
    assert [s.start for s in overflown(spans, hidden, residual)] == [4, 6]
    residual[5, 0] = 0.0
    assert [s.start for s in overflown(spans, hidden, residual)] == [6]
    assert [s.start for s in overflown(spans, hidden, None)] == [6]


def test_large_states_that_are_finite_are_no_loss(world):
    runner = Runner(world, split=False)
    runner.admit("big", world.resolve(place(world, Add(amount=3e38), Site(LAYERS - 1))))
    runner.run([("big", 0, LENGTH)])
    assert runner.lost == {} and np.isfinite(runner.after["big"]).all()


@pytest.mark.parametrize("damage", ["text", "fingerprint", "array", "readout", "version"])
def test_a_bad_request_is_lost_alone(world, damage):
    plan = world.resolve(place(world, Add(amount=4.0), Site(2)))
    runner = Runner(world, split=False)
    runner.admit("good", plan)
    runner.admit("bad", plan)
    text = runner.extra["bad"][KEY]
    if damage == "text":
        text = "{"
    elif damage == "fingerprint":
        text = text.replace('"shift":4.0', '"shift":5.0')
    elif damage == "array":
        text = text.replace(next(iter(plan.vectors)), "0" * 32)
    elif damage == "readout":
        text = Ticket("bad", readout="nobody").to_text()
    else:
        text = text.replace('"version":1', '"version":0')
    assert text != runner.extra["bad"][KEY]
    runner.extra["bad"] = {KEY: text}
    runner.run([("good", 0, LENGTH), ("bad", 0, LENGTH)])
    lost = {id: reason for reports, _ in runner.sent for _, id, _, _, reason in reports}
    assert lost["good"] == "" and len(lost["bad"]) > 15
    assert np.array_equal(runner.after["bad"], world.states)
    assert np.abs(runner.after["good"] - world.states).max() > 0.5


def test_nothing_leaks_and_rows_are_shared(world):
    runner = Runner(world, split=False, capacity=3)
    address = runner.kernel.bank.rows.data_ptr()
    sweep = {f"s{i}": world.resolve(place(world, Add(amount=0.1 * i + 0.1), Site(1))) for i in range(40)}
    for id, plan in sweep.items():
        runner.admit(id, plan)
    runner.run([(id, 0, LENGTH) for id in sweep])
    assert runner.kernel.counts()["bank"] == 1 and runner.kernel.counts()["programs"] == 40
    for id, plan in sweep.items():
        assert np.abs(runner.after[id] - np.stack([*world.trace_of(plan).after.values()])).max() < 5e-6
    runner.kernel.finish(sweep)
    # Other vectors take the same rows; a step that kept the old edits would apply the old ones.
    for turn in range(3):
        plans = {f"t{i}": world.resolve(place(world, Pin(5.0), Site(1), 10 * turn + i)) for i in range(3)}
        for id, plan in plans.items():
            runner.admit(id, plan)
        runner.run([(id, 0, LENGTH) for id in plans])
        for id, plan in plans.items():
            assert np.abs(runner.after[id] - np.stack([*world.trace_of(plan).after.values()])).max() < 5e-6
        runner.kernel.finish(plans)
    counts = runner.kernel.counts()
    assert (counts["requests"], counts["programs"], counts["bank"]) == (0, 0, 0)
    assert runner.kernel.bank.rows.data_ptr() == address, "a captured graph would read the old rows"


def test_the_engine_leaves_the_number_of_threads_to_vllm():
    sources = [p.read_text(encoding="utf-8") for p in Path(kernel.__file__).parent.glob("*.py")]
    assert len(sources) > 20 and not any("set_num_threads" in s for s in sources)


def test_a_full_bank_refuses_in_words_and_keeps_nothing(world):
    bank = Bank(2, WIDTH)
    programs = Programs(bank)
    plan = ResolvedPlan()
    for i in range(3):
        plan = world.resolve(place(world, Pin(1.0), Site(0), i) | place(world, Pin(1.0), Site(1), i + 10))
        if i == 0:
            held = programs.acquire(plan)
    with pytest.raises(InputError, match="bank"):
        programs.acquire(plan)
    assert len(programs) == 1 and len(bank) == 2
    programs.release(held)
    assert len(programs) == len(bank) == 0


def test_stretches_cut_where_the_set_of_placements_changes(world):
    plan = world.resolve(
        place(world, Pin(1.0), Site(0), positions={"ranges": [[2, 5], [9, None]]})
        | place(world, Pin(1.0), Site(1), positions={"ranges": [[4, 9]]})
    )
    assert stretches(plan) == [(0, 2), (2, 4), (4, 5), (5, 9), (9, None)]


def test_tickets_travel_whole():
    ticket = Ticket("k", 3, None, 4, (1, 2), ((0, 3), (5, None)), "before", "r", "after", 7)
    assert ticket_of({KEY: ticket.to_text(), "other": 1}) == ticket
    assert ticket_of(None) is None and ticket_of({"other": "x"}) is None
