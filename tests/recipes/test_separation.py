"""Where a file is read by default: the layer at which the sides stand apart, on data that did not find the row."""

import dataclasses

import numpy as np
import pytest

from trimtab.data.contrast import Contrast
from trimtab.data.neutral import neutral_texts
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines import load_engine
from trimtab.evidence import Evidence
from trimtab.extraction import make
from trimtab.recipes import extract
from trimtab.recipes.separation import reading_calibration, separation
from trimtab.sites import Site

RNG = np.random.default_rng(0)


def evidence(shift, n=40, width=64, paired=False, needs=("mean",), seed=0):
    rng = np.random.default_rng(seed)
    positive, negative = rng.standard_normal((2, n, width))
    positive[:, 0] += shift
    return Evidence.from_rows(Site(0), positive, negative, needs, paired)


def fitted(part, std=2.0):
    return dataclasses.replace(make("mean_diff").fit(part, "c"), std=std)


def test_a_planted_shift_is_measured_in_stds():
    part = evidence(3.0, n=4000)
    assert separation(fitted(part), part) == pytest.approx(1.5, rel=0.05)


def test_chance_does_not_separate():
    """Without a shift the raw mean difference is long all the same; the shrunken one is not."""
    found = [evidence(0.0, n=10, seed=s) for s in range(40)]
    raw = [np.linalg.norm(p.mean["positive"] - p.mean["negative"]) / 2 for p in found]
    assert np.mean(raw) > 1.5 and np.mean([separation(fitted(p), p) for p in found]) < 0.4


@pytest.mark.parametrize("paired", [False, True])
def test_it_is_what_fresh_data_show_along_the_same_row(paired):
    needs = ("mean", "gram") if paired else ("mean",)
    claimed, seen = [], []
    for seed in range(60):
        part, fresh = (evidence(2.0, 12, 64, paired, needs, seed + k) for k in (0, 1000))
        row = fitted(part)
        claimed.append(separation(row, part))
        seen.append((fresh.mean["positive"] - fresh.mean["negative"]) @ row.unit / 2.0)
    assert np.mean(claimed) == pytest.approx(np.mean(seen), abs=0.12)


def test_the_best_site_wins_and_the_residual_has_the_first_word():
    found = reading_calibration({Site(1): 1.0, Site(2): 2.5, Site(4): 2.0, Site(3, "mlp_out"): 9.0})
    assert (
        found["read_layer"] == 2 and "2.50 std" in found["read_reason"] and "layer_4" in found["read_reason"]
    )
    assert "read_stream" not in found
    assert reading_calibration({Site(3, "mlp_out"): 1.0})["read_stream"] == "mlp_out"
    assert reading_calibration({Site(1): 0.0}) == reading_calibration({}) == {}


def test_reading_and_steering_choose_apart(monkeypatch, tmp_path):
    monkeypatch.setattr("trimtab.recipes.neutral.neutral_texts", lambda: neutral_texts()[:2])
    engine = load_engine("tiny", "reference")
    texts = [tuple(f"{s} feel really {w} today." for s in ("I", "you")) for w in ("happy", "sad")]
    found = extract(engine, Contrast("joy", *texts, paired=True))
    table = found.origin.parameters["read_separation"]
    best = max(table, key=table.get)
    assert set(table) == {"layer_0", "layer_1", "layer_2", "layer_3"}
    assert found.read_site().key == best and found.calibration["read_layer"] == Site.from_key(best).layer
    assert found.choose_layers(None, 4) == (2,)  # the 60 % rule, whatever reading prefers
    found.save(tmp_path / "joy.safetensors")
    assert ConceptVectors.load(tmp_path / "joy.safetensors").read_site() == found.read_site()
    other = dataclasses.replace(found, calibration={"read_layer": 3, "layer": 1})
    assert (other.read_site(), other.choose_layers(None, 4)) == (Site(3), (1,))
    assert other.only(sites=[Site(1)]).read_site() == Site(1)
    assert not extract(engine, Contrast("joy", *texts, paired=True), "random").calibration


def test_a_file_that_says_nothing_is_read_where_it_would_be_steered():
    unit = np.eye(4)[0]
    plain = ConceptVectors.from_directions([Direction("a", Site(n), unit) for n in range(10)])
    assert plain.read_site() == Site(6) and plain.read_site(5) == Site(3)
    marked = dataclasses.replace(plain, calibration={"layer": 8})
    assert marked.read_site() == Site(8)
    odd = ConceptVectors.from_directions([Direction("a", Site(2, "mlp_out"), unit)])
    assert odd.read_site(6) == Site(2, "mlp_out")
