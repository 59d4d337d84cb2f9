"""The one formula, against closed forms: p' = clip(gain * p + shift, low, high), h' = h + strength * (p' - p) * u."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import worlds
from trimtab.errors import InputError
from trimtab.interventions import (
    OPERATORS,
    Ablate,
    Add,
    Cap,
    Coefficients,
    Deltas,
    Gate,
    Pin,
    Strength,
    displace,
    edit,
)

WIDTH = 16
U = worlds.unit(WIDTH, 1)
H = np.random.default_rng(0).standard_normal((5, 7, WIDTH)) * 3
PLAIN = Strength()

finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)
states = st.integers(0, 10_000).map(
    lambda seed: np.random.default_rng(seed).standard_normal((4, WIDTH)) * 10 ** ((seed % 7) - 3)
)


@given(states, finite, st.one_of(st.just(-math.inf), finite), st.one_of(st.just(math.inf), finite), finite)
def test_the_formula(h, gain, low, high, shift):
    low, high = min(low, high), max(low, high)
    p = h @ U
    got = edit(h, U, Coefficients(gain, low, high, shift))
    want = np.clip(gain * p + shift, low, high)
    size = 1 + np.abs(p).max() * (1 + abs(gain)) + abs(shift) + np.abs(want).max()
    np.testing.assert_allclose(got @ U, want, atol=1e-12 * size)
    np.testing.assert_allclose(got - np.outer(got @ U, U), h - np.outer(p, U), atol=1e-12 * size)


@given(states, finite)
def test_add_then_add_back(h, a):
    there = edit(h, U, Coefficients(shift=a))
    np.testing.assert_allclose(edit(there, U, Coefficients(shift=-a)), h, atol=1e-12 * (1 + abs(a)))


@given(states)
def test_ablate_leaves_no_coordinate_and_reflect_is_its_own_inverse(h):
    scale = 1 + np.abs(h).max()
    np.testing.assert_allclose(edit(h, U, Ablate().row(PLAIN)) @ U, 0, atol=1e-12 * scale)
    reflect = Ablate(keep=-1).row(PLAIN)
    np.testing.assert_allclose(edit(edit(h, U, reflect), U, reflect), h, atol=1e-12 * scale)


@given(states, finite, finite)
def test_cap_is_idempotent(h, a, b):
    row = Cap(min(a, b), max(a, b)).row(PLAIN)
    once = edit(h, U, row)
    np.testing.assert_allclose(edit(once, U, row), once, atol=1e-12 * (1 + np.abs(h).max() + abs(a) + abs(b)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "row",
    [
        Coefficients(),
        Ablate(keep=1.0).row(PLAIN),
        Cap(-1e4, 1e4).row(PLAIN),
        Coefficients(shift=3.0, strength=0.0),
        Pin(2.0).row(PLAIN).scaled(0.0),
        Add(amount=2.0).row(PLAIN).scaled(0.0),
    ],
)
def test_a_row_that_changes_nothing_returns_every_bit(row, dtype):
    h = H.astype(dtype)
    h[0, 0, 0] = -0.0
    for renormalise in (False, True):
        got = edit(h, U, row, renormalise=renormalise)
        assert got.dtype == h.dtype and got.tobytes() == h.tobytes()


@given(states)
def test_a_cap_moves_only_what_is_outside(h):
    h = h.astype(np.float32)
    p = h.astype(np.float64) @ U
    high = float(np.median(p))
    got = edit(h, U, Cap(high=high).row(PLAIN))
    inside = p <= high
    assert got[inside].tobytes() == h[inside].tobytes()
    assert (got[~inside] != h[~inside]).any(axis=-1).all()


def test_only_active_tokens_move():
    active = np.zeros(H.shape[:2], dtype=bool)
    active[1, 2] = True
    got = edit(H, U, Coefficients(shift=1.0), active=active)
    moved = (got != H).any(-1)
    assert np.array_equal(moved, active)


def test_relative_is_a_multiple_of_each_norm():
    got = edit(H, U, Coefficients(shift=0.5), relative=True)
    np.testing.assert_allclose(got - H, 0.5 * np.linalg.norm(H, axis=-1)[..., None] * U, atol=1e-12)


def test_renormalise_keeps_each_norm():
    got = edit(H, U, Coefficients(shift=5.0), renormalise=True)
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), np.linalg.norm(H, axis=-1))
    along = (H + 5.0 * U) / np.linalg.norm(H + 5.0 * U, axis=-1, keepdims=True)
    np.testing.assert_allclose(got / np.linalg.norm(got, axis=-1, keepdims=True), along, atol=1e-12)


def test_renormalise_of_a_state_that_vanishes_is_not_nan():
    h = 2.0 * U[None]
    assert np.isfinite(edit(h, U, Ablate().row(PLAIN), renormalise=True)).all()


def test_the_input_is_not_written_to():
    h = H.copy()
    edit(h, U, Coefficients(shift=1.0))
    displace(h, np.ones_like(h))
    assert np.array_equal(h, H)


# --- scaled ---------------------------------------------------------------------------------------------------


@given(states, st.floats(0, 1), finite)
def test_scaled_is_a_share_of_the_change(h, factor, value):
    for op in (Ablate(), Pin(value), Cap(high=value), Add(amount=value)):
        row = op.row(PLAIN)
        change = edit(h, U, row) - h
        size = 1 + np.abs(h).max() + abs(value)
        np.testing.assert_allclose(edit(h, U, row.scaled(factor)), h + factor * change, atol=1e-11 * size)
        np.testing.assert_allclose(edit(h, U, row, factor=factor), h + factor * change, atol=1e-11 * size)


def test_factors_may_differ_by_token():
    factor = np.linspace(0, 1, H.shape[0] * H.shape[1]).reshape(H.shape[:2])
    for row in (Coefficients(shift=2.0), Pin(1.0).row(PLAIN)):
        change = edit(H, U, row) - H
        np.testing.assert_allclose(edit(H, U, row, factor=factor), H + factor[..., None] * change, atol=1e-12)


def test_add_may_be_scaled_by_anything_finite_and_the_rest_only_down():
    assert Coefficients(shift=2.0).scaled(-3.0).shift == -6.0
    assert Pin(1.0).row(PLAIN).scaled(0.5).scaled(0.5).strength == 0.25
    for factor in (1.5, -0.1):
        with pytest.raises(InputError, match=r"\[0, 1\]"):
            Pin(1.0).row(PLAIN).scaled(factor)
    with pytest.raises(InputError):
        Coefficients(shift=1.0).scaled(math.nan)


# --- units ----------------------------------------------------------------------------------------------------


def test_dose_and_scale_are_totals_that_layers_share():
    unit = Strength(raw_norm=3.0, typical_norm=20.0, share=4)
    assert Add(dose=0.5).row(unit).shift == 0.5 * 20.0 / 4
    assert Add(scale=2.0).row(unit).shift == 2.0 * 3.0 / 4
    assert Add(amount=7.0).row(unit).shift == 7.0


def test_a_dose_needs_a_typical_norm():
    with pytest.raises(InputError, match="typical residual norm"):
        Add(dose=0.5).row(PLAIN)


def test_z_units():
    unit = Strength(mean=2.0, std=0.5)
    assert Pin(3.0, z=True).row(unit).low == Pin(3.0, z=True).row(unit).high == 3.5
    row = Cap(-1.0, 1.0, z=True).row(unit)
    assert (row.low, row.high) == (1.5, 2.5)
    assert Gate("x", above=2.0, z=True).threshold(unit) == 3.0
    assert Gate("x", below=2.0).threshold(PLAIN) == 2.0
    for op in (Pin(1.0, z=True), Cap(high=1.0, z=True)):
        with pytest.raises(InputError, match="stored mean and std"):
            op.row(PLAIN)


def test_other_conventions_of_ablation():
    """h + scale (h.u) u: -1 removes. h - strength (h.u) u: 1 removes."""
    p = H @ U
    for scale in (-2.0, -1.0, -0.3, 0.0, 0.5):
        want = H + scale * p[..., None] * U
        np.testing.assert_allclose(edit(H, U, Ablate.from_scale(scale).row(PLAIN)), want, atol=1e-12)
        np.testing.assert_allclose(edit(H, U, Ablate.from_strength(-scale).row(PLAIN)), want, atol=1e-12)
    assert Ablate.from_scale(-1.0) == Ablate.from_strength(1.0) == Ablate(0.0)


# --- refusals -------------------------------------------------------------------------------------------------

BAD = [math.nan, math.inf, -math.inf, True, "1", [1.0]]


@pytest.mark.parametrize("value", BAD)
def test_numbers_are_finite(value):
    for build in (
        lambda: Add(amount=value),
        lambda: Add(dose=value),
        lambda: Add(scale=value),
        lambda: Ablate(value),
        lambda: Cap(low=value),
        lambda: Cap(high=value),
        lambda: Pin(value),
        lambda: Gate("x", above=value),
        lambda: Gate("x", below=value),
    ):
        with pytest.raises(InputError, match="finite"):
            build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: Add(),
        lambda: Add(dose=1.0, scale=1.0),
        lambda: Ablate(None),
        lambda: Pin(None),
        lambda: Cap(),
        lambda: Cap(low=2.0, high=1.0),
        lambda: Gate("x"),
        lambda: Gate("x", above=1.0, below=2.0),
        lambda: Gate("x", above=1.0, at="during"),
        lambda: Coefficients(low=2.0, high=1.0),
        lambda: Coefficients(shift=math.inf),
        lambda: Coefficients(low=math.nan),
        lambda: Deltas(np.zeros(3)),
        lambda: Deltas(np.zeros((0, 3))),
        lambda: Deltas([[1.0, math.nan]]),
        lambda: Deltas(np.ones((2, 3)), start=-1),
    ],
)
def test_malformed_operators(build):
    with pytest.raises(InputError):
        build()


def test_operators_are_values():
    assert Add(amount=1) == Add(amount=1.0) and len({Pin(1.0), Pin(1.0), Pin(2.0)}) == 2
    table = np.ones((2, 3))
    deltas = Deltas(table, 1)
    table[:] = 9
    assert deltas == Deltas(np.ones((2, 3)), 1) != Deltas(np.ones((2, 3)), 2)
    assert hash(deltas) == hash(Deltas(np.ones((2, 3)), 1))
    with pytest.raises(ValueError, match="read-only"):
        deltas.table[0, 0] = 1
    assert set(OPERATORS) == {"add", "ablate", "cap", "pin", "deltas"}


def test_negative_zero_is_zero():
    assert math.copysign(1.0, Coefficients(shift=-0.0).shift) == 1.0


@given(states, st.integers(0, 50))
def test_displace_touches_only_rows_that_change(h, seed):
    change = np.random.default_rng([seed, 1]).standard_normal(h.shape)
    change[1] = 0
    for renormalise in (False, True):
        got = displace(h, change, renormalise=renormalise)
        assert got[1].tobytes() == h[1].tobytes()
        assert (got[0] != h[0]).any()
