"""Handles of captured states, where the states lie, and requests that somebody hands to vLLM himself. Without vLLM."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import pickle
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq", reason="results come over a local socket: pip install 'trimtab[vllm]'")

from trimtab.directions import Direction
from trimtab.engines.handles import CaptureHandle, fetch_all
from trimtab.engines.requests import Capture, CaptureSpec, Request, Sampling
from trimtab.engines.vllm import captured, passenger
from trimtab.engines.vllm.captured import Captured, Memory
from trimtab.engines.vllm.ledger import Ledger
from trimtab.engines.vllm.passenger import Passenger
from trimtab.engines.vllm.shelf import Shelf
from trimtab.engines.vllm.ticket import KEY, Ticket
from trimtab.errors import InputError, SteeringLost
from trimtab.interventions import Add
from trimtab.plans import Placement, SteeringPlan
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.sites import ModelInfo, Site

pytestmark = pytest.mark.engine
SITES = (Site(1), Site(3))
WIDTH = 4


def states(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, WIDTH)).astype(np.float32)


@pytest.fixture
def memory(monkeypatch):
    """An account of its own, with room for three captures of ten rows."""
    found = Memory(3 * 10 * WIDTH * 4)
    monkeypatch.setattr(captured, "MEMORY", found)
    return found


def files(folder: Path) -> int:
    """How often this process holds a file of this folder, by descriptor or as memory."""
    held = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if os.path.islink(link)]
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sum(str(folder) in line for line in (*held, *maps))


class Counting:
    """States that count how often they are read."""

    width = WIDTH

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.reads = rows, 0

    def at(self, positions: np.ndarray) -> np.ndarray:
        self.reads += 1
        return self.rows[positions]


# --- handles -------------------------------------------------------------------------------------------------------


def test_nothing_is_read_before_somebody_asks():
    held = {s: Counting(states(9, s.layer)) for s in SITES}
    handle = CaptureHandle(held, np.array([2, 3, 7]), "before")
    assert handle.shapes == dict.fromkeys(SITES, (3, WIDTH)) and handle.nbytes == 2 * 3 * WIDTH * 4
    assert "3 rows" in repr(handle) and handle.at == "before" and len(handle.positions) == 3
    assert [h.reads for h in held.values()] == [0, 0]
    assert np.array_equal(handle[3], held[SITES[1]].rows[[2, 3, 7]])
    assert [h.reads for h in held.values()] == [0, 1]
    got = handle.fetch()
    assert type(got) is Capture and got.at == "before" and np.array_equal(got.positions, [2, 3, 7])
    for site in SITES:
        assert np.array_equal(got[site], held[site].rows[[2, 3, 7]])
    assert got.fetch() is got and got.shapes == handle.shapes


def test_fetching_many_in_a_coroutine_and_sending_one_elsewhere():
    handles = [CaptureHandle({Site(1): Counting(states(5, i))}, np.arange(1, 4)) for i in range(3)]

    async def one() -> Capture:
        return await handles[0].fetch()

    found = asyncio.run(one())
    assert np.array_equal(found[1], states(5)[1:4])
    for i, got in enumerate(fetch_all(handles)):
        assert np.array_equal(got[1], states(5, i)[1:4])
    there = pickle.loads(pickle.dumps(handles[2]))
    assert type(there) is Capture and np.array_equal(there[1], states(5, 2)[1:4])


def test_a_closed_handle_says_so_and_what_was_fetched_lives_on(memory):
    held = Captured(10, WIDTH)
    held.keep([(0, 10)], states(10))
    with CaptureHandle({Site(1): held}, np.arange(4, 9)) as handle:
        got = handle.fetch()
    del held
    for ask in (handle.fetch, lambda: handle.values, lambda: handle[1], lambda: handle.shapes):
        with pytest.raises(InputError, match="closed"):
            ask()
    handle.close()
    assert repr(handle) == "CaptureHandle(closed)"
    gc.collect()
    assert memory.taken == 10 * WIDTH * 4 and np.array_equal(got[1], states(10)[4:9])
    del got
    gc.collect()
    assert memory.taken == 0


# --- where states lie ----------------------------------------------------------------------------------------------


def test_memory_is_counted_as_it_is_written_and_given_back_by_whoever_looked_last(memory):
    first = Captured(100, WIDTH)
    assert memory.taken == 0  # nothing is written yet
    first.keep([(3, 8)], states(5))
    first.keep([(5, 9), (98, 105)], states(11, 1))  # after a preemption, and a step more than asked for
    assert memory.taken == (6 + 2) * WIDTH * 4
    window = first.at(np.arange(3, 9))
    assert np.array_equal(window[:2], states(5)[:2]) and np.array_equal(window[2:], states(11, 1)[:4])
    del first
    gc.collect()
    assert memory.taken == (6 + 2) * WIDTH * 4
    del window
    gc.collect()
    assert memory.taken == 0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at what the process holds in /proc")
def test_beyond_the_limit_captures_share_a_file_that_goes_with_the_last_of_them(
    memory, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held = []
    for i in range(6):
        held.append(Captured(10, WIDTH))
        held[-1].keep([(0, 4)], states(10, i)[:4])
        held[-1].keep([(4, 10)], states(10, i)[4:])
    assert [h.in_file for h in held] == [False] * 3 + [True] * 3
    assert files(tmp_path) == 1 and not list(tmp_path.iterdir())
    found = [h.at(np.arange(10)) for h in held]
    assert files(tmp_path) > 1, "nobody has looked at the file"
    held[4].keep([(9, 10)], states(1, 9))  # what is computed again is seen by whoever has fetched
    found[4][0] = 7.0  # and whoever changes what he has changes nobody else's
    for i, rows in enumerate(found):
        want = states(10, i)
        if i == 4:
            want[0], want[9] = 7.0, states(1, 9)[0]
        assert np.array_equal(rows, want)
    assert np.array_equal(held[5].at(np.array([1, 4, 8])), states(10, 5)[[1, 4, 8]])
    last = found[5]
    del held, found, rows
    gc.collect()
    assert files(tmp_path) > 0 and np.array_equal(last, states(10, 5))
    del last
    gc.collect()
    assert files(tmp_path) == 0 and memory.taken == 0


def test_a_full_disk_loses_the_request_and_nothing_else(memory, monkeypatch):
    book = Ledger()
    record, other = book.open("a", 40), book.open("b", 40)
    memory.limit = 0

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        book.take([("a", "id", 0, 3, "")], [(("a", "id", 1, "", ((0, 3),)), states(3))])
    book.take([("b", "id", 0, 3, "")], [(("b", "id", 1, "", ((0, 3),)), states(3))])
    with pytest.raises(SteeringLost, match="no room.*No space left"):
        book.whole(record, 0, 3)
    book.whole(other, 0, 3)
    assert np.array_equal(other.rows(1, np.arange(3)), states(3))


# --- passengers ----------------------------------------------------------------------------------------------------

TOKENS = (5, 6, 7)


class Workers:
    """An engine as far as a passenger sees it, and what its workers are told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.shelf = Shelf(lambda method, *args: self.calls.append(method))
        self.ledger, self.epoch, self.parted = Ledger(), 0, deque()
        self.info = ModelInfo("made-up", 4, WIDTH, {Site(i): WIDTH for i in range(4)})
        self.keys = iter(f"key{i}" for i in range(99))

    def new_key(self) -> str:
        return next(self.keys)

    def plan(self) -> Any:
        vector = Direction("some", Site(1), np.eye(WIDTH, dtype=np.float32)[0])
        plan = SteeringPlan((Placement(Add(amount=2.0), vector, 1, positions="generated"),))
        return plan.resolve(Prompt(TOKENS), {}, self.info)

    def board(self, n: int = 1, **wants: Any) -> Passenger:
        params = SimpleNamespace(
            n=n, logprobs=None, extra_args={"theirs": 1}, skip_reading_prefix_cache=None, max_tokens=8
        )
        sampling = Sampling(max_tokens=8, n=n)
        return Passenger(self, Request(Prompt(TOKENS), self.plan(), sampling, **wants), params)  # type: ignore[arg-type]

    def run(self, ride: Passenger, tokens: int, id: str = "7-abcd", seed: int = 0, lost: str = "") -> None:
        """What the workers say of a sample: one step for the prompt, one for every token but the last."""
        ticket = Ticket.from_text(ride.params.extra_args[KEY])
        rows = states(len(TOKENS) + tokens - 1, seed)
        steps = [(0, len(TOKENS)), *((p, p + 1) for p in range(len(TOKENS), len(rows)))]
        for a, b in steps:
            results = [((ticket.key, id, n, "", ((a, b),)), rows[a:b] + n) for n in ticket.capture]
            if ticket.readout is not None:
                results += [((ticket.key, id, 2, ticket.readout, ((a, b),)), rows[a:b, :1])]
            self.ledger.take([(ticket.key, id, a, b - a, lost)], results)


def output(*samples: int, tokens: tuple[int, ...] = TOKENS, finish: str = "length", **more: Any) -> Any:
    """vLLM's last output, of samples of so many tokens."""
    outputs = [
        SimpleNamespace(
            index=i, token_ids=list(range(n)), text="x" * n, finish_reason=finish, stop_reason="why",
            logprobs=[{t: SimpleNamespace(logprob=-float(t))} for t in range(n)],
        )
        for i, n in enumerate(samples)
    ]  # fmt: skip
    return SimpleNamespace(
        **({"finished": True, "prompt_token_ids": list(tokens), "outputs": outputs} | more)
    )


def test_a_completion_of_what_vllm_was_handed():
    workers = Workers()
    readout = Readout(("a",), {Site(2): np.eye(1, WIDTH)}, {Site(2): np.ones(1)}, {Site(2): np.full(1, 2.0)})
    ride = workers.board(capture=CaptureSpec(SITES, "generated"), readout=readout)
    assert ride.params.extra_args["theirs"] == 1 and ride.params.logprobs == 0
    assert ride.prompt == {"prompt_token_ids": [5, 6, 7]} and ride.params.skip_reading_prefix_cache is None
    workers.run(ride, 4)
    done = asyncio.run(ride.acompletion(output(4)))
    (sample,) = done.samples
    assert done.prompt.tokens == TOKENS and sample.tokens == (0, 1, 2, 3) and sample.text == "xxxx"
    assert np.array_equal(sample.logprobs, [0, -1, -2, -3]) and sample.finish == "length"
    assert sample.applied.fingerprint == workers.plan().fingerprint and sample.applied.tokens_steered == 3
    assert isinstance(sample.capture, CaptureHandle) and list(sample.capture.positions) == [3, 4, 5]
    for site in SITES:
        assert np.array_equal(sample.capture.fetch()[site], (states(6) + site.layer)[3:])
    assert sample.readings is not None and list(sample.readings.positions) == [2, 3, 4, 5]
    assert np.allclose(sample.readings.values[:, 0, 0], (states(6)[2:, 0] - 1) / 2)
    assert len(workers.ledger) == 0 and len(workers.parted) == 2
    with pytest.raises(InputError, match="completed, or closed"):
        ride.completion(output(4))


def test_samples_of_one_request_each_have_their_own_states():
    workers = Workers()
    ride = workers.board(n=2, capture=CaptureSpec((Site(1),)))
    assert ride.params.skip_reading_prefix_cache is True
    workers.run(ride, 3, "0_7-abcd", seed=1)
    workers.run(ride, 5, "1_7-abcd", seed=2)
    for seed, sample in enumerate(ride.completion(output(3, 5)).samples, 1):
        assert np.array_equal(sample.capture[1], states(len(TOKENS) + len(sample.tokens) - 1, seed) + 1)  # type: ignore[index]


def test_a_capture_of_no_rows_has_the_width_of_its_layer():
    workers = Workers()
    ride = workers.board(capture=CaptureSpec((Site(1),), "generated"))
    workers.run(ride, 1)
    (sample,) = ride.completion(output(1)).samples
    assert sample.capture is not None and sample.capture[1].shape == (0, WIDTH)


@pytest.mark.parametrize(
    ("made", "lost", "match"),
    [
        (output(4, finish="error"), "", "withheld: why"),
        (output(4, tokens=(5, 6, 8)), "", "another prompt"),
        (output(4), "layers [3] were never reached", "never reached"),
    ],
)
def test_what_was_not_steered_is_no_completion_and_the_next_one_trusts_nothing(made, lost, match):
    workers = Workers()
    ride = workers.board()
    workers.run(ride, 4, lost=lost)
    with pytest.raises(SteeringLost, match=match):
        ride.completion(made)
    assert len(workers.ledger) == 0 and len(workers.parted) == 1
    if "prompt" not in match:
        assert workers.epoch == 1
        workers.board().close()
        assert workers.calls.count("trimtab_put") == 2


def test_a_passenger_that_is_forgotten_leaves_nothing():
    workers = Workers()
    ride = workers.board(capture=CaptureSpec(SITES))
    workers.run(ride, 2)
    with pytest.raises(InputError, match="not done"):
        ride.completion(output(2, finished=False))
    assert len(workers.ledger) == 1 and not workers.parted
    del ride
    gc.collect()
    assert len(workers.ledger) == 0 and len(workers.parted) == 1
    with workers.board():
        pass
    assert len(workers.ledger) == 0 and len(workers.parted) == 2


@pytest.mark.parametrize(
    ("kind", "n", "extra", "match"),
    [
        ("DELTA", 1, None, "FINAL_ONLY"),
        ("CUMULATIVE", 2, None, "FINAL_ONLY"),
        ("FINAL_ONLY", 1, {KEY: "{}"}, "there already"),
        ("CUMULATIVE", 1, None, ""),
    ],
)
def test_parameters_that_would_not_bring_back_a_whole_answer_are_refused(kind, n, extra, match):
    params = SimpleNamespace(output_kind=SimpleNamespace(name=kind), n=n, extra_args=extra, max_tokens=None)
    if match:
        with pytest.raises(InputError, match=match):
            passenger.check(params, 100, 3, False)
    if match != "there already":
        assert passenger.check(params, 100, 3, bool(match)) == 97  # an LLM gives whole outputs anyway
