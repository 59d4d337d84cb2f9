"""A batch that runs on: whoever joins or leaves, everybody gets what they get alone."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import trimtab
from trimtab.directions import Direction
from trimtab.engines.base import Engine
from trimtab.engines.joining import Failure, OpenBatch
from trimtab.engines.requests import CaptureSpec, Event, Request, Sample, Sampling, Verdict
from trimtab.engines.turns import Turns
from trimtab.errors import Unsupported
from trimtab.interventions import Ablate, Add, Cap, Gate
from trimtab.plans import Placement, SteeringPlan
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

TOLERANCE = {"reference": 1e-9, "transformers": 2e-4, "mlx": 2e-4}
pytestmark = pytest.mark.slow

PROMPTS = ("I feel", "In the morning she", "One day the old man went to the market and", "They", "It was a")
#: Transformers models whose caches differ in kind: full, windows, a window beside full, a running state.
TINY = ("llama", "mistral", "gemma2", "qwen3-next")
REAL = [pytest.param(name, marks=pytest.mark.engine) for name in ("transformers", "mlx", *TINY)]


@pytest.fixture(scope="module", params=["reference", *REAL])
def engine(request):
    name = "transformers" if request.param in TINY else request.param
    if name != "reference" and find_spec({"mlx": "mlx_lm"}.get(name, name)) is None:
        pytest.skip(f"{name} is not installed")
    if request.param in TINY:
        from engines.tiny import FAMILIES, Words
        from trimtab.engines.transformers import TransformersEngine

        yield TransformersEngine(FAMILIES[request.param](), Words(), id=request.param)
        return
    more = {} if name == "reference" else {"dtype": "float32"}
    with trimtab.load_engine("tiny" if name == "reference" else "embedded", name, **more) as found:
        yield found


def prompts(engine: Engine) -> list[Any]:
    """Prompts of different lengths, the longest past a window of the tiny models."""
    if engine.info.id in TINY:
        return [
            engine.encode([3 + (7 * i * (t + 1)) % 120 for t in range(n)])
            for i, n in enumerate((2, 5, 11, 1, 4), 1)
        ]
    return [engine.encode(p, bare=True) for p in PROMPTS]


def direction(engine: Engine, seed: int, layer: int = 1) -> Direction:
    row = np.random.default_rng(seed).standard_normal(engine.info.hidden_size)
    return Direction(f"d{seed}", Site(layer), row / np.linalg.norm(row))


def requests(engine: Engine) -> list[Request]:
    """Requests that differ in everything: prompt, plan, sampling, length, what is read and captured."""
    p, site = prompts(engine), Site(1)
    d = [direction(engine, i) for i in range(4)]
    (states,) = engine.capture(p[2], [site])
    size = float(np.linalg.norm(states[site], axis=1).mean())

    def plan(op: Any, k: int, **more: Any) -> SteeringPlan:
        return SteeringPlan((Placement(op, d[k], **more),))

    rows = np.stack([d[0].unit, d[3].unit])
    read = Readout(("a", "b"), {site: rows}, {site: np.zeros(2)}, {site: np.ones(2)})
    cold = Sampling(max_tokens=9, ignore_eos=True)
    warm = replace(cold, temperature=0.9, seed=11, top_p=0.9)
    every = CaptureSpec((Site(0), site))
    gate = Gate(direction(engine, 9, 0), above=0.0, layer=0)
    return [
        Request(p[0], None, replace(cold, max_tokens=14), every, read),
        Request(p[1], plan(Add(amount=0.6 * size), 0), warm, every, read),
        Request(p[2], plan(Ablate(), 1), replace(warm, n=3, seed=5), CaptureSpec((site,), "generated")),
        Request(p[3], plan(Add(amount=-0.5 * size), 2, positions="generated"), replace(cold, max_tokens=4)),
        Request(p[2], None, replace(warm, top_k=5, max_tokens=1), None, read),
        Request(p[4], plan(Add(amount=0.6 * size), 0, gate=gate), replace(cold, max_tokens=12), every),
        Request(p[1], plan(Cap(high=0.0), 3, positions={"after": 6}), replace(cold, n=2), None, read),
        Request(p[0], None, replace(warm, max_tokens=6), CaptureSpec((Site(0),), "prompt", "before")),
    ]


def same(got: Sample, want: Sample, tolerance: float, what: str) -> None:
    """Tokens and receipts equal, numbers within tolerance."""
    assert got.tokens == want.tokens and got.text == want.text and got.finish == want.finish, what
    assert got.applied == want.applied, what
    np.testing.assert_allclose(got.logprobs, want.logprobs, atol=tolerance, err_msg=what)
    assert (got.capture is None, got.readings is None) == (want.capture is None, want.readings is None), what
    if want.capture is not None and got.capture is not None:
        assert np.array_equal(got.capture.positions, want.capture.positions), what
        for site, states in want.capture.values.items():
            bound = tolerance * max(1.0, float(abs(states).max(initial=0)))
            np.testing.assert_allclose(got.capture[site], states, atol=bound, err_msg=what)
    if want.readings is not None and got.readings is not None:
        bound = tolerance * max(1.0, float(abs(want.readings.values).max()))
        np.testing.assert_allclose(got.readings.values, want.readings.values, atol=bound, err_msg=what)


class Host:
    """Drives an open batch: requests join at their steps, and some leave at others."""

    def __init__(self, batch: OpenBatch) -> None:
        self.batch = batch
        self.events: dict[int, list[Event]] = {}
        self.failures: dict[int, Exception] = {}
        self.together: list[int] = []

    def run(
        self, joins: dict[int, list[tuple[int, Request]]], leaves: dict[int, list[int]] | None = None
    ) -> None:
        """Until all are done."""
        step, last = 0, max([*joins, *(leaves or {})])
        while step <= last or not self.batch.idle:
            for key, request in joins.get(step, ()):
                self.batch.join(key, self.batch.engine.prepare(request))
            for key in (leaves or {}).get(step, ()):
                self.batch.leave(key)
                self.events[key] = []
            for found in self.batch.step():
                if isinstance(found, Failure):
                    self.failures[found.request] = found.error
                else:
                    self.events.setdefault(found.request, []).append(found)
            self.together.append(self.batch.active)
            step += 1
            assert step < 500

    def samples(self, key: int) -> list[Sample]:
        """The finished samples; what was streamed of each adds up to it."""
        found: dict[int, Sample] = {}
        for e in self.events[key]:
            if e.sample is not None:
                mine = [x for x in self.events[key] if x.index == e.index]
                assert e is mine[-1]
                assert tuple(x.token for x in mine[:-1]) == e.sample.tokens
                assert "".join(x.text for x in mine) == e.sample.text
                if e.sample.readings is not None:
                    assert np.array_equal([x.reading for x in mine[:-1]], e.sample.readings.values)
                found[e.index] = e.sample
        return [found[i] for i in range(len(found))]


@pytest.mark.parametrize(("seed", "rows", "piece"), [(0, 16, None), (1, 3, None), (2, 5, 3)])
def test_joins_and_leaves_change_nothing(engine, monkeypatch, seed, rows, piece):
    many = requests(engine)
    alone = [engine.generate(r)[0] for r in many]
    if piece is not None and engine.name != "reference":
        module = __import__(f"trimtab.engines.{engine.name}.generation", fromlist=["x"])
        monkeypatch.setattr(module, "PIECE", {"cpu": piece} if engine.name == "transformers" else piece)
    random = np.random.default_rng(seed)
    order = [*range(len(many)), *range(len(many))]
    random.shuffle(order)
    joins: dict[int, list[tuple[int, Request]]] = {}
    for key, i in enumerate(order):
        joins.setdefault(int(random.integers(0, 16)), []).append((key, many[i]))
    gone = {int(k) for k in random.choice(len(order), 3, replace=False)}
    leaves: dict[int, list[int]] = {}
    for step, joined in joins.items():
        for key, _ in joined:
            if key in gone:
                leaves.setdefault(step + int(random.integers(1, 6)), []).append(key)
    host = Host(engine.open_batch(rows))
    host.run(joins, leaves)
    assert not host.failures and host.batch.active == 0
    assert 1 < max(host.together) <= rows
    for key, i in enumerate(order):
        if key in gone:
            assert host.events[key] == []  # nothing after it left
            continue
        got = host.samples(key)
        assert len(got) == many[i].sampling.n
        for j, (mine, want) in enumerate(zip(got, alone[i].samples, strict=True)):
            same(mine, want, TOLERANCE[engine.name], f"request {i} sample {j} as {key} of {order}")


class At:
    """Gives one verdict at one position."""

    def __init__(self, position: int, verdict: Verdict, plans: tuple[ResolvedPlan, ...] = ()) -> None:
        self.position, self.verdict, self.plans = position, verdict, plans

    def see(self, index: int, position: int, reading: np.ndarray) -> Verdict | None:
        return self.verdict if position == self.position else None


def test_rules_act_in_their_own_row_of_a_running_batch(engine):
    first, steered, stopped = (requests(engine)[i] for i in (0, 0, 0))
    length = len(first.prompt)
    switch = engine.resolve(
        SteeringPlan.add(direction(engine, 0), amount=30.0, positions={"after": length + 3}), first.prompt
    )
    (want,) = engine.generate(replace(first, plan=switch))
    (plain,) = engine.generate(first)
    steered = replace(first, monitor=At(length + 3, Verdict(plan=switch), (switch,)))
    stopped = replace(first, monitor=At(length + 5, Verdict(stop=True)))
    host = Host(engine.open_batch(8))
    host.run({0: [(0, first)], 2: [(1, steered)], 4: [(2, stopped)], 9: [(3, first)]})
    tolerance = TOLERANCE[engine.name]
    for key in (0, 3):
        same(host.samples(key)[0], plain.samples[0], tolerance, f"plain {key}")
    same(host.samples(1)[0], want.samples[0], tolerance, "switched")
    (cut,) = host.samples(2)
    assert cut.finish == "stop" and cut.tokens == plain.tokens[:7]


def test_what_is_wrong_with_newcomers_is_theirs_alone(engine, monkeypatch):
    first, second = requests(engine)[0], requests(engine)[5]
    (want,) = engine.generate(first)
    host = Host(engine.open_batch(8))
    begin, calls = host.batch.opening.begin, []

    def failing(places):
        calls.append(len(places))
        if len(calls) == 2:
            raise RuntimeError("no room")
        return begin(places)

    host.batch.opening = replace(host.batch.opening, begin=failing)
    host.run({0: [(0, first)], 3: [(1, second)], 6: [(2, first)]})
    assert list(host.failures) == [1] and "no room" in str(host.failures[1])
    for key in (0, 2):
        same(host.samples(key)[0], want.samples[0], TOLERANCE[engine.name], f"beside a failure, {key}")


def test_a_broken_step_ends_those_who_run_and_nobody_else(engine, monkeypatch):
    first, second = requests(engine)[0], requests(engine)[5]
    (want,) = engine.generate(second)
    host = Host(engine.open_batch(1))  # the second waits in line while the first runs
    real, broken = engine._lock, []
    complete = "trimtab.engines.joining.complete"

    def spoiled(event, request, info):
        if event.request == 0 and not broken:
            broken.append(event)
            raise RuntimeError("broken")
        return event

    monkeypatch.setattr(complete, spoiled)
    host.run({0: [(0, first), (1, second)]})
    assert list(host.failures) == [0] and engine._lock is real
    same(host.samples(1)[0], want.samples[0], TOLERANCE[engine.name], "after a broken step")


def test_a_newcomer_waits_for_room_in_the_caches(engine):
    request = replace(requests(engine)[0], capture=None, readout=None)
    reach = len(request.prompt) + request.sampling.max_tokens
    batch = engine.open_batch(8)
    batch.opening = replace(batch.opening, cells=2 * reach)
    host = Host(batch)
    host.run({0: [(k, request) for k in range(5)]})
    assert max(host.together) == 2 and len(host.events) == 5
    batch.opening = replace(batch.opening, cells=1)  # too little for anybody: one at a time all the same
    host.run({0: [(k, request) for k in range(5, 8)]})
    assert {len(host.samples(k)) for k in range(8)} == {1}


def test_short_prompts_begin_together_and_a_long_one_alone():
    engine = trimtab.load_engine("tiny", "reference")
    batch, begun = engine.open_batch(6), []
    begin = batch.opening.begin

    def recorded(places):
        begun.append([(key, index) for key, index, _ in places])
        return begin(places)

    batch.opening = replace(batch.opening, begin=recorded, piece=10)
    greedy = Sampling(max_tokens=8, ignore_eos=True)
    lengths, n = (4, 5, 3, 40, 40, 2, 2), {3: 2, 6: 3}
    joins = [
        (k, Request(engine.encode([3] * length), None, replace(greedy, n=n.get(k, 1))))
        for k, length in enumerate(lengths)
    ]
    host = Host(batch)
    host.run({0: joins})
    assert begun[:3] == [[(0, 0), (1, 0)], [(2, 0)], [(3, 0), (3, 1)]]
    assert begun[3] == [(4, 0)]  # the sixth row; the others wait for one that is free
    assert [place for group in begun[4:] for place in group] == [(5, 0), (6, 0), (6, 1), (6, 2)]
    assert max(host.together) == 6


def test_captures_get_their_turn_between_two_tokens(engine, monkeypatch):
    batch = engine.open_batch(4)
    batch.join(
        0, engine.prepare(replace(requests(engine)[0], sampling=Sampling(max_tokens=60, ignore_eos=True)))
    )
    done, turns, steps, real = [], [], 0, engine._capture

    def capture(*items):
        turns.append(steps)
        return real(*items)

    monkeypatch.setattr(engine, "_capture", capture)
    prompt = prompts(engine)[1]
    beside = threading.Thread(target=lambda: done.append(engine.capture(prompt, [0])))
    while not batch.idle:
        if steps == 2:
            with engine._lock:  # until it waits in line
                beside.start()
                while not engine._lock._waiting:
                    assert beside.is_alive()
                    time.sleep(0.001)
        for _ in batch.step():
            pass
        steps += 1
    beside.join(60)
    assert len(done) == 1 and turns == [2] and steps >= 60


def test_turns_are_given_in_order_and_taken_again_by_the_holder():
    turns, order, ready = Turns(), [], []

    def wait(name):
        ready.append(name)
        with turns, turns:
            order.append(name)

    threads = []
    with turns:
        for name in "abcd":
            threads.append(threading.Thread(target=wait, args=(name,)))
            threads[-1].start()
            while len(turns._waiting) < len(threads):
                pass
        with turns:
            order.append("holder")
    for t in threads:
        t.join(60)
    assert order == ["holder", *"abcd"] and turns._owner is None
    with pytest.raises(RuntimeError, match="does not hold"):
        turns.__exit__()


def test_an_engine_without_open_batches_says_so():
    class Plain(trimtab.engines.engine_class("reference")):  # type: ignore[misc]
        _opening = Engine._opening

    with pytest.raises(Unsupported, match="fixed groups"):
        Plain.load("tiny").open_batch(4)


def test_caches_that_cannot_be_merged_are_named(engine, monkeypatch):
    if engine.name == "transformers":
        from transformers.cache_utils import DynamicCache, LinearAttentionAndFullAttentionLayer

        layers = [*engine.forward.cache(1).layers, LinearAttentionAndFullAttentionLayer()]
        strange = DynamicCache()
        strange.layers = layers
        monkeypatch.setattr(engine.forward, "cache", lambda capacity: strange)
        kind = "LinearAttentionAndFullAttentionLayer"
    elif engine.name == "mlx":
        monkeypatch.setattr(engine, "ragged", False)
        kind = "KVCache"
    else:
        pytest.skip("the reference engine's tracks are never merged")
    with pytest.raises(Unsupported, match=f"fixed groups: caches of the kinds? {kind}"):
        engine.open_batch(4)
