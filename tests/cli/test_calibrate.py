"""`trimtab calibrate` on the reference model: what it writes, says, keeps and refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.directions import ConceptVectors
from trimtab.evaluation.limits import Divergence
from trimtab.safe_range import safe_range

pytestmark = pytest.mark.slow


@pytest.fixture
def prompts(continuations):
    return continuations("prompts.jsonl", ("I", "we", "you"), ("feel", "seem"))


@pytest.fixture
def calibrate(trimtab, joy, prompts, tmp_path, unless):
    def call(*flags):
        usual = {
            "--items": prompts,
            "--layers": "1-2",
            "--limit": "kl_mean=0.2",
            "--runs-dir": tmp_path / "runs",
        }
        return trimtab("calibrate", "tiny", joy, "--engine", "reference", *unless(flags, usual), *flags)

    return call


def test_the_range_is_written_into_the_file_and_warned_of(calibrate, trimtab, joy):
    before = ConceptVectors.load(joy)
    done = calibrate("--json")
    assert done.code == 0, done.err
    after = ConceptVectors.load(joy)
    assert after.hash == before.hash and after.origin == before.origin
    low, high = safe_range(after.calibration, "joy", "layer_2")
    ranges = {(r["site"], r["sign"]): r["strength"] for r in done.record["ranges"]}
    assert (low, high) == (-ranges["layer_2", -1], ranges["layer_2", 1]) and low < 0 < high
    assert all(r["cost"] <= 0.2 for r in done.record["ranges"])
    made = {p.name for p in Path(done.record["run"]).iterdir()}
    assert made >= {"report.html", "table.md", "table.csv", "table-points.csv", "table-signs.csv", "card.md"}
    shown = trimtab("inspect", joy, "--json").record["safe_ranges"]
    assert {(r["site"], r["low"], r["high"]) for r in shown} >= {("layer_2", low, high)}
    assert done.record["signs"]["joy"]["n"] == 3
    assert done.record["signs"]["joy"]["difference"] > 0 and after.calibration["sign"]["joy"]["n"] == 3
    entry = after.calibration["safe"]["joy"]["layer_2"]["add"]
    assert (entry["limit"], entry["value"], entry["prompts"], entry["model"]) == ("kl_mean", 0.2, 3, "tiny")
    plain = (
        "generate",
        "tiny",
        "--engine",
        "reference",
        "--prompt",
        "I feel",
        "--steer",
        joy,
        "--layers",
        "2",
    )
    assert "beyond" not in trimtab(*plain, "--dose", high * 0.9).err
    far = trimtab(*plain, "--dose", high * 1.5, "--json")
    assert "beyond its calibrated safe range (1.5 times)" in far.err
    assert far.record["steering_applied"]["placements"][0]["safe"] == pytest.approx([low, high])


def test_a_finished_run_is_not_solved_again(calibrate, tmp_path):
    first = calibrate("--json")
    (folder,) = (tmp_path / "runs").iterdir()
    points = (folder / "samples.jsonl").read_text()
    second = calibrate("--json")
    assert second.record["ranges"] == first.record["ranges"]
    assert (folder / "samples.jsonl").read_text() == points
    assert len(points.splitlines()) == len((folder / "table-points.csv").read_text().splitlines()) - 1
    assert json.loads((folder / "metrics.json").read_text())["ranges"] == first.record["ranges"]


def test_a_killed_run_loses_one_call_and_ends_the_same(calibrate, monkeypatch):
    real, calls, dies = Divergence.values, [], 3

    def values(self, engine, plans, prompts):
        if len(calls) == dies:
            raise KeyboardInterrupt
        calls.append(len(plans))
        return real(self, engine, plans, prompts)

    monkeypatch.setattr(Divergence, "values", values)
    assert calibrate("--json", "--no-sign").code == 130
    broken, dies = calls.copy(), None
    calls.clear()
    resumed = calibrate("--json", "--no-sign")
    rest = calls.copy()
    calls.clear()
    whole = calibrate("--json", "--no-sign", "--fresh")
    assert resumed.record["ranges"] == whole.record["ranges"] and broken + rest == calls


def test_another_number_format_is_another_run(calibrate, monkeypatch):
    """A server may come back with one at the same address, and what was measured before is not what it would say."""
    from trimtab.cli import models

    real, runs = models.load_engine, []
    for dtype in ("float32", "bfloat16", "float32"):

        def load(*args, dtype=dtype, **options):
            engine = real(*args, **options)
            engine.info = replace(engine.info, dtype=dtype)
            return engine

        monkeypatch.setattr(models, "load_engine", load)
        runs.append(calibrate("--json", "--no-sign").record["run"])
    assert runs[0] == runs[2] != runs[1]


def test_another_file_is_written_where_it_is_asked_for(calibrate, joy, tmp_path):
    assert calibrate("-o", tmp_path / "other.safetensors", "--no-sign").code == 0
    assert "safe" in ConceptVectors.load(tmp_path / "other.safetensors").calibration
    assert "safe" not in ConceptVectors.load(joy).calibration


def test_a_dry_run_loads_nothing(calibrate, no_model):
    done = calibrate("--dry-run", "--json", "--operator", "add", "--operator", "ablate")
    assert len(done.record["searches"]) == 2 * 3 and done.record["limit"] == {"name": "kl_mean", "value": 0.2}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--limit", "klp95"], "Did you mean 'kl_p95'"),
        (["--limit", "coherence"], "--reference"),
        (["--operator", "clamp"], "operator"),
        (["--layers", "9"], "layer"),
        (["--stream", "mlp_out"], "mlp_out"),
        (["-o", "x.gguf"], "NAME.safetensors"),
        (["--limit-items", "0"], "at least 1"),
        (["--split", "none"], "no items of split"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_loads(trimtab, refused, joy, prompts, no_model, flags, words):
    base = ("calibrate", "tiny", joy, "--engine", "reference", "--items", prompts)
    assert words in refused(*base, *flags)
