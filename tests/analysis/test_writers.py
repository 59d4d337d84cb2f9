"""What engines hand over as weights is what the model multiplies by, and what a branch does afterwards is found."""

import numpy as np
import pytest

from trimtab.analysis.quality import writers
from trimtab.analysis.quality.writers import written
from trimtab.engines import load_engine
from trimtab.errors import Unsupported
from trimtab.sites import Site

PROMPT = "w3 w17 w50 w9 w77 w31 w64 w12 w40 w41"


@pytest.fixture(scope="module")
def reference():
    return load_engine("tiny", "reference")


def test_reference_weights_map_inputs_to_outputs(reference):
    capture = reference.capture(
        "I feel happy today.", [Site(2, s) for s in ("head_out", "o", "mlp_act", "down")]
    )[0]
    for inner, outer in (("head_out", "o"), ("mlp_act", "down")):
        made = capture[Site(2, inner)] @ reference.weight(Site(2, outer)).T
        assert np.allclose(made, capture[Site(2, outer)], atol=1e-5)
    with pytest.raises(Unsupported, match="not the output of one projection"):
        reference.weight(Site(2))


def test_a_scale_after_the_projection_is_measured(reference):
    block = reference.weights.blocks[1]
    assert np.allclose(written(reference, 1, "down"), (block.down * block.mlp_scale).T, rtol=1e-3, atol=1e-6)
    assert np.allclose(written(reference, 1, "o"), (block.o * block.attn_scale).T, rtol=1e-3, atol=1e-6)


def engine_of(family):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from engines.tiny import FAMILIES, Words
    from trimtab.engines.transformers import TransformersEngine

    return TransformersEngine(FAMILIES[family](), Words(), id=family)


FAMILIES = ("llama", "gemma2", "gemma3", "olmo2", "gpt2", "gpt-neox", "phi3", "mixtral", "qwen3.5", "llava")


@pytest.mark.engine
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_every_family(family, monkeypatch):
    """Biases aside, W x is the captured output; and what is written is parallel to what the branch adds, per token."""
    monkeypatch.setattr(writers, "neutral_texts", lambda: (PROMPT,))
    engine = engine_of(family)
    layer = engine.info.n_layers - 1
    for inner, outer in (("head_out", "o"), ("mlp_act", "down")):
        x, y, z = (Site(layer, s) for s in (inner, outer, writers.BRANCH[outer]))
        if y not in engine.info.widths:
            with pytest.raises(Unsupported):
                engine.weight(y)
            continue
        a, b, c = (
            engine.capture(engine.encode(PROMPT), [x, y, z])[0][s].astype(np.float64) for s in (x, y, z)
        )
        bias = b - a @ engine.weight(y).T.astype(np.float64)
        assert np.allclose(bias, bias[:1], atol=1e-4), family
        made = a @ written(engine, layer, outer).T + (bias if family.startswith("gp") else 0)
        cosine = (made * c).sum(1) / np.linalg.norm(made, axis=1) / np.linalg.norm(c, axis=1)
        assert cosine.min() > 0.999, (family, outer, cosine)


@pytest.mark.engine
def test_fused_projections_give_the_sites_own_rows():
    """Phi-3 keeps q, k and v in one map: each site's rows times what enters the map are that site's output."""
    engine = engine_of("phi3")
    shapes = {s: engine.weight(Site(1, s)).shape for s in ("q", "k", "v", "gate", "up")}
    assert all(shape == (engine.info.widths[Site(1, s)], 64) for s, shape in shapes.items())
    block = engine.anatomy.blocks[1].self_attn.qkv_proj.weight.detach().numpy()
    assert np.array_equal(np.concatenate([engine.weight(Site(1, s)) for s in ("q", "k", "v")]), block)


@pytest.mark.engine
def test_a_planted_value_head_is_found():
    """Only the value rows of key-value head 1 are alive, and only query head 2 of those that share it writes."""
    torch = pytest.importorskip("torch")
    from trimtab.analysis.quality.heads import heads_of
    from trimtab.engines.collect import Comparison

    engine = engine_of("llama")
    attention = engine.anatomy.blocks[1].self_attn
    with torch.no_grad():
        attention.v_proj.weight[:16] = 0
        attention.o_proj.weight[:, 48:] = 0
    texts = [f"w{a} w{b} w{c}" for a, b, c in np.random.default_rng(0).integers(3, 60, (12, 3))]
    texts += [f"w{a} w{b} w{c}" for a, b, c in np.random.default_rng(1).integers(60, 120, (12, 3))]
    prompts = [engine.encode(t) for t in texts]
    sites = [Site(1, "head_out"), Site(1, "attn_out")]
    (found,) = engine.collect(prompts, [Comparison(tuple(range(12)), tuple(range(12, 24)))], sites, {"mean"})
    added = found[sites[1]].mean["positive"] - found[sites[1]].mean["negative"]
    unit = added / np.linalg.norm(added)
    heads = heads_of(
        unit, Site(1), found[sites[0]], engine.info.n_heads, engine.weight(Site(1, "o")).astype(float)
    )
    assert heads.strongest == 2 and heads.share[2] == pytest.approx(1) and heads.concentrated
    assert heads.raw_norm[3] > 0 and heads.written[3] == pytest.approx(0, abs=1e-6)
    assert heads.raw_norm[:2] == pytest.approx((0, 0), abs=1e-5)
    assert sum(heads.written) == pytest.approx(np.linalg.norm(added), rel=1e-4)
