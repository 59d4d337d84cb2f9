"""Which tokens are read, and evidence that is the same whether it is streamed or given whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import worlds
from trimtab.activations import Activations, check_pooling, pool_positions
from trimtab.errors import InputError, UnknownName
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence, EvidenceBuilder
from trimtab.prompts import Prompt, Span
from trimtab.sites import Site

SITE = Site(3)
CHAT = Prompt(
    tuple(range(14)),
    (Span("system", 2, 4), Span("user", 6, 8), Span("assistant", 10, 12)),
    special=frozenset({0, 1, 4, 5, 8, 9, 12, 13}),
)
BARE = Prompt(tuple(range(6)), special=frozenset({0}))


@pytest.mark.parametrize(
    ("pooling", "chat", "bare"),
    [
        ("last", [13], [5]),
        ("prompt_last", [13], [5]),
        ("last_content", [11], [5]),
        ("last_3", [11, 12, 13], [3, 4, 5]),
        ("last_99", list(range(14)), list(range(6))),
        ("mean_all", [2, 3, 6, 7, 10, 11], [1, 2, 3, 4, 5]),
        ("mean_user", [6, 7], None),
        ("mean_assistant", [10, 11], None),
        ("mean_system", [2, 3], None),
    ],
)
def test_poolings(pooling, chat, bare):
    assert pool_positions(pooling, CHAT).tolist() == chat
    if bare is None:
        with pytest.raises(InputError, match="messages"):
            pool_positions(pooling, BARE)
    else:
        assert pool_positions(pooling, BARE).tolist() == bare


@pytest.mark.parametrize("name", ["first", "last_0", "last_-1", "last_x", "mean_tool", ""])
def test_unknown_poolings(name):
    with pytest.raises(UnknownName):
        check_pooling(name)
    with pytest.raises(UnknownName):
        pool_positions(name, BARE)


def test_a_pooling_never_reads_nothing():
    with pytest.raises(InputError, match="no token"):
        pool_positions("mean_all", Prompt((5,)))
    empty_turn = Prompt((1, 2, 3), (Span("user", 0, 1),), special=frozenset({0}))
    with pytest.raises(InputError, match="no token"):
        pool_positions("mean_user", empty_turn)
    assert pool_positions("last_content", Prompt((5,))).tolist() == [0]


# --- evidence -------------------------------------------------------------------------------------------------


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * (1 + np.abs(b).max()))


@given(st.integers(0, 10_000), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_streamed_evidence_is_evidence_from_rows(seed, batches):
    """With enough rows to fold the triangular factor several times (more than twice the width)."""
    n, width = sum(batches), 5
    world = worlds.planted(n, width, seed=seed)
    whole = Evidence.from_rows(SITE, world.positive, world.negative)
    builder = EvidenceBuilder(SITE, whole.needs, paired=True)
    start = 0
    for size in batches:
        builder.add(world.positive[start : start + size], world.negative[start : start + size])
        start += size
    streamed = builder.finish()
    d = world.positive - world.negative
    for evidence in (whole, streamed):
        assert (
            evidence.count == {POSITIVE: n, NEGATIVE: n} and evidence.pairs == n and evidence.width == width
        )
        for group, rows in ((POSITIVE, world.positive), (NEGATIVE, world.negative)):
            close(evidence.mean[group], rows.mean(0))
            close(evidence.rows[group], rows)
            if n > 1:
                close(evidence.cov[group], np.cov(rows.T))
                close(evidence.var[group], rows.var(0, ddof=1))
        close(evidence.factor.T @ evidence.factor, d.T @ d)
        assert len(evidence.factor) <= 2 * width


def test_var_without_cov_is_the_same():
    world = worlds.planted()
    full = Evidence.from_rows(SITE, world.positive, world.negative, {"cov"})
    light = Evidence.from_rows(SITE, world.positive, world.negative, {"mean"})
    close(light.var[POSITIVE], full.var[POSITIVE])
    assert light.cov is None and light.factor is None and light.rows is None


def test_groups_of_different_sizes():
    world = worlds.planted(10, 4)
    evidence = Evidence.from_rows(SITE, world.positive, world.negative[:3], {"cov", "rows"}, paired=False)
    assert evidence.count == {POSITIVE: 10, NEGATIVE: 3} and evidence.pairs == 0
    close(evidence.mean[NEGATIVE], world.negative[:3].mean(0))


def test_means_survive_a_large_offset():
    """Float32 rows far from 0: the sum of squares would lose everything."""
    rng = np.random.default_rng(0)
    rows = (1e4 + rng.standard_normal((500, 3))).astype(np.float32)
    builder = EvidenceBuilder(SITE, {"mean"}, paired=False)
    for batch in np.split(rows, 50):
        builder.add(batch, batch)
    close(builder.finish().var[POSITIVE], rows.astype(np.float64).var(0, ddof=1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_activations_must_be_finite(bad):
    world = worlds.planted(4, 3)
    rows = world.negative.copy()
    rows[2, 1] = bad
    with pytest.raises(InputError, match="float32"):
        Evidence.from_rows(SITE, world.positive, rows)


def test_one_side_is_not_evidence():
    world = worlds.planted(4, 3)
    for sides in ((world.positive, world.negative[:0]), (world.positive[:0], world.negative)):
        with pytest.raises(InputError, match="both sides"):
            Evidence.from_rows(SITE, *sides, {"mean"}, paired=False)
    with pytest.raises(InputError, match="not pairs"):
        Evidence.from_rows(SITE, world.positive, world.negative[:3])


def test_needs():
    with pytest.raises(UnknownName, match="Did you mean 'gram'"):
        EvidenceBuilder(SITE, {"gramm"}, paired=True)
    with pytest.raises(InputError, match="engine must collect"):
        EvidenceBuilder(SITE, {"gradients"}, paired=True)
    with pytest.raises(InputError, match="needs pairs"):
        EvidenceBuilder(SITE, {"gram"}, paired=False)
    world = worlds.planted(4, 3)
    evidence = Evidence.from_rows(SITE, world.positive, world.negative, {"mean"})
    evidence.require("mean")
    with pytest.raises(InputError, match=r"\['cov', 'gram'\]"):
        evidence.require("gram", "cov", "mean")


def test_evidence_cannot_be_written_to_and_copies_its_rows():
    world = worlds.planted(4, 3)
    evidence = Evidence.from_rows(SITE, world.positive, world.negative)
    world.positive[:] = 0
    assert np.abs(evidence.rows[POSITIVE]).max() > 0
    for array in (evidence.mean[POSITIVE], evidence.rows[NEGATIVE], evidence.factor, evidence.cov[POSITIVE]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


# --- tables of activations ------------------------------------------------------------------------------------


def table():
    rows = np.arange(18.0).reshape(6, 3)
    return Activations(SITE, rows, ("a", "b", "b", "a", "n", "n"), ("g1", "g1", "g2", "g2", "g2", "g1"))


def test_pairs_are_matched_by_group_whatever_their_order():
    evidence = table().evidence("a", "b", paired=True)
    rows = table().rows.astype(np.float64)
    d = np.stack([rows[0] - rows[1], rows[3] - rows[2]])
    close(evidence.factor.T @ evidence.factor, d.T @ d)
    close(evidence.mean[POSITIVE] - evidence.mean[NEGATIVE], d.mean(0))
    assert evidence.pairs == 2


def test_loose_groups():
    evidence = table().evidence("a", "n")
    close(evidence.mean[NEGATIVE], table().rows[4:].mean(0))
    assert not evidence.paired and evidence.factor is None


def test_malformed_tables():
    with pytest.raises(InputError, match="only one side"):
        Activations(SITE, np.ones((3, 2)), ("a", "b", "a"), ("g1", "g1", "g2")).evidence(
            "a", "b", paired=True
        )
    with pytest.raises(InputError, match="both sides"):
        table().evidence("a", "nobody")
    for labels, groups in ((("a",), ("g", "g")), (("a", "b"), ("g",)), ((), ())):
        with pytest.raises(InputError, match="2 rows"):
            Activations(SITE, np.ones((2, 2)), labels, groups)


def test_rows_stand_in_the_order_of_the_comparison_whatever_order_they_come_in():
    rows = np.arange(12.0).reshape(4, 3)
    groups = {POSITIVE: list("abcd"), NEGATIVE: list("abcd")}
    builder = EvidenceBuilder(SITE, {"rows"}, paired=True, groups=groups)
    builder.add(rows[[3, 1]], -rows[[3, 1]], places=([3, 1], [3, 1]))
    builder.add(rows[[0, 2]], -rows[[0, 2]], places=([0, 2], [0, 2]))
    found = builder.finish()
    assert found.rows is not None and found.groups is not None
    assert np.array_equal(found.rows[POSITIVE], rows) and np.array_equal(found.rows[NEGATIVE], -rows)
    assert found.groups[POSITIVE] == tuple("abcd")
