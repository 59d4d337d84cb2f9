"""Sums, interpolation, Gram–Schmidt and merging of whole files, against plain linear algebra."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import worlds
from trimtab import algebra
from trimtab.directions import ConceptVectors, Direction, Table
from trimtab.errors import InputError, Mismatch, UnknownName
from trimtab.sites import Site


def raw(vectors, concept, layer):
    return vectors.direction(concept, Site(layer)).raw.astype(np.float64)


weights = st.floats(-5, 5).filter(lambda x: abs(x) > 0.01)


@given(weights, weights)
def test_a_sum_is_the_sum_of_raw_vectors(a, b):
    file = worlds.vectors(origin=worlds.origin())
    found = algebra.weighted_sum(file, {"joy": a, "calm": b}, "mix")
    for layer in file.layers():
        assert np.allclose(
            raw(found, "mix", layer), a * raw(file, "joy", layer) + b * raw(file, "calm", layer), atol=1e-4
        )
    assert found.concepts == ("mix",) and found.typical_norms == file.typical_norms
    assert found.table(Site(2)).mean is None and found.table(Site(2)).std is None  # they need covariances
    assert found.origin.model == "paper" and found.origin.parameters["sum"] == {"joy": a, "calm": b}


@given(st.floats(-1, 2))
def test_interpolation(t):
    file = worlds.vectors()
    found = algebra.interpolate(file, "joy", "calm", t, "x")
    assert np.allclose(
        raw(found, "x", 5), (1 - t) * raw(file, "joy", 5) + t * raw(file, "calm", 5), atol=1e-4
    )


def test_interpolation_begins_and_ends_where_it_should():
    file = worlds.vectors()
    for t, concept in ((0, "joy"), (1, "calm")):
        found = algebra.interpolate(file, "joy", "calm", t)
        assert found.concepts == (f"joy~calm@{t}",)
        assert np.allclose(raw(found, None, 2), raw(file, concept, 2), atol=1e-6)


def test_a_sum_that_cancels():
    rows = [Direction(c, Site(1), np.eye(4)[0]) for c in ("a", "b")]
    file = ConceptVectors.from_directions(rows)
    with pytest.raises(InputError, match="cancels to nothing at layer_1"):
        algebra.weighted_sum(file, {"a": 1, "b": -1}, "x")
    with pytest.raises(InputError, match="finite"):
        algebra.weighted_sum(file, {"a": float("nan")}, "x")
    with pytest.raises(UnknownName, match="'c'"):
        algebra.weighted_sum(file, {"c": 1}, "x")


def test_gram_schmidt():
    file, others = worlds.vectors(), worlds.vectors(("x", "y", "z"))
    others = ConceptVectors(("x", "y", "z"), {s: Table(_rows(i, 24)) for i, s in enumerate(file.sites)})
    found = file.orthogonalised([others.only(["x"]), others.only(["y", "z"])])
    for site in file.sites:
        span = others.table(site).vectors.astype(np.float64)
        assert np.abs(found.table(site).vectors @ span.T).max() < 1e-6
        q, _ = np.linalg.qr(span.T)  # an independent projection
        for concept in file.concepts:
            before = raw(file, concept, site.layer)
            assert np.allclose(raw(found, concept, site.layer), before - q @ (q.T @ before), atol=1e-5)
    assert found.concepts == file.concepts and found.origin.parameters["orthogonal_to"] == ["x", "y", "z"]


def _rows(seed, width):
    rows = np.random.default_rng(seed).standard_normal((3, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_gram_schmidt_of_dependent_and_nearly_parallel_vectors():
    a, b = worlds.unit(24, 1), worlds.unit(24, 2)
    near = a + 1e-3 * worlds.beside(a, 3)
    file = ConceptVectors.from_directions([Direction.from_raw("near", Site(0), 5 * near)])
    twice = ConceptVectors.from_directions([Direction(n, Site(0), v) for n, v in (("a", a), ("again", a))])
    found = file.orthogonalised([twice])
    assert abs(found.direction(None, Site(0)).unit.astype(np.float64) @ a) < 1e-6
    assert found.direction(None, Site(0)).norm == pytest.approx(5e-3, rel=1e-3)
    both = ConceptVectors.from_directions([Direction(n, Site(0), v) for n, v in (("a", a), ("b", b))])
    inside = ConceptVectors.from_directions([Direction.from_raw("in", Site(0), a - 2 * b)])
    with pytest.raises(InputError, match="'in' lies in the span"):
        inside.orthogonalised([both])
    with pytest.raises(InputError, match="at least one"):
        file.orthogonalised([])


def test_merging():
    one, two = worlds.vectors(("joy", "calm")), worlds.vectors(("fear",))
    found = algebra.merge({"one": one, "two": two})
    assert found.concepts == ("joy", "calm", "fear") and found.typical_norms == one.typical_norms
    for file in (one, two):
        for concept in file.concepts:
            for site in file.sites:
                a, b = found.direction(concept, site), file.direction(concept, site)
                assert (a.hash, a.norm, a.mean, a.std) == (b.hash, b.norm, b.mean, b.std)


def test_equal_names_are_refused_or_prefixed():
    one, two = worlds.vectors(("joy",)), worlds.vectors(("joy",))
    with pytest.raises(InputError, match="'joy' is in more than one file.*--prefix"):
        algebra.merge({"one": one, "two": two})
    assert algebra.merge({"one": one, "two": two}, prefix=True).concepts == ("one.joy", "two.joy")


def test_a_file_without_norms_has_raw_norm_one():
    one = worlds.vectors(("joy",), layers=(2,))
    bare = ConceptVectors(("bare",), {Site(2): Table(np.eye(24)[:1])})
    found = algebra.merge({"one": one, "bare": bare})
    assert found.table(Site(2)).norms[1] == found.direction("bare", Site(2)).norm == 1
    assert found.direction("bare", Site(2)).mean is None
    assert found.direction("joy", Site(2)).mean == one.direction("joy", Site(2)).mean


def test_caps_in_all_or_in_none():
    plain = ConceptVectors(("a",), {Site(2): Table(np.eye(4)[:1])})
    capped = ConceptVectors(("b",), {Site(2): Table(np.eye(4)[1:2], cap=np.array([[np.nan, 1.0]]))})
    with pytest.raises(Mismatch, match="only some files have a cap"):
        algebra.merge({"a": plain, "b": capped})
    both = algebra.merge({"b": capped, "c": capped.renamed("c")})
    assert both.table(Site(2)).cap.shape == (2, 2)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"layers": (2, 5)}, "only one has layer_6; only the other none"),
        ({"width": 16}, "24 and 16 wide"),
        ({"origin": worlds.origin(n_layers=12)}, "models of 10 and 12 blocks"),
    ],
)
def test_files_that_do_not_fit(other, message):
    one, two = worlds.vectors(origin=worlds.origin()), worlds.vectors(("fear",), **other)
    for combine in (lambda: algebra.merge({"one": one, "two": two}), lambda: one.orthogonalised([two])):
        with pytest.raises(Mismatch, match=message):
            combine()


def test_other_models_and_other_norms():
    one = worlds.vectors(("joy",), origin=worlds.origin())
    with pytest.warns(algebra.AlgebraWarning, match="different models \\(paper, rock\\)"):
        merged = algebra.merge({"a": one, "b": worlds.vectors(("fear",), origin=worlds.origin(model="rock"))})
    assert merged.origin.model is None and merged.origin.n_layers == 10
    loud = {s: 2 * n for s, n in one.typical_norms.items()}
    with pytest.raises(Mismatch, match="typical norms at layer_2 are 12 and 24"):
        algebra.merge({"a": one, "b": worlds.vectors(("fear",), typical_norms=loud)})


def test_renaming():
    file = worlds.vectors()
    found = file.renamed({"joy": "delight"})
    assert found.concepts == ("delight", "calm") and file.concepts == ("joy", "calm")
    assert found.only(["calm"]).renamed("peace").concepts == ("peace",)
    with pytest.raises(UnknownName, match="'jo'"):
        file.renamed({"jo": "x"})
    with pytest.raises(InputError, match="distinct"):
        file.renamed({"joy": "calm"})
    with pytest.raises(InputError, match="name one of"):
        file.renamed("x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("joy", {"joy": 1}),
        ("-joy", {"joy": -1}),
        ("joy - 0.5*calm", {"joy": 1, "calm": -0.5}),
        ("2*joy*3 + .5 * calm", {"joy": 6, "calm": 0.5}),
        ("2*(joy - calm) - joy", {"joy": 1, "calm": -2}),
        ("joy × 2 − calm", {"joy": 2, "calm": -1}),
        ("joy*-1e-1 + --calm", {"joy": -0.1, "calm": 1}),
        ("'joy' + \"calm\"", {"joy": 1, "calm": 1}),
    ],
)
def test_expressions(text, expected):
    file = worlds.vectors()
    found = algebra.evaluate(f"x = {text}", file)
    assert found.concepts == ("x",) and found.origin.parameters["sum"] == pytest.approx(expected)
    assert found.hash == algebra.weighted_sum(file, expected, "x").hash
    assert algebra.evaluate(text, file).concepts == (text,)


sums = st.lists(
    st.tuples(st.sampled_from(["joy", "calm"]), st.floats(0.1, 9), st.sampled_from("+-")), min_size=1
)


@given(sums)
def test_any_sum_of_products(parts):
    text = " ".join(f"{sign} {weight!r}*{concept}" for concept, weight, sign in parts)
    expected = {c: sum(w if s == "+" else -w for name, w, s in parts if name == c) for c, _, _ in parts}
    assume(max(map(abs, expected.values())) > 0.01)
    assert algebra.evaluate(f"x = {text}", worlds.vectors()).origin.parameters["sum"] == pytest.approx(
        expected
    )


def test_names_in_quotes():
    file = worlds.vectors(("open mind", "joy-2"))
    assert algebra.evaluate("'a b' = 'open mind' - \"joy-2\"", file).concepts == ("a b",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("joy*calm", "multiplies two vectors"),
        ("joy + 1", "adds a number"),
        ("2 * 3", "is a number"),
        ("joy -", "is missing"),
        ("", "no name"),
        ("x =", "is missing"),
        ("= joy", "no name"),
        ("(joy", "not closed"),
        ("joy)", "'\\)' stands where"),
        ("joy calm", "'calm' stands where"),
        ("joy / 2", "cannot read '/ 2'"),
        ("joy ** 2", "is missing"),
        ("joy - joy", "cancels"),
        ("jyo", "Did you mean 'joy'"),
        ("__import__('os').system('true')", "cannot read"),
        ("[joy]", "cannot read"),
    ],
)
def test_expressions_that_are_none(text, message):
    with pytest.raises(InputError, match=message):
        algebra.evaluate(text, worlds.vectors())
