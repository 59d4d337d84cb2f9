"""What neurons read: the gain before the projection is found from outside, whatever norm it belongs to."""

import numpy as np
import pytest

from trimtab.analysis.quality import readers
from trimtab.analysis.quality.neurons import Neurons, nearest_neuron
from trimtab.analysis.quality.readers import reading_layer, reads
from trimtab.engines import load_engine
from trimtab.errors import Unsupported
from trimtab.sites import Site

PROMPT = " ".join(f"w{n}" for n in np.random.default_rng(0).integers(3, 120, 40))


@pytest.fixture(scope="module")
def reference():
    return load_engine("tiny", "reference")


@pytest.mark.parametrize("projection", ["gate", "up"])
def test_the_gain_of_the_reference_model_is_found(reference, projection):
    block = reference.weights.blocks[2]
    expected = block.mlp_norm[:, None] * getattr(block, projection)
    assert np.allclose(reads(reference, 2, projection), expected, rtol=1e-3, atol=1e-5)


def test_a_planted_reader_is_found_with_its_sign(reference):
    """The gate of neuron 0 reads joy and that of neuron 1 its opposite; the gains folded in take a little off."""
    columns = Neurons.of(reads(reference, 1, "gate"))
    joy = reference.planted["joy"]
    found = nearest_neuron(joy, columns)
    assert found.index in (0, 1) and found.single and abs(found.cosine) > 0.99
    assert (columns.columns[:, :2].T @ joy > 0).tolist() == [True, False]


@pytest.mark.parametrize(
    ("stream", "layer"),
    [("resid_pre", 2), ("attn_out", 2), ("o", 2), ("mlp_out", 3), ("down", 3), ("resid_post", 3)],
)
def test_the_next_mlp_reads_a_state(stream, layer):
    assert reading_layer(Site(2, stream), 4) == layer


def test_nothing_reads_what_leaves_the_last_mlp():
    assert reading_layer(Site(3, "attn_out"), 4) == 3
    with pytest.raises(Unsupported, match="behind the last one"):
        reading_layer(Site(3), 4)


def engine_of(family, seed=0):
    """A tiny model whose norms all have gains of their own, of either sign of their distance from one."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from engines.tiny import FAMILIES, Words
    from trimtab.engines.transformers import TransformersEngine

    model = FAMILIES[family]()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1 and "norm" in name.lower() and name.endswith("weight"):
                weight.mul_(1 + 0.5 * (torch.rand(weight.shape, generator=generator) - 0.5)).add_(0.1)
    return TransformersEngine(model, Words(), id=family)


@pytest.mark.engine
@pytest.mark.parametrize(
    "family", ["llama", "gemma2", "gemma3", "olmo2", "gpt2", "gpt-neox", "phi3", "qwen3.5"]
)
def test_every_familys_readers_explain_what_their_projections_put_out(family, monkeypatch):
    """Differences between tokens of one length, read by the columns, are differences of the projection's output: an
    independent use of the result, on a text that the gain was not measured on."""
    monkeypatch.setattr(readers, "neutral_texts", lambda: (PROMPT,))
    engine = engine_of(family)
    layer = 1
    names = [p for p in ("gate", "up") if Site(layer, p) in engine.info.widths]
    assert names, family
    other = " ".join(f"w{n}" for n in np.random.default_rng(7).integers(3, 120, 30))
    for name in names:
        sites = [Site(layer, s) for s in ("resid_pre", "attn_out", name)]
        before, added, out = (
            engine.capture(engine.encode(other), sites)[0][s].astype(np.float64) for s in sites
        )
        columns = reads(engine, layer, name).astype(np.float64)
        best = 0.0
        for state in (before + added, before):
            for scale in (1.0, np.sqrt((state**2).mean(1, keepdims=True)), state.std(1, keepdims=True)):
                made = (state / scale) @ columns
                a, b = made - made.mean(0), out - out.mean(0)
                best = max(best, float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)))
        assert best > 0.999, (family, name, best)


@pytest.mark.engine
def test_a_norm_that_is_not_known_is_refused(monkeypatch):
    monkeypatch.setattr(readers, "neutral_texts", lambda: (PROMPT,))
    engine = engine_of("llama")
    norm = engine.anatomy.blocks[1].post_attention_layernorm
    plain = type(norm).forward
    monkeypatch.setattr(
        type(norm), "forward", lambda self, x: plain(self, x).roll(1, -1) if self is norm else plain(self, x)
    )
    with pytest.raises(Unsupported, match="no norm of the residual stream that is known"):
        reads(engine, 1, "gate")
