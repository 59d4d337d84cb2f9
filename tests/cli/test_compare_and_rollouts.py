"""`trimtab generate --dataset`, `trimtab compare` and `trimtab eval readout | steer-read` as a person types them."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.reference.engine import ReferenceEngine
from trimtab.sites import Site


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.txt"
    path.write_text("we feel\nthey look\nyou seem\n")
    return path


@pytest.fixture
def generate(trimtab, questions, joy, tmp_path, unless):
    """A small set of rollouts of the reference model."""

    def call(*argv):
        common = ("generate", "tiny", "--engine", "reference", "--dataset", questions, "--steer", joy)
        usual = {"--max-tokens": "5", "--runs-dir": tmp_path / "runs"}
        return trimtab(*common, *unless(argv, usual), *argv)

    return call


def test_rollouts_are_written_summarised_and_resumed(generate, tmp_path, monkeypatch):
    out = tmp_path / "replies.jsonl"
    argv = ("--scales", "0,2,-2", "-n", "2", "--temperature", "1", "--layers", "1", "-o", out, "--json")
    done = generate(*argv)
    assert done.code == 0, done.err
    assert done.record["replies"] == 3 * 3 * 2 and [c["name"] for c in done.record["conditions"]] == [
        "plain",
        "joy +2",
        "joy -2",
    ]
    assert [i["replies"] for i in done.record["items"]] == [6, 6, 6]
    page = Path(done.record["report"])
    assert {p.name for p in page.parent.iterdir()} >= {
        "report.html",
        "table.md",
        "table.csv",
        "card.md",
        "metrics.json",
    }
    assert "--scales 0,2,-2" in (page.parent / "card.md").read_text() and "joy −2" not in page.read_text()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 18 and {r["scale"] for r in rows} == {0, 2, -2} and all("key" not in r for r in rows)
    # The same command asks the model nothing again ...
    monkeypatch.setattr(
        "trimtab.engines.reference.engine.ReferenceEngine._iterate", lambda *_: pytest.fail("made again")
    )
    assert generate(*argv).record["conditions"] == done.record["conditions"]


def test_cut_replies_go_on_in_the_same_run_to_what_a_longer_run_gives(generate, tmp_path, monkeypatch):
    argv = ("--scales", "0,2", "-n", "2", "--temperature", "1", "--layers", "1", "--stop", "y")
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    first = generate(*argv, "-o", one, "--json")
    short = [json.loads(line) for line in one.read_text().splitlines()]
    assert {r["finish"] for r in short} == {"stop", "length"} and all(r["limits"] == [5] for r in short)
    went = generate(*argv, "-o", one, "--continue-to", "12", "--json")
    assert went.code == 0 and went.record["run"] == first.record["run"], went.err
    assert generate(*argv, "-o", other, "--max-tokens", "12", "--json").record["run"] != went.record["run"]
    rows, whole = ([json.loads(line) for line in f.read_text().splitlines()] for f in (one, other))
    assert [r.pop("limits") for r in rows] == [[5, 12] if r["finish"] == "length" else [5] for r in short]
    assert [r.pop("limits") for r in whole] == [[12]] * len(whole)
    assert rows == whole
    compared = generate(
        *argv, "-o", one, "--json"
    )  # without the flag: nothing is lost, and nothing is made again
    assert compared.record["conditions"] == went.record["conditions"]
    monkeypatch.setattr(
        "trimtab.engines.reference.engine.ReferenceEngine._iterate", lambda *_: pytest.fail("made again")
    )
    assert generate(*argv, "-o", one, "--continue-to", "12", "--json").record["items"] == went.record["items"]


def test_a_limit_that_is_not_larger_is_refused(refused, questions, tmp_path):
    common = ("generate", "tiny", "--engine", "reference", "--runs-dir", tmp_path, "--max-tokens", "5")
    assert "--continue-to is more than" in refused(*common, "--dataset", questions, "--continue-to", "5")
    assert "--continue-to belong to --dataset" in refused(*common, "--prompt", "we", "--continue-to", "9")


def test_marks_of_two_scorers_are_never_compared(refused, trimtab, tmp_path):
    files = []
    for name in ("classifier on tfidf", "classifier on minilm"):
        rows = [
            {"item": i, "condition": "plain", "answer": "a", "tokens": 3, "mark": 0.5, "scorer": name}
            for i in "ab"
        ]
        files.append(tmp_path / f"{name.split()[-1]}.jsonl")
        files[-1].write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert "classifier on tfidf; classifier on minilm" in refused("compare", *files)
    assert trimtab("compare", *files, "--by", "tokens").code == 0  # a length has no scorer


def test_a_torn_run_goes_on_to_the_same_rows(generate, tmp_path):
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    argv = ("--scales", "0,2", "--temperature", "1", "--layers", "1")
    assert generate(*argv, "-o", whole).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    samples = folder / "samples.jsonl"
    lines = samples.read_bytes().splitlines(keepends=True)
    samples.write_bytes(b"".join(lines[:2]) + lines[2][:20])  # killed in the middle of a write
    again = generate(*argv, "-o", whole)
    assert again.code == 0 and "2 finished units kept" in again.err
    assert generate(*argv, "-o", torn).code == 0
    assert whole.read_text() == torn.read_text()


def test_norms_and_dry_run(generate, no_model):
    done = generate("--scales", "1", "--scales", "joy=0,3", "--dry-run", "--json")
    assert done.record["conditions"] == ["plain", "joy +3"] and done.record["replies"] == 6
    assert "learned, unit" in generate("--scales", "1", "--match-norm", "sorrow", "--dry-run").err


def test_what_a_data_set_and_a_prompt_do_not_share(
    generate, refused, trimtab, questions, joy, no_model, tmp_path
):
    assert "--prompt and --dataset exclude" in generate("--scales", "1", "--prompt", "x").err
    assert "--scales" in generate("--dose", "1").err
    assert "no scales for joy" in generate().err
    assert ".jsonl or .parquet" in generate("--scales", "1", "-o", tmp_path / "x.csv").err
    single = ("generate", "tiny", "--engine", "reference", "--prompt", "x")
    assert "belong to --dataset" in refused(*single, "--scales", "1")
    assert "belong to --dataset" in refused(*single, "-o", tmp_path / "x.jsonl")


def test_parquet(generate, tmp_path):
    out = tmp_path / "replies.parquet"
    if importlib.util.find_spec("pyarrow") is None:
        assert "trimtab[datasets]" in generate("--scales", "1", "-o", out).err
        return
    from pyarrow import parquet

    assert generate("--scales", "1", "-o", out).code == 0 and parquet.read_table(out).num_rows == 3


def test_compare_runs_n_way(generate, trimtab, tmp_path):
    out = tmp_path / "replies.jsonl"
    generate("--scales", "0,2,-2", "--layers", "1", "-o", out)
    done = trimtab("compare", out, "--by", "tokens", "--json")
    assert len(done.record["differences"]) == 3 and set(done.record["means"]) == {"plain", "joy +2", "joy -2"}
    (folder,) = (tmp_path / "runs").iterdir()
    two = trimtab("compare", out, folder, "--by", "repetition", "--json")
    same = [
        d
        for d in two.record["differences"]
        if d["one"] == "replies: plain" and d["other"] == f"{folder.name}: plain"
    ]
    assert same[0]["difference"]["mean"] == 0 and same[0]["p"] == 1.0
    assert "score the answers first" in trimtab("compare", out).err
    marks = tmp_path / "marks.jsonl"
    assert trimtab("eval", "repetition", out, "-o", marks).code == 0
    assert trimtab("compare", marks, "--json").code == 0


def test_compare_vectors(trimtab, refused, joy, joy_vectors, tmp_path):
    other = tmp_path / "other.safetensors"
    turned = [Direction("other", s, -joy_vectors.direction(None, s).unit) for s in joy_vectors.sites]
    ConceptVectors.from_directions(turned).save(other)
    done = trimtab("compare", joy, other, "--json")
    assert len(done.record["cosines"]) == len(joy_vectors.sites)
    assert all(c["cosine"] == pytest.approx(-1, abs=1e-6) for c in done.record["cosines"])
    one = trimtab("compare", joy, other, "--layers", "1", "--json")
    assert [c["site"] for c in one.record["cosines"]] == ["layer_1"]
    assert "nothing to compare" in refused("compare", joy)
    rows = tmp_path / "r.jsonl"
    rows.write_text("{}\n")
    assert "is a vector file" in refused("compare", rows, joy)


# --- readouts


def test_readout_matrix(trimtab, tmp_path, monkeypatch):
    """Two corpora about one thing in the reference model's language, and one about something else."""
    sides = {
        "joy": (["happy", "glad", "merry"], ["sad", "gloomy", "lonely"]),
        "mood": (["cheerful", "joyful"], ["tearful", "sorry"]),
    }
    given = []
    for name, (good, bad) in sides.items():
        path = tmp_path / f"{name}.jsonl"
        starts = [
            f"{s} {v} {a}"
            for s in ("I", "you", "we", "they")
            for v in ("feel", "seem")
            for a in ("very", "quite")
        ]
        pairs = [(t, g, b) for t in starts for g, b in zip(good, bad)]
        lines = [
            json.dumps({"positive": f"{t} {g}", "negative": f"{t} {b}", "concept": name}) for t, g, b in pairs
        ]
        path.write_text("\n".join(lines) + "\n")
        given.append(f"{name}={path}")
    argv = (
        "eval",
        "readout",
        "tiny",
        *given,
        "--engine",
        "reference",
        "--runs-dir",
        tmp_path / "runs",
        "--json",
    )
    done = trimtab(*argv, "--layers", "1,3")
    assert done.code == 0, done.err
    made = list(csv.DictReader((Path(done.record["run"]) / "table-entries.csv").open()))
    assert [float(r["auc"]) for r in made] == [e["auc"] for e in done.record["entries"]]
    with monkeypatch.context() as m:  # the same command reads no state again
        m.setattr("trimtab.evaluation.readout.matrix.states", lambda *_: pytest.fail("read again"))
        assert trimtab(*argv, "--layers", "1,3").record == done.record
    assert len(done.record["entries"]) == 2 * 2 * 2
    across = [e for e in done.record["entries"] if e["train"] == "joy" and e["unseen"] == "mood"]
    assert all(
        e["auc"] > 0.9 for e in across
    )  # the planted direction is shared by words the corpora do not share
    assert done.record["verdicts"][0]["train"] == "joy"
    shown = trimtab(*argv[:-1], "--layers", "3")
    assert "trained on joy" in shown.out and "own, by halves" in shown.out
    # The model is an axis: every entry and verdict names its own, and a deeper model has its own layers.
    monkeypatch.setattr(
        "trimtab.cli.models.load_engine",
        lambda name, *_, **__: ReferenceEngine.load("tiny", n_layers=6 if name == "deep" else 4),
    )
    both = trimtab("eval", "readout", "tiny", *given, "--also", "deep", "--engine", "reference", "--json")
    assert both.record["models"] == ["tiny", "deep"]
    pages = {m: Path(k["report"]) for m, k in both.record["runs"].items()}
    assert both.record["report"] == str(pages["tiny"]) and len({p.parent for p in pages.values()}) == 2
    assert "<b>deep</b>" in pages["deep"].read_text() and "<b>deep</b>" not in pages["tiny"].read_text()
    count = {m: sum(e["model"] == m for e in both.record["entries"]) for m in both.record["models"]}
    assert count == {"tiny": 2 * 2 * 4, "deep": 2 * 2 * 6}
    assert [v["model"] for v in both.record["verdicts"]] == ["tiny", "tiny", "deep", "deep"]
    assert {e["depth"] for e in both.record["entries"] if e["model"] == "deep"} == {n / 6 for n in range(6)}
    here = [e for e in both.record["entries"] if e["model"] == "tiny" and e["site"] in ("layer_1", "layer_3")]
    assert here == done.record["entries"]  # what one model gives does not depend on the others


def test_readout_refusals(refused, no_model, joy_pairs):
    assert "NAME=PATH" in refused("eval", "readout", "tiny", "joy", "--engine", "reference")
    assert "at least two corpora" in refused(
        "eval", "readout", "tiny", f"a={joy_pairs}", "--engine", "reference"
    )
    assert "--method" in refused(
        "eval", "readout", "tiny", f"a={joy_pairs}", "--method", "magic", "--engine", "reference"
    )


def test_steer_read(trimtab, joy, questions, tmp_path, monkeypatch):
    argv = (
        "eval", "steer-read", "tiny", joy, "--prompts", questions, "--engine", "reference", "--steer-layer", "1",
        "--read-layer", "3", "--max-tokens", "4", "--runs-dir", tmp_path / "runs",
    )  # fmt: skip
    done = trimtab(*argv, "--json")
    assert done.code == 0, done.err
    assert done.record["steered"] == ["joy"] and done.record["prompts"] == 3
    assert done.record["change"][0][0]["mean"] > done.record["null"][0][1]
    assert np.isfinite(done.record["change"][0][0]["mean"]) and Site(3).key == done.record["read_at"]
    # The run folder holds every reply, the page, the tables and the card.
    run = Path(done.record["run"])
    assert {p.name for p in run.iterdir()} >= {
        "samples.jsonl", "report.html", "table.md", "table.csv", "table-matrix.csv", "card.md", "metrics.json",
        "config.yaml", "run.json",
    }  # fmt: skip
    (row,) = csv.DictReader((run / "table.csv").open())
    assert float(row["change"]) == done.record["change"][0][0]["mean"]
    lines = (run / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 3 * (1 + 2 + 2 * 5)
    # The same command makes nothing again, and a run that lost its last lines ends with the same rows.
    generate = ReferenceEngine.generate
    monkeypatch.setattr(ReferenceEngine, "generate", lambda *_, **__: pytest.fail("made again"))
    again = trimtab(*argv, "--json")
    assert again.record["change"] == done.record["change"] and again.record["run"] == str(run)
    monkeypatch.setattr(ReferenceEngine, "generate", generate)
    (run / "samples.jsonl").write_text("\n".join(lines[:-5]) + "\n" + lines[-5][:40])
    assert trimtab(*argv, "--json").record["change"] == done.record["change"]
    assert sorted((run / "samples.jsonl").read_text().splitlines()) == sorted(lines)
    assert "tokens" in trimtab(*argv).out


def test_runs_are_compared_by_their_own_scores(trimtab, joy, questions, tmp_path):
    """A run that an evaluation scored needs no marks; random directions stay out unless they are asked for."""
    done = trimtab(
        "eval", "steer-read", "tiny", joy, "--prompts", questions, "--engine", "reference", "--steer-layer", "1",
        "--read-layer", "3", "--max-tokens", "4", "--runs-dir", tmp_path / "runs", "--json",
    )  # fmt: skip
    run = done.record["run"]
    pair, *rest = trimtab("compare", run, "--by", "projection", "--json").record["differences"]
    assert (pair["one"], pair["other"].split()[0]) == ("plain", "joy")
    assert [(d["one"].split()[0], d["other"]) for d in rest] == [
        ("plain", "prefix joy"),
        ("joy", "prefix joy"),
    ]
    assert pair["difference"]["mean"] == pytest.approx(done.record["change"][0][0]["mean"])
    for by in ("tokens", "repetition", "nll"):
        assert len(trimtab("compare", run, "--by", by, "--json").record["differences"]) == 3
    some = trimtab(
        "compare", run, "--by", "tokens", "--condition", "plain", "--condition", "random-0 +0.5 @1", "--json"
    )
    assert list(some.record["means"]) == ["plain", "random-0 +0.5 @1"]
    assert "unknown condition" in trimtab("compare", run, "--condition", "nothing").err
    assert "unknown measure 'marks'" in trimtab("compare", run, "--by", "marks").err
    assert (
        "unknown concept 'grief'" in trimtab("compare", run, "--by", "projection", "--concept", "grief").err
    )


def test_vectors_are_compared_by_what_they_do(trimtab, refused, joy, joy_vectors, questions, tmp_path):
    other = tmp_path / "other.safetensors"
    planted = ReferenceEngine.load("tiny").planted
    drawn = [Direction("formality", s, planted["formality"], norm=2.0) for s in joy_vectors.sites]
    ConceptVectors.from_directions(drawn).save(other)
    argv = (
        "compare", joy, other, "--model", "tiny", "--engine", "reference", "--prompts", questions, "--steer-layer", "1",
        "--read-layer", "3", "--max-tokens", "4", "--runs-dir", tmp_path / "runs",
    )  # fmt: skip
    done = trimtab(*argv, "--json")
    assert done.code == 0, done.err
    told = done.record["behaviour"]
    assert told["steered"] == ["joy", "formality"] and told["change"][0][0]["mean"] > told["null"][0][1]
    assert set(done.record["perplexity"]) == {"plain", "joy", "formality"}
    assert [(d["one"], d["other"]) for d in done.record["nll_differences"]] == [
        ("plain", "joy"), ("plain", "formality"), ("joy", "formality"),
    ]  # fmt: skip
    assert len(done.record["cosines"]) == len(joy_vectors.sites) and Path(told["report"]).exists()
    shown = trimtab(*argv).out
    assert "cosine" in shown and "perplexity under the plain model" in shown and "random ±" in shown
    same = trimtab(*[other if a == joy else a for a in argv[:2]], joy, *argv[3:], "--json")
    assert same.record["behaviour"]["steered"] == ["formality", "joy"]
    assert "give --prompts" in refused("compare", joy, other, "--model", "tiny", "--engine", "reference")
    assert "give --model" in refused("compare", joy, other, "--prompts", questions)


def test_steer_read_refusals(refused, no_model, joy, questions):
    common = ("eval", "steer-read", "tiny", joy, "--prompts", questions, "--engine", "reference")
    assert "steers nothing" in refused(*common, "--dose", "0")
    assert "--dose takes one value" in refused(*common, "--dose", "1", "--dose", "2")
