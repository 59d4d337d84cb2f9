"""Directions of one attention head: zero outside the slice, and directions like any other inside it."""

import numpy as np
import pytest

from trimtab.directions import ConceptVectors, Direction, Origin
from trimtab.engines import load_engine
from trimtab.errors import InputError, UnknownName
from trimtab.heads import head_part, head_slice
from trimtab.plans import SteeringPlan
from trimtab.readouts import Readout
from trimtab.sites import Site

SITE = Site(1, "head_out")


@pytest.fixture(scope="module")
def engine():
    return load_engine("tiny", "reference")


@pytest.fixture
def vectors(engine):
    width = engine.info.width(SITE)
    raws = np.random.default_rng(0).standard_normal((2, width))
    rows = [
        Direction.from_raw(n, SITE, r, mean=1.0, std=2.0, typical_norm=3.0) for n, r in zip(("a", "b"), raws)
    ]
    rows += [Direction.from_raw(n, Site(1), np.eye(32)[i]) for i, n in enumerate(("a", "b"))]
    return ConceptVectors.from_directions(
        rows, typical_norms={SITE: 3.0, Site(1): 5.0}, origin=Origin("tiny")
    )


def test_the_part_is_the_slice_with_its_own_length(vectors):
    whole, part = vectors.direction("a", SITE), vectors.only_head(2, 4).direction("a", SITE)
    inside = head_slice(SITE, 40, 2, 4)
    assert inside == slice(20, 30)
    assert np.allclose(part.raw[inside], whole.raw[inside], atol=1e-6)
    assert not part.raw[:20].any() and not part.raw[30:].any()
    assert part.norm == pytest.approx(np.linalg.norm(whole.raw[inside]), rel=1e-6)
    assert part.mean is part.std is None and part.typical_norm == 3.0


def test_the_heads_add_up_to_the_whole(vectors):
    parts = [vectors.only_head(h, 4).direction("b", SITE).raw for h in range(4)]
    assert np.allclose(sum(parts), vectors.direction("b", SITE).raw, atol=1e-6)


def test_other_streams_are_left_out_and_the_origin_says_so(vectors):
    only = vectors.only_head(0, 4)
    assert only.sites == (SITE,) and only.concepts == ("a", "b") and only.typical_norms == {SITE: 3.0}
    assert only.origin.parameters == {"head": 0} and only.origin.model == "tiny"


def test_steering_moves_that_head_alone_and_reading_sees_it_alone(engine, vectors):
    only = vectors.only_head(3, engine.info.n_heads)
    prompt = engine.encode("I feel happy", bare=True)
    plan = SteeringPlan.add(only.only(["a"]), scale=2.0, layers="1", stream="head_out")
    plain, steered = (engine.capture(prompt, [SITE], plan=p)[0][SITE] for p in (None, plan))
    moved = steered - plain
    assert np.allclose(moved[:, 30:], 2 * only.direction("a", SITE).raw[30:], atol=1e-5)
    assert not moved[:, :30].any()
    read = Readout.from_vectors(only)
    other = plain.copy()
    other[:, :30] += 7.0
    assert np.allclose(read.apply(SITE, plain), read.apply(SITE, other))
    assert np.allclose(
        read.apply(SITE, plain)[:, 0], plain[:, 30:] @ only.direction("a", SITE).unit[30:], atol=1e-5
    )


def test_what_has_no_heads_is_refused(vectors):
    with pytest.raises(InputError, match=r"head 4 does not exist: the model has 4 heads, 0 to 3"):
        vectors.only_head(4, 4)
    with pytest.raises(InputError, match="width 40, which 7 heads cannot share"):
        vectors.only_head(0, 7)
    with pytest.raises(UnknownName, match="head_out"):
        vectors.only(sites=[Site(1)]).only_head(0, 4)
    with pytest.raises(InputError, match="layer_1 is not made of heads"):
        head_part(vectors.direction("a", Site(1)), 0, 4)
    lone = Direction.from_raw("a", SITE, np.r_[np.ones(10), np.zeros(30)])
    with pytest.raises(InputError, match="'a' at layer_1.head_out has no part in head 3"):
        head_part(lone, 3, 4)
