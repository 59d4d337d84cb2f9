"""What every registered method promises. A new method gets all of this by its line in the registry."""

import dataclasses

import numpy as np
import pytest

from trimtab.errors import InputError, MissingDependency, UnknownName
from trimtab.evidence import NEEDS, STREAMED_NEEDS, Evidence, EvidenceBuilder
from trimtab.extraction import METHODS, make, method_class
from trimtab.sites import Site

SITE = Site(3)
WIDTH, PAIRS = 24, 200
ALL = sorted(METHODS)
LEARNED = [m for m in ALL if method_class(m).learns]
#: Knobs without which a method, by what it is, does not find a dense direction in a few hundred noisy pairs:
#: whitening ignores the pairs, an L1 readout is sparse, and a role asks for 50 answers.
SUITED = {
    "ridge": {"ridge_relative": 10.0},
    "logistic_l1": {"row": "pattern"},
    "role_difference": {"min_count": 20},
    "subspace": {"k": 1},
}
PAIRED = [m for m in ALL if method_class(m).paired]
READOUTS = [m for m in ALL if getattr(method_class(m), "row", None) == "weights"]
STREAMED = [m for m in ALL if method_class(m).needs <= STREAMED_NEEDS]
SCALING = [m for m in ALL if method_class(m).scales]
#: pca_diff sees only how the shift varies over pairs, so every planted world lets it vary.
pytestmark = pytest.mark.filterwarnings("ignore::trimtab.extraction.method.ExtractionWarning")


def unit(seed, width=WIDTH):
    vector = np.random.default_rng(seed).standard_normal(width)
    return vector / np.linalg.norm(vector)


def world(seed=0, pairs=PAIRS, width=WIDTH, spread=2.0, noise=0.2):
    """Pairs whose difference is (4 + spread * z) t: a shift whose strength varies from pair to pair."""
    rng = np.random.default_rng(seed)
    t = unit(100 + seed, width)
    negative = 5 * rng.standard_normal((pairs, width)) + 3
    strength = 4 + spread * rng.standard_normal((pairs, 1))
    return t, negative + strength * t + noise * rng.standard_normal((pairs, width)), negative


def fit(name, positive, negative, paired=True, needs=None, **knobs):
    method = make(name, **knobs)
    return method.fit(evidence_for(method, positive, negative, paired, needs), "happy")


def judged(evidence):
    """The evidence with a judge's marks that every rule is content with, for the methods that ask."""
    marks = {"positive": 90.0, "negative": 10.0}
    return dataclasses.replace(evidence, scores={g: np.full(n, marks[g]) for g, n in evidence.count.items()})


def evidence_for(method, positive, negative, paired=True, needs=None):
    """Evidence of these rows with all that the method (or `needs`) asks for, planted consistently."""
    wanted = frozenset(method.wanted if needs is None else needs)
    found = Evidence.from_rows(SITE, positive, negative, wanted & STREAMED_NEEDS, paired=paired)
    more = {"needs": found.needs | wanted}
    if "gradients" in wanted:
        gradients = planted_gradients(positive, negative)
        more["gradients"] = gradients
        more["loss_norms"] = {g: (rows**2).sum(1) for g, rows in gradients.items()}
    if "logprobs" in wanted:
        more["logprobs"] = {
            "positive": np.full(len(positive), -2.0),
            "negative": np.full(len(negative), -2.0),
        }
    sides = {"positive": np.asarray(positive), "negative": np.asarray(negative)}
    if "tokens" in wanted:  # texts whose mean is the row; the positives' tokens hold the shift
        shift = sides["positive"].mean(0) - sides["negative"].mean(0)
        more["tokens"] = {
            "positive": tuple(np.stack([x + shift, x - shift]) for x in sides["positive"]),
            "negative": tuple(x[None] for x in sides["negative"]),
        }
    if "weights" in wanted:
        more["weights"] = {"layer_3.down": np.random.default_rng(8).standard_normal((found.width, 40))}
    return judged(dataclasses.replace(found, **more))


def planted_gradients(positive, negative):
    """Each pair pulls its sides apart along the mean difference, by its own strength; across it, both sides have the
    same nuisance, which the signed mean cancels and the plain one does not."""
    difference = positive - negative
    along = difference.mean(0)
    along = along / (np.linalg.norm(along) or 1.0)
    pull = np.outer(difference @ along, along) / 4
    middle = (positive + negative) / 2
    nuisance = 0.05 * (middle - middle.mean(0))
    nuisance -= np.outer(nuisance @ along, along)
    return {"positive": nuisance - pull, "negative": nuisance + pull}


@pytest.mark.parametrize("name", ALL)
def test_it_is_what_the_registry_says(name):
    cls = method_class(name)
    assert cls.name == name
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert cls.needs <= NEEDS and len(cls.__module__) and "=" in (_doc(cls) or "")


def _doc(cls):
    return __import__("sys").modules[cls.__module__].__doc__


@pytest.mark.parametrize("name", LEARNED)
def test_a_planted_direction_is_recovered_with_its_sign(name):
    t, positive, negative = world()
    found = fit(name, positive, negative, **SUITED.get(name, {}))
    assert found.unit @ t > 0.99
    assert found.sign_source == method_class(name).sign_source
    assert (found.name, found.site) == ("happy", SITE)


@pytest.mark.parametrize("name", [m for m in LEARNED if method_class(m).odd])
def test_swapped_sides_flip_it(name):
    _, positive, negative = world()
    there, back = fit(name, positive, negative), fit(name, negative, positive)
    assert np.allclose(there.unit, -back.unit, atol=1e-6)
    assert there.norm == pytest.approx(back.norm)


@pytest.mark.parametrize("name", ALL)
def test_row_order_does_not_matter(name):
    _, positive, negative = world()
    order = np.random.default_rng(5).permutation(PAIRS)
    assert np.allclose(
        fit(name, positive, negative).raw, fit(name, positive[order], negative[order]).raw, atol=1e-5
    )


@pytest.mark.parametrize("name", ALL)
def test_it_is_deterministic_and_leaves_its_input_alone(name):
    _, positive, negative = world()
    before = positive.copy(), negative.copy()
    first, second = fit(name, positive, negative), fit(name, positive, negative)
    assert first.hash == second.hash and first.norm == second.norm
    assert np.array_equal(positive, before[0]) and np.array_equal(negative, before[1])


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("pairs", [WIDTH, 5 * WIDTH], ids=["few", "many"])
def test_streamed_evidence_is_the_same_evidence(name, pairs):
    _, positive, negative = world(pairs=pairs)
    method = make(name, **SUITED.get(name, {}))
    builder = EvidenceBuilder(SITE, method.wanted, paired=True)
    for start in range(0, pairs, 7):
        builder.add(positive[start : start + 7], negative[start : start + 7])
    streamed = method.fit(judged(builder.finish()), "happy")
    whole = fit(name, positive, negative, **SUITED.get(name, {}))
    assert np.allclose(streamed.unit, whole.unit, atol=1e-5)
    assert streamed.norm == pytest.approx(whole.norm)


@pytest.mark.parametrize("name", SCALING)
def test_scaling_the_states_scales_the_norm_alone(name):
    _, positive, negative = world()
    small, large = fit(name, positive, negative), fit(name, 8 * positive, 8 * negative)
    assert np.allclose(small.unit, large.unit, atol=1e-6)
    assert large.norm == pytest.approx(8 * small.norm)


@pytest.mark.parametrize("name", LEARNED)
def test_more_evidence_than_needed_changes_nothing(name):
    _, positive, negative = world()
    assert np.allclose(
        fit(name, positive, negative).raw,
        fit(name, positive, negative, needs=STREAMED_NEEDS | method_class(name).needs).raw,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", [m for m in ALL if method_class(m).needs - {"mean"}])
def test_missing_evidence_is_refused(name):
    _, positive, negative = world()
    with pytest.raises(InputError, match="collect them"):
        fit(name, positive, negative, needs={"mean"})


@pytest.mark.parametrize("name", PAIRED)
def test_unpaired_data_are_refused_and_the_mend_is_named(name):
    _, positive, negative = world()
    with pytest.raises(InputError, match=f"{name} needs pairs.*mean_diff"):
        fit(name, positive, negative, paired=False, needs={"mean"})


@pytest.mark.parametrize("name", [m for m in ALL if not method_class(m).paired])
def test_sides_of_different_size_are_fine_without_pairs(name):
    _, positive, negative = world()
    assert fit(name, positive, negative[:50], paired=False).provenance["counts"] == {
        "positive": PAIRS,
        "negative": 50,
    }


@pytest.mark.parametrize("name", ALL)
def test_identical_sides_are_refused_by_name(name):
    rows = np.ones((10, WIDTH))
    with pytest.raises(InputError, match=r"'happy' .*layer_3"):
        fit(name, rows, rows)


@pytest.mark.parametrize(
    ("name", "paired"), [(m, True) for m in ALL] + [(m, False) for m in ALL if m not in PAIRED]
)
def test_sides_that_are_equal_row_by_row_are_refused_in_words(name, paired):
    rows = world()[2]
    with pytest.raises(InputError, match=r"'happy'.* layer_3"):
        fit(name, rows, rows.copy(), paired=paired)


@pytest.mark.parametrize("name", [m for m in ALL if method_class(m).sklearn])
def test_a_missing_package_is_told_before_anything_runs(name, monkeypatch):
    make(name).check_installed()
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(MissingDependency, match=f"{name} needs scikit-learn.*trimtab.eval"):
        make(name).check_installed()


@pytest.mark.parametrize("name", ALL)
def test_nan_is_refused(name):
    _, positive, negative = world()
    good = evidence_for(make(name), positive, negative, needs=STREAMED_NEEDS | method_class(name).needs)
    spoilt = good.mean["positive"].copy()
    spoilt[3] = np.nan
    evidence = dataclasses.replace(good, mean={**good.mean, "positive": spoilt})
    with pytest.raises(InputError, match="NaN"):
        make(name).fit(evidence, "happy")


@pytest.mark.parametrize("name", READOUTS)
def test_a_bias_puts_the_decision_where_the_sides_part(name):
    _, positive, negative = world(spread=0.5)
    found = fit(name, positive + 7, negative + 7)
    values = [rows @ found.unit.astype(float) + found.bias for rows in (positive + 7, negative + 7)]
    assert values[0].mean() > 0 > values[1].mean()
    assert abs(values[0].mean() + values[1].mean()) < 0.1 * found.norm


@pytest.mark.parametrize("name", [m for m in ALL if not method_class(m).learns])
def test_a_baseline_does_not_look_at_the_data(name):
    _, positive, negative = world()
    found = fit(name, positive, negative)
    assert found.sign_source == "none"
    assert found.norm == pytest.approx(np.linalg.norm(positive.mean(0) - negative.mean(0)))
    assert np.allclose(found.unit, fit(name, negative, positive + 1).unit, atol=1e-6)


def test_unknown_names():
    with pytest.raises(UnknownName, match="mean_diff"):
        make("mean_dif")
    with pytest.raises(UnknownName, match="seed"):
        make("random", sead=1)
