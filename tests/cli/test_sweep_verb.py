"""`trimtab sweep` and `trimtab score` on the reference model."""

import csv
import json
from pathlib import Path

import pytest

from trimtab.directions import ConceptVectors

pytestmark = pytest.mark.slow


@pytest.fixture
def items(continuations):
    return continuations("items.jsonl", ("I", "we", "you", "they"), ("feel", "seem", "look"))


@pytest.fixture
def sweep(trimtab, items, tmp_path, few_neutral_texts, monkeypatch, unless):
    from trimtab.evaluation import limits

    few = limits.neutral_texts()[:2]
    monkeypatch.setattr(limits, "neutral_texts", lambda: few)

    def call(*flags):
        usual = {"--items": items, "--runs-dir": tmp_path / "runs", "--doses": "-0.3,0.3", "--max-tokens": 3}
        return trimtab("sweep", "tiny", "--engine", "reference", *unless(flags, usual), *flags)

    return call


def test_a_file_is_swept_and_its_layer_written(sweep, joy, tmp_path):
    before = ConceptVectors.load(joy)
    done = sweep(joy, "--json")
    assert done.code == 0, done.err
    r = done.record
    assert (r["score"], r["fluency"], r["tried"]) == ("logprob", "neutral_nll", r["tried"])
    after = ConceptVectors.load(joy)
    layer = r["choice"]["cell"]["layers"][0]
    assert after.calibration["layer"] == layer and after.hash == before.hash
    assert after.calibration["sweep"]["reason"] == r["choice"]["reason"]
    assert after.choose_layers(None, 4) == (layer,)
    (final,) = r["final"]
    assert final["study"]["n_items"] == 6 and final["study"]["item_slope"] > 0
    assert all(row["null_q95"] is not None for row in final["rows"] if row["dose"])
    site = r["sites"]["mean_diff"][f"layer_{layer}"]
    (strength,) = r["strengths"]
    assert strength["rule_300_scale"] == site["rule_300_scales"]["joy"] == 300 / site["raw_norms"]["joy"]
    assert strength["dose"] == r["choice"]["best_dose"]["joy"]
    assert strength["scale"] * site["raw_norms"]["joy"] == pytest.approx(
        strength["dose"] * site["typical_norm"]
    )
    assert r["prefix"]["joy"]["n"] == 6
    page = (tmp_path / "runs").glob("*/report.html")
    assert "<svg" in next(page).read_text()


def test_the_same_sweep_again_generates_nothing(sweep, joy, tmp_path):
    first = sweep(joy, "--json", "--no-write")
    (folder,) = (tmp_path / "runs").iterdir()
    size = (folder / "samples.jsonl").stat().st_size
    second = sweep(joy, "--json", "--no-write")
    assert (folder / "samples.jsonl").stat().st_size == size
    assert {k: v for k, v in second.record.items() if k != "wall_s"} == {
        k: v for k, v in first.record.items() if k != "wall_s"
    }


def test_a_sweep_whose_replies_were_cut_goes_on_in_the_same_folder(sweep, trimtab, refused, joy, tmp_path):
    """As one sweep with the larger limit, but for rounding; scoring again sees every reply once."""
    argv = (joy, "--json", "--score", "projection", "--no-write", "--layers", "1-2", "--no-refine")
    first = sweep(*argv)
    (folder,) = (tmp_path / "runs").iterdir()
    before = (folder / "samples.jsonl").read_bytes()
    went = sweep(*argv, "--continue-to", 7)
    assert went.code == 0 and went.record["run"] == str(folder) == first.record["run"], went.err
    assert (folder / "samples.jsonl").read_bytes().startswith(before)
    whole = sweep(*argv, "--max-tokens", 7)
    assert whole.record["run"] != went.record["run"]
    for k in ("final", "choice", "prefix", "steered_less_prefix", "tried"):
        assert_close(went.record[k], whole.record[k], k)
    with pytest.raises(AssertionError):
        assert_close(went.record["final"], first.record["final"])
    scored = trimtab("score", folder, "--score", "repetition", "--json")
    assert scored.record["rows"] == len(before.splitlines())
    limits = ("--max-tokens", 7, "--continue-to", 7)
    other = ("--engine", "reference", "--runs-dir", tmp_path / "other", "--limit-items", 8)
    assert "larger limit" in refused("sweep", "tiny", *argv, *other, *limits)


def test_the_mean_difference_stands_beside_every_other_method(sweep, trimtab, joy_pairs, tmp_path):
    """Fitted in the same pass, never among the cells, measured where the chosen cell is; files take it from --data."""
    flags = ("--layers", "1-2", "--no-refine", "--json")
    own = sweep("--data", joy_pairs, "--method", "pca_diff", "-o", tmp_path / "pca.safetensors", *flags)
    assert own.code == 0, own.err
    assert own.record["tried"] == 2 * 2 and set(own.record["sites"]) == {"pca_diff"}
    beside, gap = own.record["mean_difference"]["joy"], own.record["steered_less_mean_difference"]["joy"]
    (final,) = own.record["final"]
    best = next(r for r in final["rows"] if r["dose"] == own.record["choice"]["best_dose"]["joy"])
    assert beside["n"] == best["n"] and gap["mean"] == pytest.approx(best["score"] - beside["mean"], abs=1e-9)
    folder = Path(own.record["run"])
    (row,) = csv.DictReader((folder / "table.csv").open())
    assert float(row["mean_difference"]) == beside["mean"]
    assert float(row["against_mean_difference_low"]) == gap["low"]
    assert f"mean difference at the same place and dose reaches {beside['mean']:.3f}".replace("-", "−") in (
        (folder / "card.md").read_text()
    )
    strengths = list(csv.DictReader((folder / "table-strengths.csv").open()))
    assert len(strengths) == 2 and "mean difference" in (folder / "report.html").read_text()
    again = sweep(tmp_path / "pca.safetensors", "--data", joy_pairs, "--no-write", *flags)
    assert again.record["mean_difference"]["joy"]["mean"] == pytest.approx(beside["mean"], abs=1e-6)
    plain = sweep("--data", joy_pairs, "--no-write", *flags)
    assert plain.record["mean_difference"] == {}  # it would stand beside itself
    assert "mean_difference" not in (Path(plain.record["run"]) / "table.csv").read_text()
    told = sweep("--data", joy_pairs, "--method", "pca_diff", "--layers", "1-2", "--no-refine")
    heads = told.out.splitlines()
    assert "mean diff" in heads[1] and "…" not in told.out
    assert any("300/‖v‖" in h and "cut" in h for h in heads)


def assert_close(one, other, where=""):
    """Equal structures, numbers within rounding; words that show numbers are left out."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for k in one.keys() - {"reason"}:
            assert_close(one[k], other[k], f"{where} {k}")
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b, where)
    elif isinstance(one, float):
        # A bootstrap's bounds jump by a resample where rounding breaks a tie.
        assert one == pytest.approx(other, abs=5e-3 if where.endswith(("low", "high")) else 1e-4), where
    else:
        assert one == other, where


def test_a_corpus_is_swept_over_methods_streams_and_windows(sweep, joy_pairs, tmp_path):
    flags = ["--data", joy_pairs, "--method", "mean_diff", "--method", "pca_diff", "--layers", "1-2"]
    flags += [
        "--stream",
        "resid_post",
        "--stream",
        "mlp_out",
        "--window",
        1,
        "--window",
        2,
        "--no-refine",
        "--union",
    ]
    done = sweep(*flags, "--json", "-o", tmp_path / "best.safetensors")
    assert done.code == 0, done.err
    assert done.record["tried"] == 2 * 3 * (2 + 1) * 2  # methods, streams and their union, windows, doses
    saved = ConceptVectors.load(tmp_path / "best.safetensors")
    assert saved.origin.method == done.record["choice"]["cell"]["method"]
    (folder,) = (tmp_path / "runs").iterdir()
    assert {p.stem for p in (folder / "vectors").glob("*.safetensors")} == {"mean_diff", "pca_diff"}
    sizes = list(csv.DictReader((folder / "table-strengths.csv").open()))
    unions = [s for s in sizes if "+" in s["cell"]]  # streams of different lengths have no scale in common
    assert {s["scale"] for s in unions} == {""} and all(s["scale"] for s in sizes if s not in unions)
    assert len(unions) == 2 * (2 + 1)


def test_texts_are_generated_for_scores_of_texts_and_can_be_scored_again(sweep, trimtab, joy, tmp_path):
    labelled = tmp_path / "labelled.jsonl"
    words = {"joy": ("happy", "glad", "merry"), "sad": ("sad", "gloomy", "lonely")}
    rows = [
        {"text": f"{s} {w}", "label": label}
        for label, many in words.items()
        for w in many
        for s in ("really", "so", "very", "I feel", "we seem", "totally", "quite", "most")
    ]
    labelled.write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = sweep(joy, "--json", "--score", "projection", "--layers", "1-2", "--no-refine")
    assert done.code == 0, done.err
    assert done.record["fluency"] == "plain_nll"
    (folder,) = (tmp_path / "runs").iterdir()
    before = (folder / "samples.jsonl").read_bytes()
    again = trimtab("score", folder, "--score", "classifier", "--score-set", f"labelled={labelled}", "--json")
    assert again.code == 0, again.err
    assert (folder / "samples.jsonl").read_bytes() == before
    assert (
        again.record["rows"]
        == len(before.splitlines())
        == len((folder / "scores-classifier.jsonl").read_text().splitlines())
    )
    plain = [x for x in again.record["lines"] if x["kind"] == "plain"]
    assert plain and all(x["concept"] == "joy" for x in again.record["lines"])
    told = trimtab("score", folder, "--score", "projection")
    assert told.code == 0 and "less plain" in told.out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give a vector FILE, --data CORPUS, or both"),
        (["FILE", "--data", "x"], "no such"),
        (["FILE", "--randoms", "4"], "5 random"),
        (["FILE", "--doses", "0,-1"], "above 0"),
        (["FILE", "--doses", "a"], "--doses"),
        (["FILE", "--concept", "calm"], "calm"),
        (["FILE", "--window", "0"], "at least 1"),
        (["FILE", "--modules", "mlp"], "--data"),
        (["FILE", "--positions", "everywhere"], "everywhere"),
        (["FILE", "--prefix", "joy"], "KEY=VALUE"),
        (["FILE", "--prefix", "joi=Be merry."], "unknown concept of --prefix 'joi'"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_loads(refused, joy, no_model, flags, words):
    given = [str(joy) if f == "FILE" else f for f in flags]
    assert words in refused("sweep", "tiny", *given, "--engine", "reference")


def test_a_dry_run_loads_nothing(trimtab, joy, no_model):
    done = trimtab("sweep", "tiny", joy, "--engine", "reference", "--dry-run", "--json")
    assert done.record["concepts"] == ["joy"] and 0.8 in done.record["doses"]


def test_score_refuses_what_is_no_run(refused, tmp_path):
    assert "no run folder" in refused("score", tmp_path, "--score", "logprob")
    (tmp_path / "samples.jsonl").write_text('{"key": "a", "search": "x"}\n')
    assert "no rows" in refused("score", tmp_path, "--score", "logprob")
    row = {
        "key": "a",
        "item": "i",
        "condition": "plain",
        "kind": "plain",
        "concept": None,
        "dose": 0,
        "scores": {},
    }
    (tmp_path / "samples.jsonl").write_text(json.dumps(row) + '\n{"key": "b", "ite')
    assert "do not hold" in refused("score", tmp_path, "--score", "logprob", "--concept", "joy")
