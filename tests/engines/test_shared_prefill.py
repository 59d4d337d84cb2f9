"""Plans that act on generated tokens only share one prefill, and nothing but the time changes."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the transformers engine needs torch")
pytest.importorskip("transformers", reason="the transformers engine needs transformers")

from engines.tiny import FAMILIES, Words
from trimtab.directions import Direction
from trimtab.engines.requests import CaptureSpec, Request, Sampling
from trimtab.engines.transformers import TransformersEngine
from trimtab.interventions import Add
from trimtab.plans import EMPTY, Placement, SteeringPlan
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import ModelInfo, Site

pytestmark = pytest.mark.engine


def push(width, seed, positions, amount=3.0, layer=1):
    row = np.random.default_rng(seed).normal(size=width)
    d = Direction.from_raw(f"v{seed}", Site(layer), row)
    return Placement(Add(amount=amount), d, positions=positions)


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine(FAMILIES["qwen3"](), Words(), id="tiny")


@pytest.fixture
def prefills(engine, monkeypatch):
    """Rows of every forward pass of more than one column."""
    seen, run = [], engine.run

    def counted(ids, *args, **kwargs):
        if ids.shape[1] > 1:
            seen.append(len(ids))
        return run(ids, *args, **kwargs)

    monkeypatch.setattr(engine, "run", counted)
    return seen


def requests(engine):
    width = engine.info.hidden_size
    prompts = [engine.encode(list(range(5, 25))), engine.encode(list(range(7, 16)))]
    plans = [
        None,
        SteeringPlan((push(width, 1, "generated"),)),
        SteeringPlan((push(width, 2, "generated", layer=0),)),
        SteeringPlan((push(width, 1, {"after": 40}),)),  # never reached by these prompts
        SteeringPlan((push(width, 3, "prompt"), push(width, 1, "generated"))),
        SteeringPlan((push(width, 3, "prompt"),)),
        SteeringPlan((push(width, 1, "all"),)),
    ]
    sampling = Sampling(max_tokens=5, ignore_eos=True, temperature=1.0, seed=3)
    spec = CaptureSpec((Site(1),), "all")
    return [Request(p, plan, sampling, capture=spec) for p in prompts for plan in plans]


def test_one_prefill_for_all_plans_that_leave_the_prompt_alone(engine, prefills):
    many = requests(engine)
    done = engine.generate(many)
    # per prompt: the plain start (four plans), the start with v3 (two), and the plan that acts everywhere
    assert prefills == [2 * 3]
    for request, completion in zip(many, done, strict=True):
        (alone,) = engine.generate(request)
        assert alone.tokens == completion.tokens
        mine, theirs = (c.samples[0] for c in (completion, alone))
        np.testing.assert_allclose(mine.logprobs, theirs.logprobs, atol=1e-5)
        np.testing.assert_allclose(mine.capture[1], theirs.capture[1], atol=1e-4)
        assert mine.applied == theirs.applied
    assert len({c.tokens for c in done}) > 6  # the plans do act


def test_the_part_of_a_plan_until_a_length():
    width = 8
    vectors = {f"v{i}": np.eye(width)[i] for i in range(3)}

    def plan(*positions):
        info = ModelInfo("m", 4, width, {Site(1): width})
        whole = SteeringPlan(tuple(push(width, i, p) for i, p in enumerate(positions)))
        return whole.resolve(Prompt((1, 2, 3)), {}, info)

    mixed = plan("prompt", "generated", "all")
    assert len(mixed.until(3).placements) == 2 and len(mixed.until(4).placements) == 3
    assert mixed.until(4) is mixed
    assert plan("generated").until(3).fingerprint == EMPTY.fingerprint == "plain"
    assert plan("prompt", "generated").until(3).fingerprint == plan("prompt").fingerprint
    assert ResolvedPlan((), vectors).until(3).fingerprint == "plain"
