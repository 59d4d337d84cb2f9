"""Monitors: a verdict takes effect at its token, in one sample, while the samples beside it run on untouched."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

import trimtab
from trimtab.directions import Direction
from trimtab.engines.requests import Request, Sampling, Verdict
from trimtab.errors import InputError
from trimtab.plans import SteeringPlan
from trimtab.readouts import Readout
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

TOKENS, AT = 12, 4


REAL = [pytest.param(name, marks=pytest.mark.engine) for name in ("transformers", "mlx")]


@pytest.fixture(scope="module", params=["reference", *REAL])
def engine(request):
    if (
        request.param != "reference"
        and find_spec({"mlx": "mlx_lm"}.get(request.param, request.param)) is None
    ):
        pytest.skip(f"{request.param} is not installed")
    with trimtab.load_engine("tiny" if request.param == "reference" else "embedded", request.param) as found:
        yield found


class At:
    """Gives one verdict, at one position of one sample, and keeps what it saw."""

    def __init__(self, position: int, verdict: Verdict, plans: tuple[ResolvedPlan, ...] = (), index: int = 0):
        self.position, self.verdict, self.plans, self.index = position, verdict, plans, index
        self.seen: list[tuple[int, int, np.ndarray]] = []

    def see(self, index: int, position: int, reading: np.ndarray) -> Verdict | None:
        self.seen.append((index, position, reading))
        return self.verdict if (index, position) == (self.index, self.position) else None


@pytest.fixture(scope="module")
def direction(engine):
    width = engine.info.hidden_size
    vector = np.random.default_rng(0).standard_normal(width).astype(np.float32)
    return Direction("some", Site(1), vector / np.linalg.norm(vector))


@pytest.fixture(scope="module")
def readout(direction):
    site, one = Site(1), np.zeros(1)
    return Readout(("some",), {site: direction.unit[None]}, {site: one}, {site: one + 1})


def sampling(**more):
    return Sampling(**{"max_tokens": TOKENS, "ignore_eos": True, **more})


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_plan_switched_on_is_the_plan_after_that_position(engine, direction, readout, temperature):
    prompt = engine.encode("I feel", bare=True)
    position = len(prompt) - 1 + AT
    plan = SteeringPlan.add(direction, amount=9.0, positions={"after": position}, layers=[1])
    resolved = engine.resolve(plan, prompt)
    monitor = At(position, Verdict(plan=resolved), (resolved,))
    chosen = sampling(temperature=temperature, seed=5)
    watched = Request(prompt, None, chosen, readout=readout, monitor=monitor)
    ours, plain = engine.generate([watched, Request(prompt, sampling=chosen, readout=readout)])
    (want,) = engine.generate(Request(prompt, resolved, chosen, readout=readout))
    assert ours.tokens == want.tokens and ours.tokens[: AT + 1] == plain.tokens[: AT + 1]
    got, due = ours.samples[0].readings.values, want.samples[0].readings.values
    assert np.allclose(got, due, rtol=1e-4, atol=1e-4)
    assert abs(got[AT + 1] - plain.samples[0].readings.values[AT + 1]).max() > 1
    assert ours.applied == want.applied and plain.applied.fingerprint == "plain"
    assert [p for _, p, _ in monitor.seen] == list(range(len(prompt) - 1, len(prompt) - 1 + TOKENS))
    assert np.array_equal([r for _, _, r in monitor.seen], got)
    streamed = [e.token for e in engine.stream(watched) if e.token is not None]
    assert tuple(streamed) == want.tokens


def test_a_stop_ends_one_sample_with_its_token(engine, readout):
    prompt = engine.encode("I feel", bare=True)
    monitor = At(len(prompt) - 1 + AT, Verdict(stop=True), index=1)
    chosen = sampling(n=3, temperature=0.9, seed=1)
    (ours,) = engine.generate(Request(prompt, None, chosen, readout=readout, monitor=monitor))
    (plain,) = engine.generate(Request(prompt, None, chosen))
    assert [len(s.tokens) for s in ours.samples] == [TOKENS, AT + 1, TOKENS]
    assert [s.finish for s in ours.samples] == ["length", "stop", "length"]
    assert all(
        a.tokens == b.tokens[: len(a.tokens)] for a, b in zip(ours.samples, plain.samples, strict=True)
    )


def test_a_monitor_needs_something_to_see(engine):
    with pytest.raises(InputError, match="readout"):
        engine.generate(Request(engine.encode("I feel", bare=True), monitor=At(0, Verdict())))
