"""`trimtab inspect`: everything about a file but its rows."""

import json
from dataclasses import replace

import pytest

from trimtab.directions import ConceptVectors, Direction
from trimtab.safe_range import with_safe_range
from trimtab.sites import Site


@pytest.fixture
def moods(tmp_path):
    """Two concepts at a right angle but for a known cosine, at layers 0 and 5."""
    rows = []
    for layer in (0, 5):
        rows.append(Direction("joy", Site(layer), [1.0, 0, 0, 0], norm=2.0, typical_norm=8.0))
        rows.append(Direction("calm", Site(layer), [0.6, 0.8, 0, 0], norm=4.0, typical_norm=8.0))
    path = tmp_path / "moods.safetensors"
    ConceptVectors.from_directions(rows, calibration={"layer": 5}).save(path)
    return path


def test_the_record(trimtab, moods):
    record = trimtab("inspect", moods, "--json").record
    assert (record["concepts"], record["hash"]) == (["joy", "calm"], ConceptVectors.load(moods).hash)
    first = record["sites"][0]
    assert (first["site"], first["layer"], first["stream"], first["width"]) == ("layer_0", 0, "resid_post", 4)
    assert (first["typical_norm"], first["norms_over_typical"]) == (8.0, {"joy": 0.25, "calm": 0.5})
    assert record["calibration"] == {"layer": 5}
    (rows,) = record["similarity"].values()
    assert list(record["similarity"]) == ["layer_5"] and rows[0] == [pytest.approx(1), pytest.approx(0.6)]


def test_the_page(trimtab, moods):
    out = trimtab("inspect", moods, "--layers", "0").out
    assert "joy 0.250  calm 0.500" in out and "+0.60" in out and "layer 0 of 6 (0 %)" in out
    assert "calibration  layer 5" in out


def test_calibrated_ranges_are_shown(trimtab, moods):
    assert "safe range: not calibrated" in trimtab("inspect", moods).out
    entry = {"low": -0.6, "high": 0.85, "limit": "kl_p95", "value": 1.0, "positions": "all", "prompts": 12,
             "model": "tiny", "revision": "0123456789", "reached": True, "monotone": False}  # fmt: skip
    file = ConceptVectors.load(moods)
    replace(file, calibration=with_safe_range(file.calibration, "joy", "layer_5", "add", entry)).save(moods)
    record = trimtab("inspect", moods, "--json").record
    assert record["safe_ranges"] == [{"concept": "joy", "site": "layer_5", "operator": "add", **entry}]
    (line,) = [x for x in trimtab("inspect", moods).out.splitlines() if "kl_p95" in x]
    for words in (
        "joy",
        "layer 5 of 6",
        "-0.6",
        "+0.85",
        "kl_p95 ≤ 1",
        "12",
        "tiny at 01234567",
        "not monotone",
    ):
        assert words in line


def test_an_extracted_file_shows_where_it_comes_from(trimtab, joy):
    done = trimtab("inspect", joy)
    assert all(
        w in done.out for w in ("mean_diff", "tiny", "mean_all", "joy/positive 12", "run trimtab sweep")
    )
    record = trimtab("inspect", joy, "--json").record
    assert record["origin"]["n_layers"] == 4
    assert f"read_layer {record['calibration']['read_layer']}" in done.out and "separation" in done.out


def test_whether_it_fits_a_model(trimtab, refused, moods, tmp_path):
    for width in (4, 8):
        (tmp_path / f"w{width}").mkdir()
        config = {"num_hidden_layers": 6, "hidden_size": width}
        (tmp_path / f"w{width}" / "config.json").write_text(json.dumps(config))
    assert trimtab("inspect", moods, "--model", tmp_path / "w4", "--json").record["fits"] == str(
        tmp_path / "w4"
    )
    assert "has width 4" in refused("inspect", moods, "--model", tmp_path / "w8")


def test_files_that_are_none(refused, moods, tmp_path):
    assert "no such file" in refused("inspect", tmp_path / "none.safetensors")
    whole = moods.read_bytes()
    moods.write_bytes(whole[:-8])
    assert "damaged" in refused("inspect", moods)
    moods.write_bytes(whole)
    assert "no resid_post rows at layers [3]" in refused("inspect", moods, "--layers", "3")
