"""Shared beginnings run once: the same states by prefix tree as padded, on every family where a trial says so."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from engines.tiny import FAMILIES, WINDOW, Words  # noqa: E402
from trimtab.activations import pool_positions  # noqa: E402
from trimtab.directions import content_hash  # noqa: E402
from trimtab.engines.base import CaptureItem  # noqa: E402
from trimtab.engines.transformers import TransformersEngine, forest, passes  # noqa: E402
from trimtab.engines.transformers.packing import Packing  # noqa: E402
from trimtab.interventions import Coefficients  # noqa: E402
from trimtab.prompts import Prompt  # noqa: E402
from trimtab.resolved import ResolvedPlacement, ResolvedPlan  # noqa: E402
from trimtab.sites import Site  # noqa: E402

pytestmark = pytest.mark.engine
LINEAR = {"qwen3-next", "qwen3.5"}
WINDOWED = {"mistral", "gemma2", "gemma3"}


def make(family: str) -> TransformersEngine:
    engine = TransformersEngine(FAMILIES[family](), Words(), id=family)
    engine.packing.tokens = 0  # loading proves itself with captures of its own
    return engine


def texts(many: int = 24, stem: int = 20, seed: int = 0) -> list[tuple[int, ...]]:
    """Two stems, endings of different lengths, some of them beginnings of others."""
    draw = np.random.default_rng(seed)
    stems = draw.integers(3, 120, (2, stem)).tolist()
    found = [(*stems[k % 2], *draw.integers(3, 120, 1 + k % 7).tolist()) for k in range(many)]
    return [*found, found[6][:-2], (*found[6], 5, 9)]


def items(found: list[tuple[int, ...]]) -> list[CaptureItem]:
    return [CaptureItem(Prompt(t), np.arange(len(t))) for t in found]


def relative(got: list, want: list, site: Site) -> float:
    return max(
        float((np.linalg.norm(g[site] - w[site], axis=1) / np.linalg.norm(w[site], axis=1)).max())
        for g, w in zip(got, want, strict=True)
    )


def nodes(found: list[tuple[int, ...]]) -> int:
    return len({t[: n + 1] for t in found for n in range(len(t))})


@pytest.mark.parametrize("family", FAMILIES)
def test_states_by_tree_are_the_padded_ones(family, monkeypatch):
    monkeypatch.setattr(passes, "REACH", 1e6)  # attention costs nothing, so one row takes all
    engine, found = make(family), texts()
    sites = [Site(n) for n in range(engine.info.n_layers)] + [Site(1, "head_out"), Site(1, "mlp_out")]
    got = engine._capture(items(found), sites, "after")
    ran = engine.packing.tokens
    engine.packing = Packing("buckets", "for comparison")
    want = engine._capture(items(found), sites, "after")
    for site in sites:
        assert relative(got, want, site) <= 1e-5, site
    assert (ran == nodes(found)) == (family not in LINEAR | WINDOWED)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trial_decides_and_says_why(family):
    engine = make(family)
    engine._capture(items(texts()), [Site(0)], "after")
    if family in LINEAR:
        assert engine.packing.method == "buckets" and "off by" in str(engine.packing)
    elif family in WINDOWED:
        assert engine.packing.limit == WINDOW and f"sliding_window {WINDOW}" in str(engine.packing)
    else:
        assert engine.packing.method == "tree" and engine.packing.proved >= 27


@pytest.mark.parametrize("family", sorted(WINDOWED))
def test_texts_within_a_window_are_packed_and_longer_ones_are_not(family):
    engine = make(family)
    short = [(9, 8, 7, n) for n in range(10, 60)]
    found = short + texts(8)
    got = engine._capture(items(found), [Site(2)], "after")
    assert engine.packing.proved == WINDOW
    engine.packing = Packing("buckets", "for comparison")
    assert relative(got, engine._capture(items(found), [Site(2)], "after"), Site(2)) <= 1e-5


def test_a_window_that_no_config_names_shows_in_the_trial():
    engine = make("mistral")
    engine.packing = Packing("tree", "nobody knows of the window")
    passes.try_trees(engine, 32)
    assert engine.packing.method == "buckets" and "off by" in engine.packing.reason


@pytest.mark.parametrize("broken", ["mask", "positions", "refuses"])
def test_a_model_that_ignores_what_a_tree_needs_falls_back(broken):
    engine = make("llama")
    plain = engine.model.forward

    def forward(input_ids, attention_mask=None, position_ids=None, **options):
        four = attention_mask is not None and attention_mask.dim() == 4
        if four and broken == "refuses":
            raise ValueError("only masks [batch, tokens]")
        mask = None if four and broken == "mask" else attention_mask
        where = None if four and broken == "positions" else position_ids
        return plain(input_ids=input_ids, attention_mask=mask, position_ids=where, **options)

    engine.model.forward = forward
    found = texts()
    got = engine._capture(items(found), [Site(2)], "after")
    assert engine.packing.method == "buckets"
    assert ("only masks" in engine.packing.reason) == (broken == "refuses")
    assert relative(got, make("llama")._capture(items(found), [Site(2)], "after"), Site(2)) <= 1e-5


def test_half_precision_is_packed_too():
    engine = TransformersEngine(FAMILIES["llama"]().to(torch.bfloat16), Words(), id="half")
    engine._capture(items(texts()), [Site(2)], "after")
    assert engine.packing.method == "tree" and engine.packing.proved


def test_a_deeper_text_is_tried_again():
    engine = make("llama")
    engine._capture(items(texts(stem=10)), [Site(0)], "after")
    assert engine.packing.proved == 32
    engine._capture(items(texts(stem=50)), [Site(0)], "after")
    assert engine.packing.proved == 64


def test_single_prompts_are_not_worth_a_trial():
    engine = make("llama")
    engine._capture(items(texts()[:1]), [Site(0)], "after")
    assert engine.packing.proved == 0 and engine.packing.reason == "not tried yet"


def test_long_inputs_split_into_rows_that_repeat_only_what_is_shared():
    found = sorted(set(texts(many=300, seed=1)))
    plan = forest.plan(found, reach=256.0)
    assert len(plan.nodes) > 1
    assert nodes(found) < sum(plan.nodes) <= nodes(found) + (len(plan.nodes) - 1) * 27
    laid = forest.lay(found, plan, range(len(plan.nodes)))
    assert sorted(laid.texts) == list(range(len(found)))
    mask = laid.mask(torch.device("cpu"), torch.float32)[:, 0] == 0
    for text, row, path in zip(laid.texts, laid.row, laid.path, strict=True):
        assert tuple(laid.ids[row, path]) == found[text]
        assert list(laid.depths[row, path]) == list(range(len(path)))
        for depth, column in enumerate(path):  # a node sees its own beginning and nothing else
            assert mask[row, column].nonzero()[:, 0].tolist() == sorted(path[: depth + 1])


def test_split_rows_give_the_same_states(monkeypatch):
    engine, found = make("llama"), texts(many=120)
    monkeypatch.setattr(passes, "REACH", 0.2)
    monkeypatch.setitem(passes.BATCH_TOKENS, "cpu", 150)
    got = engine._capture(items(found), [Site(2)], "after")
    assert nodes(found) < engine.packing.tokens < sum(map(len, found))
    engine.packing = Packing("buckets", "for comparison")
    assert relative(got, engine._capture(items(found), [Site(2)], "after"), Site(2)) <= 1e-5


@pytest.mark.parametrize("pooling", ["last", "last_3", "mean_all"])
def test_poolings_are_means_of_captures(pooling):
    engine = make("llama")
    prompts = [Prompt(t) for t in texts()]
    sites = [Site(0), Site(2), Site(1, "q")]
    pooled = engine.pool(prompts, sites, pooling)
    assert engine.packing.proved
    engine.packing = Packing("buckets", "for comparison")
    for k, prompt in enumerate(prompts):
        whole = engine.capture(prompt, sites)[0]
        for site in sites:
            want = whole[site][pool_positions(pooling, prompt)].mean(0)
            assert np.linalg.norm(pooled[site][k] - want) <= 1e-5 * np.linalg.norm(want)


def test_steered_captures_take_the_padded_path():
    engine, found = make("llama"), texts()
    u = np.ones(64, np.float32) / 8
    name = content_hash(u)
    placement = ResolvedPlacement(Site(0), name, Coefficients(shift=3.0), ((0, None),))
    plan = ResolvedPlan((placement,), {name: u})
    steered = [CaptureItem(i.prompt, i.positions, plan) for i in items(found)]
    got = engine._capture(steered, [Site(0)], "after")
    assert engine.packing.proved == 0
    plain = engine._capture(items(found), [Site(0)], "after")
    for g, p in zip(got, plain, strict=True):
        np.testing.assert_allclose(g[Site(0)], p[Site(0)] + 3.0 * u, atol=1e-5)
