"""Directions and files of them: unit rows, arithmetic on raw vectors, a hash of content only."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import worlds
from trimtab.directions import ConceptVectors, Direction, Table, content_hash
from trimtab.errors import InputError, Mismatch, UnknownName
from trimtab.sites import Site

A = Direction.from_raw("a", Site(3), 3.0 * worlds.unit(24, 1), mean=0.5, std=2.0, bias=0.1, typical_norm=9.0)
B = Direction.from_raw("b", Site(3), 4.0 * worlds.unit(24, 2))


def raw_sum(x, y, s=1.0):
    return x.raw.astype(np.float64) + s * y.raw.astype(np.float64)


def test_from_raw_keeps_the_length():
    assert A.norm == pytest.approx(3.0) and np.linalg.norm(A.unit) == pytest.approx(1.0)
    assert A.unit.dtype == np.float32 and not A.unit.flags.writeable
    np.testing.assert_allclose(A.raw, 3.0 * worlds.unit(24, 1), rtol=1e-6)


def test_arithmetic_is_that_of_raw_vectors():
    np.testing.assert_allclose((A + B).raw, raw_sum(A, B), atol=1e-5)
    np.testing.assert_allclose((A - B).raw, raw_sum(A, B, -1), atol=1e-5)
    np.testing.assert_allclose((2 * A).raw, 2 * A.raw, rtol=1e-6)
    np.testing.assert_allclose((A * -0.5).raw, -0.5 * A.raw, rtol=1e-6)
    np.testing.assert_allclose((-A).raw, -A.raw)
    assert (A + B).name == "a+b" and (-A).name == "-a"


def test_negation_turns_the_calibration_that_turns():
    flipped = -A
    assert (
        flipped.mean == -0.5 and flipped.std == 2.0 and flipped.bias is None and flipped.typical_norm == 9.0
    )


@given(st.floats(-2, 3))
def test_interpolation_is_a_line(t):
    np.testing.assert_allclose(
        A.interpolate(B, t).raw, (1 - t) * A.raw.astype(np.float64) + t * B.raw.astype(np.float64), atol=1e-4
    )


def test_cosine():
    assert A.cosine(A) == pytest.approx(1.0) and A.cosine(-A) == pytest.approx(-1.0)
    assert A.cosine(B) == pytest.approx(float(worlds.unit(24, 1) @ worlds.unit(24, 2)), abs=1e-6)
    with pytest.raises(Mismatch, match="not comparable"):
        A.cosine(replace(B, site=Site(4)))
    with pytest.raises(Mismatch):
        A + Direction("c", Site(3), np.eye(8)[0])


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    "raw", [np.zeros(8), np.full(8, np.nan), np.array([1.0, np.inf]), np.full(8, 1e300)], ids=str
)
def test_what_has_no_direction(raw):
    with pytest.raises(InputError, match="zero|finite"):
        Direction.from_raw("x", Site(0), raw)


@pytest.mark.parametrize("unit", [np.full(8, 1.0), np.eye(3), np.zeros(4)])
def test_a_unit_row_is_a_unit_row(unit):
    with pytest.raises(InputError):
        Direction("x", Site(0), unit)


def test_no_direction_times_zero():
    with pytest.raises(InputError, match="dose 0"):
        A * 0


def test_rows_that_are_unit_to_float32_keep_their_bits():
    again = Direction("a", Site(3), A.unit)
    assert again.unit.tobytes() == A.unit.tobytes() and again.hash == A.hash


# --- files of directions --------------------------------------------------------------------------------------


def test_directions_go_in_and_come_out():
    file = worlds.vectors()
    assert file.concepts == ("joy", "calm") and file.layers() == (2, 5, 6)
    calm = file.direction("calm", Site(5))
    assert calm.norm == pytest.approx(7.0) and calm.typical_norm == 15.0
    assert calm.mean == pytest.approx(0.5 * 5 + 1) and calm.std == pytest.approx(1 + 0.5 + 1)
    np.testing.assert_allclose(calm.unit, worlds.unit(24, 105), atol=1e-6)


def test_a_concept_must_be_at_every_site():
    with pytest.raises(InputError, match="no direction at layer_4"):
        ConceptVectors.from_directions([A, B, replace(A, site=Site(4))])


def test_subsets():
    file = worlds.vectors()
    one = file.only(["calm"], [Site(6)])
    assert one.concepts == ("calm",) and one.sites == (Site(6),) and one.typical_norms == {Site(6): 16.0}
    assert one.direction(None, Site(6)).hash == file.direction("calm", Site(6)).hash
    turned = file.only(["calm", "joy"])
    assert turned.direction("joy", Site(2)).hash == file.direction("joy", Site(2)).hash
    with pytest.raises(UnknownName, match="Did you mean 'calm'"):
        file.only(["clam"])
    with pytest.raises(UnknownName, match="layer_3"):
        file.only(sites=[Site(3)])
    with pytest.raises(InputError, match="name one of"):
        file.direction(None, Site(2))


def test_similarity():
    file = worlds.vectors()
    matrix = file.similarity(Site(5))
    np.testing.assert_allclose(np.diag(matrix), 1.0, atol=1e-6)
    expected = file.direction("joy", Site(5)).cosine(file.direction("calm", Site(5)))
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(expected)


def test_the_default_layer_is_nearest_sixty_percent_of_depth():
    """The same rule as a layer written "60%": block 6 of 10."""
    assert worlds.vectors().choose_layers(None, 10) == worlds.vectors().choose_layers("60%", 10) == (6,)
    assert worlds.vectors(layers=(1, 8)).choose_layers(None, 10) == (8,)
    assert worlds.vectors(layers=tuple(range(36))).choose_layers(None, 36) == (21,)
    with pytest.raises(UnknownName):
        worlds.vectors().choose_layers(None, 10, stream="mlp_out")


def test_the_hash_is_of_content():
    file = worlds.vectors()
    calibrated = worlds.vectors(calibration={"layer": 5}, origin=worlds.origin())
    assert file.hash == calibrated.hash == worlds.vectors().hash
    table = file.table(Site(5))
    nudged = replace(table, norms=table.norms + 1e-4)
    others = [
        worlds.vectors(("joy", "ease")),
        worlds.vectors(layers=(2, 5, 7)),
        file.only(["calm", "joy"]),
        replace(file, tables={**file.tables, Site(5): nudged}),
    ]
    assert len({f.hash for f in (file, *others)}) == 5


@given(st.integers(0, 1000))
def test_content_hash_sees_shape_and_every_number(seed):
    rows = np.random.default_rng(seed).standard_normal((3, 4)).astype(np.float32)
    assert content_hash(rows) == content_hash(rows.copy(order="F")) != content_hash(rows.reshape(4, 3))
    other = rows.copy()
    other[seed % 3, seed % 4] = np.nextafter(other[seed % 3, seed % 4], np.float32(9))
    assert content_hash(other) != content_hash(rows)


@pytest.mark.parametrize(
    "fields",
    [
        {"vectors": np.ones((2, 4))},
        {"vectors": np.full((2, 4), np.nan)},
        {"vectors": np.eye(4)[0]},
        {"vectors": np.eye(4)[:2], "norms": np.ones(3)},
        {"vectors": np.eye(4)[:2], "cap": np.ones((2, 3))},
        {"vectors": np.eye(4)[:2], "basis": np.ones((2, 3, 5))},
    ],
)
def test_malformed_tables(fields):
    with pytest.raises(InputError):
        Table(**fields)


def test_malformed_files():
    table = Table(np.eye(4)[:2])
    for concepts, tables in (
        (("a", "a"), {Site(0): table}),
        ((), {Site(0): table}),
        (("a",), {Site(0): table}),
        (("a", "b"), {}),
    ):
        with pytest.raises(InputError):
            ConceptVectors(concepts, tables)


def test_a_file_of_another_model_is_refused():
    file = worlds.vectors(origin=worlds.origin(n_layers=12))
    with pytest.raises(Mismatch, match="12 blocks"):
        file.check_model(worlds.model(10))
    with pytest.raises(Mismatch, match="width 24"):
        worlds.vectors().check_model(worlds.model(10, 16))
    worlds.vectors(origin=worlds.origin()).check_model(worlds.model(10))
