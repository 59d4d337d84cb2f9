"""The last block is a site like any other: read and steered before the final norm."""

import numpy as np
import pytest

import trimtab
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.requests import Request, Sampling, ScoreRequest
from trimtab.plans import SteeringPlan
from trimtab.readouts import Readout
from trimtab.recipes.transcripts import read_texts
from trimtab.sites import Site

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def engine():
    return trimtab.load_engine("embedded")


@pytest.fixture(scope="module")
def vectors(engine):
    last = Site(engine.info.n_layers - 1)
    raw = np.random.default_rng(0).standard_normal(engine.info.hidden_size)
    return ConceptVectors.from_directions([Direction.from_raw("d", last, raw)])


def residual(engine, tokens):
    """What the last block returns, by a hook, and its logits after the final norm."""
    import torch

    kept = []
    block = engine.model.model.layers[-1]
    hook = block.register_forward_hook(
        lambda m, a, out: kept.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        engine.model(torch.tensor([list(tokens)]))
    hook.remove()
    return kept[0].reshape(len(tokens), -1)


def test_a_reading_is_that_of_the_residual_before_the_norm(engine, vectors):
    prompt = engine.encode([{"role": "user", "content": "How was your day?"}])
    readout = Readout.from_vectors(vectors)
    request = Request(prompt, sampling=Sampling(max_tokens=6, ignore_eos=True), readout=readout)
    (done,) = engine.generate(request)
    sample, (site,) = done.samples[0], vectors.sites
    h = residual(engine, [*prompt.tokens, *sample.tokens])
    want = h.numpy() @ vectors.tables[site].vectors[0]
    assert np.allclose(sample.readings.of("d"), want[len(prompt) - 1 : -1], atol=1e-3)
    (found,) = read_texts(engine, readout, [engine.encode([*prompt.tokens, *sample.tokens])])
    assert np.allclose(found.of("d")[1:], want[:-1], atol=1e-3)
    normed = engine.model.model.norm(h).detach().numpy() @ vectors.tables[site].vectors[0]
    assert not np.allclose(normed, want, atol=0.1)  # the norm does change it, so the test can fail


def test_steering_there_moves_the_residual_and_then_comes_the_norm(engine, vectors):
    import torch

    prompt = engine.encode([{"role": "user", "content": "How was your day?"}])
    (site,) = vectors.sites
    plan = SteeringPlan.add(vectors, scale=20.0, layers=str(site.layer))
    (score,) = engine.score(ScoreRequest(prompt, plan=plan, logprobs="last"))
    h = residual(engine, prompt.tokens)[-1] + torch.from_numpy(20.0 * vectors.direction("d", site).raw)
    with torch.no_grad():
        want = torch.log_softmax(engine.model.lm_head(engine.model.model.norm(h)), -1).numpy()
    assert np.allclose(score.distribution, want, atol=1e-3)
    (plain,) = engine.score(ScoreRequest(prompt, logprobs="last"))
    assert np.abs(plain.distribution - want).max() > 0.1
