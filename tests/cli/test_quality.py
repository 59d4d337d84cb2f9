"""`--report`, `--as-readout`, `--exclude` and `inspect --report`, as a person types them."""

import json

import pytest

from trimtab.analysis.quality import background, writers
from trimtab.directions import ConceptVectors

pytestmark = pytest.mark.slow

REFERENCE = ("extract", "tiny", "--engine", "reference")


@pytest.fixture(autouse=True)
def few(few_neutral_texts, monkeypatch):
    from trimtab.data.neutral import neutral_texts

    for place in (background, writers):
        monkeypatch.setattr(place, "neutral_texts", lambda: neutral_texts()[:3])


def test_extract_reports_beside_its_file(trimtab, joy_pairs, tmp_path):
    target, page = tmp_path / "joy.safetensors", tmp_path / "joy.html"
    done = trimtab(*REFERENCE, "--data", joy_pairs, "-o", target, "--report", page, "--json")
    report = done.record["report"]
    assert report["files"] == [str(page), str(tmp_path / "joy.quality.json")]
    assert report["verdicts"] == {"joy": "use"} and report["held_out_auc"]["joy"] == 1
    assert "Can these vectors be trusted?" in page.read_text()
    assert json.loads((tmp_path / "joy.quality.json").read_text())["vectors_hash"] == done.record["hash"]
    assert json.loads(target.with_suffix(".json").read_text())["format"] == "trimtab"


def test_the_report_changes_no_vector(trimtab, joy_pairs, tmp_path):
    plain = trimtab(*REFERENCE, "--data", joy_pairs, "-o", tmp_path / "a.safetensors", "--json").record
    told = trimtab(
        *REFERENCE,
        "--data",
        joy_pairs,
        "-o",
        tmp_path / "b.safetensors",
        "--report",
        tmp_path / "r",
        "--json",
    )
    assert told.record["hash"] == plain["hash"] and "report" not in plain
    assert {p.name for p in (tmp_path / "r").iterdir()} == {"report.html", "quality.json"}


def test_for_a_reader_the_verdict_stands_in_the_terminal(trimtab, joy_pairs, tmp_path):
    done = trimtab(
        *REFERENCE, "--data", joy_pairs, "-o", tmp_path / "j.safetensors", "--report", tmp_path / "r"
    )
    assert "✓ use" in done.out and "held-out AUC 1.00" in done.out and "report:" in done.out


def test_as_readout_writes_its_three_files(trimtab, joy_pairs, tmp_path):
    done = trimtab(*REFERENCE, "--data", joy_pairs, "--as-readout", tmp_path / "set", "--json")
    assert {p.name for p in (tmp_path / "set").iterdir()} == {
        "readout.safetensors",
        "readout.json",
        "quality.json",
    }
    assert ConceptVectors.load(tmp_path / "set" / "readout.safetensors").hash == done.record["hash"]
    figures = json.loads((tmp_path / "set" / "quality.json").read_text())["joy"]
    assert list(figures) == ["layer_0", "layer_1", "layer_2", "layer_3"]


def test_an_example_of_the_report_is_excluded_by_one_flag(trimtab, joy_pairs, tmp_path):
    argv = (
        *REFERENCE,
        "--data",
        joy_pairs,
        "-o",
        tmp_path / "j.safetensors",
        "--report",
        tmp_path / "r.json",
        "--json",
    )
    first = trimtab(*argv)
    report = json.loads((tmp_path / "r.json").read_text())
    example = report["rows"][-1]["influence"]["examples"][0]["id"]
    second = trimtab(*argv, "--exclude", example)
    assert second.record["counts"] == {"joy/positive": 11, "joy/negative": 11}
    assert second.record["hash"] != first.record["hash"] and "left out by --exclude" in second.err
    again = json.loads((tmp_path / "r.json").read_text())
    ids = {e["id"] for row in again["rows"] for e in row["influence"]["examples"]}
    assert example not in ids and ids <= {f"joy:{i}" for i in range(1, 13)}


def test_inspect_says_what_the_file_alone_supports(trimtab, joy, tmp_path):
    done = trimtab("inspect", joy, "--report", tmp_path / "r", "--json")
    assert done.record["report"]["verdicts"] == {"joy": "not judged"}
    assert "give --model and --data" in done.record["report"]["reasons"]["joy"][0]


def test_inspect_refits_on_the_files_own_corpus(trimtab, joy_pairs, tmp_path):
    target, tiny = tmp_path / "j.safetensors", ("--engine", "reference", "--model", "tiny")
    trimtab(*REFERENCE, "--data", joy_pairs, "-o", target)
    done = trimtab("inspect", target, *tiny, "--data", joy_pairs, "--report", tmp_path / "r.json", "--json")
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert done.record["report"]["verdicts"] == {"joy": "use"}
    assert (
        all(r["held_out"]["refitted"] for r in rows)
        and "those that the file" in done.record["report"]["notes"][0]
    )
    part = trimtab(
        "inspect",
        target,
        *tiny,
        "--data",
        joy_pairs,
        "--exclude",
        "1",
        "--report",
        tmp_path / "r.json",
        "--json",
    )
    assert part.record["report"]["held_out_auc"]["joy"] == 1
    assert json.loads((tmp_path / "r.json").read_text())["rows"][0]["held_out"]["groups"] == 11


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--report", "v.json"), "would replace"),
        (("--report", "v.pdf"), "FILE.html"),
        (("--exclude", "joy:99"), "only 12 positive"),
        (("--exclude", "none.txt"), "neither a file nor an id"),
        (("--as-readout", "FILE"), "is a file"),
    ],
)
def test_refused_before_a_model_loads(refused, joy_pairs, tmp_path, no_model, flags, message):
    (tmp_path / "FILE").write_text("x")
    flags = [str(tmp_path / f) if ("." in f and f != "none.txt") or f == "FILE" else f for f in flags]
    assert message in refused(*REFERENCE, "--data", joy_pairs, "-o", tmp_path / "v.safetensors", *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--data", "DATA"), "give --report"),
        (("--data", "DATA", "--report", "r.html"), "give --model"),
        (("--exclude", "1", "--report", "r.html"), "give it with --data"),
    ],
)
def test_inspect_refuses_flags_that_lack_another(refused, joy, joy_pairs, no_model, flags, message):
    flags = [str(joy_pairs) if f == "DATA" else f for f in flags]
    assert message in refused("inspect", joy, *flags)


def test_inspect_refuses_a_corpus_of_other_concepts(refused, joy_pairs, tmp_path, no_model):
    import worlds

    worlds.vectors(origin=worlds.origin()).save(tmp_path / "w.safetensors")
    lines = joy_pairs.read_text().replace('"joy"', '"grief"')
    data = tmp_path / "grief.jsonl"
    data.write_text(lines)
    argv = ("--engine", "reference", "--model", "tiny", "--data", data, "--report", tmp_path / "r.html")
    assert "grief" in refused("inspect", tmp_path / "w.safetensors", *argv)
