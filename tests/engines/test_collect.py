"""Evidence streams: rounds keep pairs together, rows are not kept, and the numbers do not depend on the rounds."""

import tracemalloc

import numpy as np
import pytest

from trimtab.activations import pool_positions
from trimtab.engines import collect
from trimtab.engines.collect import Comparison
from trimtab.engines.reference import ReferenceEngine
from trimtab.errors import Unsupported
from trimtab.evidence import NEGATIVE, POSITIVE, RESERVOIR, EvidenceBuilder
from trimtab.prompts import Prompt
from trimtab.sites import Site

SITES = [Site(0), Site(1)]


@pytest.fixture(scope="module")
def engine() -> ReferenceEngine:
    return ReferenceEngine.load()


def prompts(engine: ReferenceEngine, many: int = 9) -> list[Prompt]:
    texts = [f"I feel {'so ' * (k % 4)}{'happy' if k % 2 else 'sad'} {k}" for k in range(many)]
    return [engine.encode(t, bare=True) for t in texts]


def test_rounds_do_not_change_the_evidence(engine, monkeypatch):
    texts = prompts(engine)
    comparisons = [
        Comparison((0, 2, 4, 6), (1, 3, 5, 7), paired=True),
        Comparison((7, 0, 8), (2, 8, 4), paired=True),  # halves that come in different rounds
        Comparison((8, 8, 1), (0, 3)),
    ]
    needs = {"mean", "rows", "gram", "cov"}
    for chosen in (comparisons[:2], comparisons[2:]):
        needed = needs if chosen[0].paired else needs - {"gram"}
        whole = engine.collect(texts, chosen, SITES, needed)
        with monkeypatch.context() as patch:
            patch.setattr(collect, "ROUND_TOKENS", 1)
            small = engine.collect(texts, chosen, SITES, needed)
        pooled = engine.pool(texts, SITES, "last")
        for a, b, c in zip(whole, small, chosen, strict=True):
            for site in SITES:
                for group, side in ((POSITIVE, c.positive), (NEGATIVE, c.negative)):
                    np.testing.assert_allclose(b[site].rows[group], pooled[site][list(side)], rtol=1e-6)
                    np.testing.assert_allclose(
                        a[site].mean[group], b[site].mean[group], rtol=1e-9, atol=1e-12
                    )
                    np.testing.assert_allclose(a[site].cov[group], b[site].cov[group], rtol=1e-9, atol=1e-12)
                if c.paired:
                    gram = [e[site].factor.T @ e[site].factor for e in (a, b)]
                    np.testing.assert_allclose(*gram, rtol=1e-9, atol=1e-9)


def test_tokens_are_those_that_are_neither_special_nor_first(engine):
    texts = prompts(engine, 4)
    comparison = Comparison((0, 2), (1, 3), paired=True)
    (found,) = engine.collect(texts, [comparison], SITES, {"mean", "tokens"}, "last_2")
    for site in SITES:
        assert "tokens" in found[site].needs and found[site].tokens is not None
        for group, side in ((POSITIVE, (0, 2)), (NEGATIVE, (1, 3))):
            for i, got in zip(side, found[site].tokens[group], strict=True):
                whole = engine.capture(texts[i], [site])[0][site]
                want = whole[pool_positions("mean_all", texts[i])]
                assert got.dtype == np.float32
                np.testing.assert_array_equal(got, want)
            means = [engine.pool([texts[i]], [site], "last_2")[site][0] for i in side]
            np.testing.assert_allclose(found[site].mean[group], np.mean(means, axis=0), rtol=1e-6)


def test_what_nobody_collects_is_refused(engine):
    with pytest.raises(Unsupported, match="attention_maps"):
        engine.collect(prompts(engine), [Comparison((0,), (1,))], SITES, {"mean", "attention_maps"})


def test_a_reservoir_is_a_uniform_draw_whatever_the_order_and_the_batches():
    places = np.arange(5000)
    rows = np.stack([places, places % 7], 1).astype(float)

    def drawn(order, batch):
        builder = EvidenceBuilder(Site(0), {"gram"}, paired=True)
        for start in range(0, len(order), batch):
            at = order[start : start + batch]
            builder.add(rows[at], np.zeros((len(at), 2)), (at.tolist(), at.tolist()))
        return builder.finish().reservoir

    found = drawn(places, 64)
    assert len(found) == RESERVOIR == len(np.unique(found[:, 0]))
    for batch, seed in ((1000, 1), (5000, 2), (7, 3)):
        order = np.random.default_rng(seed).permutation(5000)
        assert np.array_equal(found, drawn(order, batch))
    quarters = np.histogram(found[:, 0], bins=4, range=(0, 5000))[0]
    assert np.abs(quarters - RESERVOIR / 4).max() < 40  # four standard deviations
    step = np.random.default_rng(0).permutation(5000)[:100]
    assert drawn(step, 10) is not None and len(drawn(step, 10)) == 100


@pytest.mark.parametrize(("needs", "kept"), [({"mean"}, False), ({"mean", "rows"}, True)])
def test_memory_grows_only_where_rows_are_asked_for(needs, kept):
    builder = EvidenceBuilder(Site(0), needs, paired=True)
    rows = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    builder.add(rows, rows + 1)
    tracemalloc.start()
    for _ in range(20):
        builder.add(rows, rows + 1)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    table = 20 * 2 * rows.size * 8
    assert (grown > 0.9 * table) == kept
    assert kept or grown < 0.02 * table


def test_folded_differences_and_their_reservoir_stop_growing():
    rows, held = np.random.default_rng(0).standard_normal((512, 64)).astype(np.float32), []
    builder = EvidenceBuilder(Site(0), {"gram"}, paired=True)
    for _ in range(20):
        builder.add(rows, rows + 1)
        assert builder._reservoir is not None and builder._reservoir.rows is not None
        held.append((len(builder._factor), len(builder._reservoir.rows)))
    assert max(held) <= (2 * 64, RESERVOIR) and held[0][1] == held[-1][1] == RESERVOIR


def test_a_round_holds_only_halves_of_pairs(engine, monkeypatch):
    monkeypatch.setattr(collect, "ROUND_TOKENS", 1)
    held: list[int] = []
    real = collect._Table.kept
    monkeypatch.setattr(
        collect._Table, "kept", lambda self, wanted: held.append(len(wanted)) or real(self, wanted)
    )
    texts = prompts(engine, 8)
    engine.collect(texts, [Comparison((0, 2, 4, 6), (1, 3, 5, 7), paired=True)], SITES, {"mean"})
    assert held == [0, 0, 0, 0]
