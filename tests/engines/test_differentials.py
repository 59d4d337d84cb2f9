"""Gradients that the transformers engine collects, against finite differences and the algebra of the objective."""

import numpy as np
import pytest

from engines import tiny
from trimtab.engines.collect import Comparison
from trimtab.errors import InputError
from trimtab.objectives import Separation
from trimtab.prompts import Prompt
from trimtab.sites import Site

pytestmark = pytest.mark.engine
PAIRS = 5


@pytest.fixture(scope="module")
def engine():
    from trimtab.engines.transformers.engine import TransformersEngine

    return TransformersEngine(tiny.FAMILIES["llama"](), tiny.Words(), id="tiny")


def prompts(seed=0, pairs=PAIRS):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 9, 2 * pairs)
    return [Prompt(tuple(int(t) for t in rng.integers(3, tiny.VOCABULARY, n))) for n in lengths]


def collected(engine, objective, sites=None, pooling="last"):
    texts = prompts()
    sites = sites or [Site(n) for n in range(tiny.LAYERS)]
    pairs = Comparison(tuple(range(0, 2 * PAIRS, 2)), tuple(range(1, 2 * PAIRS, 2)), paired=True)
    (found,) = engine.collect(texts, [pairs], sites, {"mean", "rows", "gradients"}, pooling, None, objective)
    return found


def test_at_the_read_layer_the_plain_mean_cancels_and_the_signed_one_is_the_mean_unit_difference(engine):
    last = collected(engine, Separation())[Site(tiny.LAYERS - 1)]
    g, d = last.gradients, last.rows["positive"] - last.rows["negative"]
    unit = (d / np.linalg.norm(d, axis=1, keepdims=True)).mean(0)
    assert np.abs((g["positive"] + g["negative"]).mean(0)).max() < 1e-9
    assert np.allclose((g["negative"] - g["positive"]).mean(0) / 2, unit / PAIRS, atol=1e-6)
    assert np.allclose(last.loss_norms["positive"], 1 / PAIRS**2, rtol=1e-5)


def test_below_the_read_layer_little_is_left_of_the_plain_mean_and_the_signed_one_points_to_the_positives():
    """A deep random Llama: the length of the plain mean over that of the signed one falls to 0 at the read layer; the
    plain mean knows nothing of the mean difference, and the signed one more and more of it up to there."""
    import transformers as hf

    from trimtab.engines.transformers.engine import TransformersEngine

    layers, pairs = 8, 40
    sizes = {**tiny.BASE, "num_hidden_layers": layers, "vocab_size": tiny.VOCABULARY}
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**sizes)).eval()
    engine = TransformersEngine(model, tiny.Words(), id="deep")
    side = tuple(range(0, 2 * pairs, 2)), tuple(range(1, 2 * pairs, 2))
    (found,) = engine.collect(
        prompts(pairs=pairs),
        [Comparison(*side, paired=True)],
        [Site(n) for n in range(layers)],
        {"mean", "gradients"},
        "last",
        None,
        Separation(coherence=0.0),
    )
    ratios, plain_cosines, signed_cosines = [], [], []
    for n in range(layers):
        part = found[Site(n)]
        g = part.gradients
        plain = (g["negative"].mean(0) + g["positive"].mean(0)) / 2
        signed = (g["negative"].mean(0) - g["positive"].mean(0)) / 2
        target = part.mean["positive"] - part.mean["negative"]
        size = np.linalg.norm(target)
        ratios.append(np.linalg.norm(plain) / np.linalg.norm(signed))
        plain_cosines.append(plain @ target / max(np.linalg.norm(plain), 1e-30) / size)
        signed_cosines.append(signed @ target / np.linalg.norm(signed) / size)
    assert ratios[-1] < 1e-6 and max(ratios) < 0.5 and ratios[0] > ratios[-2]
    assert np.abs(plain_cosines[:-1]).max() < 0.4
    assert min(signed_cosines) > 0 and signed_cosines[0] < signed_cosines[4] < signed_cosines[-1]
    assert signed_cosines[-1] > 0.95


@pytest.mark.parametrize("pooling", ["last", "mean_all"])
def test_gradients_below_equal_finite_differences(engine, pooling):
    import torch

    from trimtab.activations import pool_positions
    from trimtab.engines.transformers.forward import Padded

    site, read, texts, step = Site(0), Site(tiny.LAYERS - 1), prompts(), 1e-2
    found = collected(engine, Separation(coherence=0.0), [site], pooling)[site]
    moved = np.random.default_rng(3).standard_normal(tiny.HIDDEN).astype(np.float32)
    moved /= np.linalg.norm(moved)

    def state(prompt, amount):
        where, seen = pool_positions(pooling, prompt), []
        padded = Padded.of([prompt.tokens], engine.forward.device)

        def push(h):
            h[:, where] += amount * torch.from_numpy(moved)
            return h

        with engine.stations.installed([site, read]) as stations, torch.no_grad():
            stations[site].set(push)
            stations[read].set(after=[lambda h: seen.append(h[0, where].mean(0).double().numpy().copy())])
            engine.run(padded.ids, padded.positions, padded.mask, stations)
        return seen[0]

    for pair in range(PAIRS):
        plus, minus = texts[2 * pair], texts[2 * pair + 1]
        other = state(minus, 0.0)
        lengths = [np.linalg.norm(state(plus, a) - other) for a in (step, -step)]
        slope = -(lengths[0] - lengths[1]) / (2 * step) / PAIRS
        assert found.gradients["positive"][pair] @ moved == pytest.approx(slope, rel=2e-2, abs=2e-4)


def test_the_size_of_a_batch_changes_nothing(engine, monkeypatch):
    from trimtab.engines.transformers import separation

    whole = collected(engine, Separation())
    monkeypatch.setattr(separation, "BATCH_PAIRS", 1)
    single = collected(engine, Separation())
    for site, part in whole.items():
        for side, rows in part.gradients.items():
            assert np.allclose(rows, single[site].gradients[side], rtol=1e-3, atol=1e-4 * np.abs(rows).max())


def test_the_likelihood_term_moves_positive_rows_but_never_the_last_token(engine):
    pooled, bare = (
        collected(engine, Separation(coherence=c), [Site(0)], "mean_all")[Site(0)] for c in (1e4, 0)
    )
    assert not np.allclose(pooled.gradients["positive"], bare.gradients["positive"])
    assert np.allclose(pooled.gradients["negative"], bare.gradients["negative"], atol=1e-5)
    # The last token's state predicts nothing that the text holds.
    last, bare = (collected(engine, Separation(coherence=c), [Site(0)])[Site(0)] for c in (1e4, 0))
    assert np.allclose(last.gradients["positive"], bare.gradients["positive"], atol=1e-6)


def test_refused_before_running(engine):
    with pytest.raises(InputError, match="after the layer 0"):
        collected(engine, Separation(read=0))
    with pytest.raises(InputError, match="Separation"):
        collected(engine, None)
