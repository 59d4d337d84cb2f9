"""Every family of architectures: sites are found by structure, and steering there does what numpy says it does.

The checks hook the plain model by module *name*, written down here per family, so that they share nothing
with discovery.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the transformers engine needs torch")
pytest.importorskip("transformers", reason="the transformers engine needs transformers")

from engines.tiny import FAMILIES, VOCABULARY, Words  # noqa: E402
from trimtab.directions import content_hash  # noqa: E402
from trimtab.engines.base import CaptureItem  # noqa: E402
from trimtab.engines.requests import Request, Sampling, ScoreRequest  # noqa: E402
from trimtab.engines.transformers import TransformersEngine  # noqa: E402
from trimtab.interventions import Coefficients, edit  # noqa: E402
from trimtab.prompts import Prompt  # noqa: E402
from trimtab.resolved import ResolvedPlacement, ResolvedPlan  # noqa: E402
from trimtab.sites import Site  # noqa: E402

pytestmark = pytest.mark.engine

TOKENS = (3, 17, 50, 9, 77, 31, 64)
ALWAYS = {"resid_pre", "resid_post", "attn_out", "mlp_out", "head_out", "o"}
QKV, DENSE = {"q", "k", "v"}, {"mlp_act", "down", "up"}
#: What each family must offer in its last block, beyond ALWAYS.
OFFERS = dict.fromkeys(FAMILIES, QKV | DENSE | {"gate"})
OFFERS |= dict.fromkeys(("qwen3-moe", "qwen3-next", "mixtral"), QKV)
OFFERS |= dict.fromkeys(("gpt2", "gpt-neox"), QKV | DENSE)

#: Names in a block: attention, MLP, post-norms (where the branch's output passes one), o_proj, down_proj.
NAMES = dict.fromkeys(FAMILIES, ("self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj"))
NAMES["gpt2"] = ("attn", "mlp", "attn.c_proj", "mlp.c_proj")
NAMES["gpt-neox"] = ("attention", "mlp", "attention.dense", "mlp.dense_4h_to_h")
POST_NORM = ("post_attention_layernorm", "post_feedforward_layernorm")
NAMES |= dict.fromkeys(("gemma2", "gemma3", "olmo2"), (*POST_NORM, "self_attn.o_proj", "mlp.down_proj"))
HEADS, GROUPS, SIZE = 4, 2, 16


@cache
def engine_of(family: str) -> TransformersEngine:
    return TransformersEngine(FAMILIES[family](), Words(), id=family)


@pytest.fixture(params=FAMILIES)
def engine(request: pytest.FixtureRequest) -> Iterator[TransformersEngine]:
    yield engine_of(request.param)


def unit(width: int, seed: int = 0) -> np.ndarray:
    v = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
    return v / np.linalg.norm(v)


def placed(
    site: Site, u: np.ndarray, row: Coefficients, ranges: Any = ((0, None),), **flags: Any
) -> ResolvedPlan:
    name = content_hash(u)
    return ResolvedPlan((ResolvedPlacement(site, name, row, ranges, **flags),), {name: u})


def capture(
    engine: TransformersEngine, site: Site, plan: ResolvedPlan | None = None, at: str = "after"
) -> np.ndarray:
    item = CaptureItem(Prompt(TOKENS), np.arange(len(TOKENS)), plan or ResolvedPlan())
    return engine._capture([item], [site], at)[0][site]


def submodule(engine: TransformersEngine, layer: int, name: str) -> Any:
    return engine.anatomy.blocks[layer].get_submodule(name)


def independent(engine: TransformersEngine, site: Site) -> tuple[Any, str, Any]:
    """(module, side, columns) of a site by the family's own names."""
    attention, mlp, o, down = NAMES[engine.info.id]
    block = engine.anatomy.blocks[site.layer]
    if engine.info.id.startswith("qwen3") and hasattr(block, "linear_attn"):
        attention, o = "linear_attn", "linear_attn.out_proj"
    whole = slice(None)
    where: dict[str, tuple[str, str]] = {
        "attn_out": (attention, "output"),
        "mlp_out": (mlp, "output"),
        "head_out": (o, "input"),
        "o": (o, "output"),
        "mlp_act": (down, "input"),
        "down": (down, "output"),
    }
    if site.stream in ("resid_pre", "resid_post"):
        return block, "input" if site.stream == "resid_pre" else "output", whole
    if site.stream in where:
        name, side = where[site.stream]
        return block.get_submodule(name), side, whole
    return (*projection(engine.info.id, block, site.stream),)


def projection(family: str, block: Any, stream: str) -> tuple[Any, str, Any]:
    """Where q, k, v, gate and up come from, in each family's own layout."""
    full = HEADS * SIZE
    if family == "gpt2":
        i = "qkv".find(stream)
        if i < 0:
            return block.mlp.c_fc, "output", slice(None)
        return block.attn.c_attn, "output", slice(i * full, (i + 1) * full)
    if family == "gpt-neox":
        i = "qkv".find(stream)
        if i < 0:
            return block.mlp.dense_h_to_4h, "output", slice(None)
        columns = [h * 3 * SIZE + i * SIZE + d for h in range(HEADS) for d in range(SIZE)]
        return block.attention.query_key_value, "output", columns
    if family == "phi3" and stream in QKV:
        starts = {"q": (0, full), "k": (full, full + GROUPS * SIZE), "v": (full + GROUPS * SIZE, None)}
        return block.self_attn.qkv_proj, "output", slice(*starts[stream])
    if family == "phi3":
        return block.mlp.gate_up_proj, "output", slice(0, 96) if stream == "gate" else slice(96, 192)
    if stream in QKV:
        columns: Any = slice(None)
        if stream == "q" and family in (
            "qwen3-next",
            "qwen3.5",
        ):  # each head's query lies before its output gate
            columns = [h * 2 * SIZE + d for h in range(HEADS) for d in range(SIZE)]
        return getattr(block.self_attn, f"{stream}_proj"), "output", columns
    return getattr(block.mlp, f"{stream}_proj"), "output", slice(None)


def forward(engine: TransformersEngine, tokens: Any = TOKENS) -> np.ndarray:
    with torch.no_grad():
        return engine.model(input_ids=torch.tensor([tokens])).logits[0].numpy()


def hooked(engine: TransformersEngine, site: Site, change: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """(states after `change`, logits) of a plain forward with one hook written for this family by hand."""
    module, side, columns = independent(engine, site)
    seen: list[np.ndarray] = []

    def touch(states: Any) -> Any:
        out = states.clone()
        part = out[..., columns].numpy()[0]
        part = part if change is None else change(part)
        seen.append(np.array(part))
        out[..., columns] = torch.from_numpy(np.array(part))[None]
        return out

    def before(module: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (touch(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": touch(kwargs["hidden_states"])}

    def after(module: Any, args: Any, output: Any) -> Any:
        return (touch(output[0]), *output[1:]) if isinstance(output, tuple) else touch(output)

    if side == "input":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        return seen_after(forward(engine), seen)
    finally:
        handle.remove()


def seen_after(logits: np.ndarray, seen: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return seen[-1], logits


# --- the tests ---------------------------------------------------------------------------------------------------


def test_every_expected_stream_is_found(engine: TransformersEngine) -> None:
    last = engine.info.n_layers - 1
    found = {s.stream for s in engine.info.widths if s.layer == last}
    assert found == ALWAYS | OFFERS[engine.info.id]


def test_linear_attention_blocks_have_no_q_k_v() -> None:
    for family in ("qwen3-next", "qwen3.5"):
        found = {s.stream for s in engine_of(family).info.widths if s.layer == 0}
        assert found >= ALWAYS and not found & QKV


def test_adding_changes_resid_post_by_exactly_the_vector(engine: TransformersEngine) -> None:
    for layer in (0, engine.info.n_layers // 2, engine.info.n_layers - 1):
        site, u = Site(layer), unit(engine.info.hidden_size, layer)
        plan = placed(site, u, Coefficients(shift=2.5))
        np.testing.assert_allclose(capture(engine, site, plan), capture(engine, site) + 2.5 * u, atol=2e-6)
        np.testing.assert_array_equal(capture(engine, site, plan, "before"), capture(engine, site))
        if layer:
            np.testing.assert_array_equal(
                capture(engine, Site(layer - 1), plan), capture(engine, Site(layer - 1))
            )


def test_every_stream_captures_what_a_hand_written_hook_sees(engine: TransformersEngine) -> None:
    for site in engine.info.widths:
        expected, _ = hooked(engine, site)
        np.testing.assert_allclose(capture(engine, site), expected, atol=1e-5, err_msg=str(site))


def test_every_stream_is_steered_as_numpy_says(engine: TransformersEngine) -> None:
    """The logits under a plan are those of the plain model with `interventions.edit` in a hook of its own."""
    middle = {engine.info.n_layers - 1, 1}
    plain = forward(engine)
    for site in (s for s in engine.info.widths if s.layer in middle):
        u = unit(engine.info.widths[site], 3)
        row = Coefficients(gain=-0.5, low=-4.0, high=3.0, shift=0.7, strength=0.8)
        active = np.array([0, 0, 1, 1, 1, 0, 1], dtype=bool)
        plan = placed(site, u, row, ((2, 5), (6, None)))
        _, expected = hooked(engine, site, lambda h, u=u, a=active, r=row: edit(h, u, r, active=a))
        prompt = Prompt(TOKENS)
        (score,) = engine._score([(prompt, 1, plan, "all")])
        want = expected - np.log(np.exp(expected - expected.max(-1, keepdims=True)).sum(-1, keepdims=True))
        want -= expected.max(-1, keepdims=True)
        np.testing.assert_allclose(score.distribution, want, atol=2e-4, err_msg=str(site))
        assert np.abs(expected - plain).max() > 1e-3, (
            f"{site}: the edit changed nothing, so nothing was tested"
        )


def plans(engine: TransformersEngine) -> list[ResolvedPlan]:
    size, last = engine.info.hidden_size, engine.info.n_layers - 1
    return [
        ResolvedPlan(),
        placed(Site(0), unit(size, 1), Coefficients(shift=4.0)),
        placed(Site(last), unit(size, 2), Coefficients(gain=0.0), ((5, None),)),
        placed(Site(1, "attn_out"), unit(size, 3), Coefficients(shift=3.0), ((2, 9),)),
    ]


def test_greedy_text_under_a_plan_is_that_of_full_forwards(engine: TransformersEngine) -> None:
    """Cached decoding = the whole sequence anew for every token, scored under the same plan."""
    for plan in plans(engine):
        (done,) = engine.generate(Request(TOKENS, plan, Sampling(max_tokens=8, ignore_eos=True)))
        tokens = TOKENS + done.tokens
        (score,) = engine.score([ScoreRequest(tokens, None, plan, "all")])
        assert score.distribution is not None
        table = score.distribution[len(TOKENS) - 1 : -1]
        logprobs = np.take_along_axis(table, np.array(done.tokens)[:, None], 1)[:, 0]
        # Ties apart, the greedy token is the likeliest one of a forward pass without a cache.
        assert (table.max(1) - logprobs).max() < 1e-4
        np.testing.assert_allclose(done.samples[0].logprobs, logprobs, atol=2e-4)


def test_rows_of_a_mixed_batch_are_as_if_alone(engine: TransformersEngine) -> None:
    prompts = [TOKENS, TOKENS[:3], (*TOKENS, 5, 6), TOKENS[:5]]
    requests = [
        Request(p, plan, Sampling(max_tokens=6, ignore_eos=True))
        for p, plan in zip(prompts, plans(engine), strict=True)
    ]
    together = engine.generate(requests)
    for request, batched in zip(requests, together, strict=True):
        (alone,) = engine.generate(request)
        assert batched.tokens == alone.tokens
        np.testing.assert_allclose(batched.samples[0].logprobs, alone.samples[0].logprobs, atol=1e-4)


def test_unsteered_greedy_text_is_that_of_transformers(engine: TransformersEngine) -> None:
    (done,) = engine.generate(Request(TOKENS, sampling=Sampling(max_tokens=10)))
    with torch.no_grad():
        want = engine.model.generate(
            torch.tensor([TOKENS]), max_new_tokens=10, do_sample=False, pad_token_id=0
        )
    assert list(done.tokens) == want[0, len(TOKENS) :].tolist()
    assert all(0 <= t < VOCABULARY for t in done.tokens)


def test_batched_captures_are_the_single_ones(engine: TransformersEngine) -> None:
    lengths = (7, 2, 5)
    items = [
        CaptureItem(Prompt(TOKENS[:n]), np.arange(n), plan)
        for n, plan in zip(lengths, plans(engine), strict=False)
    ]
    sites = [Site(0), Site(engine.info.n_layers - 1), Site(1, "head_out")]
    together = engine._capture(items, sites, "after")
    for item, found in zip(items, together, strict=True):
        (alone,) = engine._capture([item], sites, "after")
        for site in sites:
            np.testing.assert_allclose(found[site], alone[site], atol=2e-5, err_msg=str(site))
