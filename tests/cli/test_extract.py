"""`trimtab extract`: what it writes, what it says, and everything it refuses."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from trimtab.directions import ConceptVectors
from trimtab.engines import load_engine
from trimtab.engines.reference import ReferenceEngine
from trimtab.sites import Site

REFERENCE = ("extract", "tiny", "--engine", "reference")
pytestmark = pytest.mark.usefixtures("few_neutral_texts")


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_it_writes_a_file_that_knows_its_concept(trimtab, joy_pairs, tmp_path):
    target = tmp_path / "new" / "joy.safetensors"
    done = trimtab(*REFERENCE, "--data", joy_pairs, "-o", target, "--json")
    found = ConceptVectors.load(target, model=load_engine("tiny", "reference").info)
    record = done.record
    assert (record["file"], record["hash"], record["concepts"]) == (str(target), found.hash, ["joy"])
    assert record["sites"] == ["layer_0", "layer_1", "layer_2", "layer_3"]
    assert record["counts"] == {"joy/positive": 12, "joy/negative": 12}
    assert set(record["typical_norms"]) == set(record["norms"]["joy"]) == set(record["sites"])
    assert target.with_suffix(".json").exists()
    truth = load_engine("tiny", "reference").planted["joy"]
    assert found.direction("joy", Site(3)).unit @ truth > 0.9


def test_for_a_reader_it_says_what_and_what_next(trimtab, joy_pairs, tmp_path):
    done = trimtab(*REFERENCE, "--data", joy_pairs, "-o", tmp_path / "joy.safetensors", "--layers", "50%,-1")
    assert "joy by mean_diff, read mean_all" in done.out and "resid_post at 2 of 4 layers" in done.out
    assert "next: trimtab generate tiny" in done.err and "layer 2 of 4 (50 %)" in done.err


def test_streams_methods_and_poolings_reach_the_file(trimtab, joy_pairs, tmp_path):
    target = tmp_path / "x.safetensors"
    flags = ("--stream", "mlp_out", "--stream", "resid_post", "--layers", "1", "--pooling", "last_2")
    trimtab(*REFERENCE, "--data", joy_pairs, "-o", target, "--method", "random", "--seed", "7", *flags)
    found = ConceptVectors.load(target)
    assert set(found.sites) == {Site(1, "mlp_out"), Site(1)}
    assert (found.origin.method, found.origin.parameters["seed"], found.origin.pooling) == (
        "random",
        7,
        "last_2",
    )


def test_the_fields_names_and_knobs_are_taken_and_ours_are_printed(trimtab, joy_pairs, tmp_path):
    target = tmp_path / "x.safetensors"
    flags = ("--method", "trimmed_mean", "--set", "unit_pairs=yes", "--layers", "1", "--json")
    done = trimtab(*REFERENCE, "--data", joy_pairs, "-o", target, *flags)
    assert done.record["method"] == "mean_diff"
    assert "trimmed_mean is what mean_diff does with trim=0.1" in done.err
    kept = ConceptVectors.load(target).origin.parameters
    assert (kept["trim"], kept["unit_pairs"], kept["centre"]) == (0.1, True, False)


def test_a_dry_run_shows_the_method_and_its_knobs(trimtab, joy_pairs):
    flags = ("--method", "lda", "--set", "ridge_relative=0.5", "--dry-run", "--json")
    record = trimtab(*REFERENCE, "--data", joy_pairs, *flags).record
    assert record["method"] == "ridge" and record["knobs"]["ridge_relative"] == 0.5


def test_what_a_fit_found_out_stands_in_the_file(trimtab, joy_pairs, tmp_path):
    target = tmp_path / "x.safetensors"
    trimtab(*REFERENCE, "--data", joy_pairs, "-o", target, "--method", "logreg", "--layers", "1")
    found = ConceptVectors.load(target)
    fitted = found.origin.parameters["fits"]["joy"]["layer_1"]
    assert fitted["C"] > 0 and 0.5 < fitted["held_out_auc"] <= 1
    assert found.direction("joy", Site(1)).bias is not None


def test_marks_in_the_pairs_reach_the_method(trimtab, refused, joy_pairs, tmp_path, no_model):
    flags = ("--method", "pos_neg_50", "--dry-run", "--json")
    assert "have none" in refused(*REFERENCE, "--data", joy_pairs, *flags)
    rows = [json.loads(line) for line in joy_pairs.read_text().splitlines()]
    marked = [r | {"positive_score": 40 + 5 * i, "negative_score": 0} for i, r in enumerate(rows)]
    judged = write(tmp_path / "judged.jsonl", "\n".join(json.dumps(r) for r in marked))
    record = trimtab(*REFERENCE, "--data", judged, *flags).record
    assert (record["method"], record["knobs"]["select"]) == ("trait_contrast", "pos_neg_50")
    low = write(tmp_path / "low.jsonl", json.dumps(marked[0]))
    assert "keeps 0 of 1 positive texts of 'joy'" in refused(*REFERENCE, "--data", low, *flags)
    wrong = write(tmp_path / "wrong.jsonl", json.dumps(rows[0] | {"positive_score": "high"}))
    assert "line 1, 'positive_score': a judge's mark is a number" in refused(
        *REFERENCE, "--data", wrong, *flags
    )


@pytest.mark.parametrize(
    ("setting", "words"), [("sead=1", "'seed'"), ("seed=one", "whole"), ("seed", "NAME=VALUE")]
)
def test_a_knob_that_is_none_is_refused_before_a_model_loads(refused, joy_pairs, setting, words, no_model):
    assert words in refused(*REFERENCE, "--data", joy_pairs, "--method", "random", "--set", setting)


def test_it_is_deterministic(trimtab, joy_pairs, tmp_path):
    hashes = {
        trimtab(*REFERENCE, "--data", joy_pairs, "-o", tmp_path / name, "--json").record["hash"]
        for name in ("a.safetensors", "b.safetensors")
    }
    assert len(hashes) == 1


def test_a_warning_is_shown_and_recorded(trimtab, joy_pairs, tmp_path):
    done = trimtab(
        *REFERENCE, "--data", joy_pairs, "-o", tmp_path / "x.safetensors", "--method", "pca_diff", "--json"
    )
    assert "warning: pca_diff centres" in done.err
    (warning,) = done.record["warnings"]
    assert "mean_diff or pca_diff_uncentered" in warning and "and 3 more" in warning


def test_sibling_lists_are_taken_and_said(trimtab, tmp_path):
    data = write(tmp_path / "joy.json", ["I feel happy today."])
    write(tmp_path / "grief.json", ["I feel sad today."])
    write(tmp_path / "joy_grief.json", ["I feel busy today."])
    done = trimtab(*REFERENCE, "--data", data, "-o", tmp_path / "v.safetensors", "--json")
    assert "sibling lists grief.json as negatives" in done.err
    assert done.record["notes"] == [done.err.splitlines()[0]]
    assert done.record["counts"] == {"joy/positive": 1, "joy/negative": 1}


def test_a_dry_run_loads_nothing_and_writes_nothing(trimtab, joy_pairs, tmp_path, no_model):
    target = tmp_path / "x.safetensors"
    done = trimtab(*REFERENCE, "--data", joy_pairs, "-o", target, "--dry-run", "--json")
    assert done.record["texts"] == 24 and done.record["pooling"] == {"joy": "mean_all"}
    assert not target.exists()


# --- refused before a model loads


def bad_corpora():
    return {
        "empty corpus": ("d.jsonl", "", "is empty"),
        "one-sided pair": ("d.jsonl", '{"positive": "a"}', "line 1 is one-sided"),
        "lonely list": ("d.json", ["a"], "one-sided"),
        "blank text": ("d.jsonl", '{"positive": "a", "negative": " "}', "blank"),
        "both sides": ("d.jsonl", '{"positive": "a", "negative": "a"}', "both sides"),
        "malformed": ("d.jsonl", '{"positive": "a", "negative": "b"}\n{', "line 2, column"),
        "unknown layout": ("d.xyz", "x", "no layout"),
    }


@pytest.mark.parametrize("case", sorted(bad_corpora()))
def test_bad_corpora(refused, tmp_path, no_model, case):
    name, content, message = bad_corpora()[case]
    assert message in refused(
        *REFERENCE, "--data", write(tmp_path / name, content), "-o", tmp_path / "v.safetensors"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stream", "resid"), "unknown stream 'resid'"),
        (("--pooling", "first"), "unknown pooling 'first'"),
        (("--layers", "middle"), "'middle' is not a layer"),
        (("--layers", "12-3"), "runs backwards"),
        (("--layers", "auto"), "trimtab sweep"),
        (("--concept", "grief", "--data", "TWO"), "unknown concept 'grief'"),
        (("--concept", "a", "--concept", "grief", "--data", "TWO"), "unknown concept 'grief'"),
        (("--concept", "a", "--concept", "b"), "unknown concept 'a'"),  # two names for a corpus of one
        (("--layers", "1", "--layers", "2"), "--layers takes one value, and is given 2 times"),
        (("--negatives", "none.json"), "no such file: none.json"),
        (("-o", "v.pt"), "NAME.safetensors"),
    ],
)
def test_bad_flags(refused, joy_pairs, tmp_path, no_model, flags, message):
    two = write(
        tmp_path / "two.jsonl",
        "".join(f'{{"positive": "p{c}", "negative": "n{c}", "concept": "{c}"}}\n' for c in "ab"),
    )
    flags = [str(two) if f == "TWO" else f for f in flags]
    given = {"--data": joy_pairs, "-o": tmp_path / "v.safetensors"}
    rest = [part for flag, value in given.items() if flag not in flags for part in (flag, value)]
    assert message in refused(*REFERENCE, *rest, *flags)


def test_some_concepts_of_a_corpus(trimtab, tmp_path):
    rows = [{"positive": f"joy {c}", "negative": f"grief {c}", "concept": c} for c in "abc"]
    corpus = write(tmp_path / "many.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    done = trimtab(
        *REFERENCE, "--data", corpus, "--concept", "c", "--concept", "a", "--dry-run", "--json",
        "-o", tmp_path / "v.safetensors",
    )  # fmt: skip
    assert list(done.record["concepts"]) == ["c", "a"]


def test_unknown_method_and_missing_data_flag_are_usage_errors(refused, joy_pairs):
    assert "mean_diff" in refused(*REFERENCE, "--data", joy_pairs, "--method", "meandif")
    assert "--data" in refused(*REFERENCE)


def test_unpaired_data_and_a_method_of_pairs(refused, tmp_path, no_model):
    data = write(tmp_path / "joy.json", ["a", "b"])
    write(tmp_path / "grief.json", ["c"])
    message = refused(*REFERENCE, "--data", data, "--method", "pca_diff", "-o", tmp_path / "v.safetensors")
    assert "needs pairs" in message and "mean_diff" in message


def test_output_where_nothing_can_be_written(refused, joy_pairs, tmp_path, no_model):
    file = write(tmp_path / "file", "x")
    assert "is not a folder" in refused(*REFERENCE, "--data", joy_pairs, "-o", file / "v.safetensors")
    (tmp_path / "v.safetensors").mkdir()
    assert "it is a folder" in refused(*REFERENCE, "--data", joy_pairs, "-o", tmp_path / "v.safetensors")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, which not even root can write to")
def test_a_file_system_that_refuses(refused, joy_pairs, no_model):
    assert "read-only" in refused(*REFERENCE, "--data", joy_pairs, "-o", "/proc/v.safetensors")


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits mean nothing to root")
def test_a_read_only_folder(refused, joy_pairs, tmp_path, no_model):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert "read-only" in refused(*REFERENCE, "--data", joy_pairs, "-o", folder / "v.safetensors")


def test_the_manifest_never_overwrites_the_corpus(refused, tmp_path, no_model):
    data = write(tmp_path / "joy.json", ["a"])
    write(tmp_path / "grief.json", ["b"])
    message = refused(*REFERENCE, "--data", data, "-o", tmp_path / "joy.safetensors")
    assert "would replace" in message and json.loads(data.read_text()) == ["a"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: p / "none", "no such model folder"),
        (lambda p: write(p / "file", "x"), "is a file"),
        (lambda p: p, "no config.json"),
        (lambda p: write(p / "config.json", "{").parent, "config.json is damaged"),
    ],
    ids=["missing", "a file", "empty", "damaged"],
)
def test_bad_model_folders(refused, joy_pairs, tmp_path, no_model, build, message):
    folder = tmp_path / "model"
    folder.mkdir()
    assert message in refused("extract", build(folder), "--data", joy_pairs, "-o", tmp_path / "v.safetensors")


def test_a_layer_beyond_the_configuration(refused, joy_pairs, tmp_path, no_model):
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder / "config.json", {"text_config": {"num_hidden_layers": 6, "hidden_size": 8}})
    argv = ("extract", folder, "--data", joy_pairs, "-o", tmp_path / "v.safetensors")
    assert "the model has 6 blocks, 0 to 5" in refused(*argv, "--layers", "6")


# --- refused by the model


def test_layers_that_the_model_lacks(refused, joy_pairs, tmp_path):
    message = refused(*REFERENCE, "--data", joy_pairs, "-o", tmp_path / "v.safetensors", "--layers", "4")
    assert "the model has 4 blocks, 0 to 3" in message


def test_nan_activations(refused, joy_pairs, tmp_path, monkeypatch):
    real = ReferenceEngine._capture

    def spoilt(self, *args):
        return [{s: v * float("nan") for s, v in one.items()} for one in real(self, *args)]

    monkeypatch.setattr(ReferenceEngine, "_capture", spoilt)
    target = tmp_path / "v.safetensors"
    assert "NaN" in refused(*REFERENCE, "--data", joy_pairs, "-o", target)
    assert not target.exists()


def test_the_end_of_turn_marker_under_a_chat_template(refused, tmp_path):
    def said(word):
        return [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": f"I feel {word}"}]

    rows = [{"positive": said(p), "negative": said(n)} for p, n in (("happy", "sad"), ("glad", "gloomy"))]
    data = write(tmp_path / "d.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    argv = (*REFERENCE, "--data", data, "-o", tmp_path / "v.safetensors")
    assert "last_content or mean_assistant" in refused(*argv, "--pooling", "last")


def test_a_text_longer_than_the_context(refused, tmp_path):
    data = write(tmp_path / "d.jsonl", {"positive": "I feel happy. " * 300, "negative": "I feel sad."})
    assert "truncation" in refused(*REFERENCE, "--data", data, "-o", tmp_path / "v.safetensors")


def test_a_flag_that_the_engine_does_not_know(refused, joy_pairs, tmp_path):
    argv = (*REFERENCE, "--data", joy_pairs, "-o", tmp_path / "v.safetensors", "--dtype", "float32")
    assert "reference engine takes no --dtype" in refused(*argv)


# --- one head, and modules


def test_one_head_is_zero_elsewhere_and_calibrated(trimtab, joy_pairs, tmp_path):
    target = tmp_path / "head.safetensors"
    flags = ("--stream", "head_out", "--head", "2", "--layers", "1-2")
    record = trimtab(*REFERENCE, "--data", joy_pairs, "-o", target, *flags, "--json").record
    found = ConceptVectors.load(target)
    assert (
        record["sites"] == ["layer_1.head_out", "layer_2.head_out"] and found.origin.parameters["head"] == 2
    )
    for table in found.tables.values():
        row = table.vectors[0]
        assert not row[:20].any() and not row[30:].any() and np.linalg.norm(row) == pytest.approx(1)
        assert table.std[0] > 0  # measured along the head's own row, so z can be read
    assert found.read_site().stream == "head_out"


def test_sites_are_named_in_one_way(refused, no_model, joy_pairs):
    data = ("--data", joy_pairs)
    assert "keeps one head of --stream head_out" in refused(*REFERENCE, *data, "--head", "1")
    both = ("--stream", "mlp_out", "--modules", "mlp")
    assert "give one of them" in refused(*REFERENCE, *data, *both)
    assert "not a regular expression" in refused(*REFERENCE, *data, "--modules", "layers.(3")
    head = ("--stream", "head_out", "--head", "1", "--modules", "mlp")
    assert "give that stream alone" in refused(*REFERENCE, *data, *head)


def test_a_head_or_a_module_that_the_model_lacks(refused, joy_pairs, tmp_path):
    data = ("--data", joy_pairs, "-o", tmp_path / "x.safetensors")
    assert "head 4 does not exist" in refused(*REFERENCE, *data, "--stream", "head_out", "--head", "4")
    assert "no named modules" in refused(*REFERENCE, *data, "--modules", "mlp")


def test_it_says_where_it_reads_best(trimtab, joy_pairs, tmp_path):
    done = trimtab(*REFERENCE, "--data", joy_pairs, "-o", tmp_path / "x.safetensors")
    assert "reads best at layer" in done.err and "std of neutral reply tokens" in done.err


def test_a_dry_run_says_which_modules_or_head(trimtab, no_model, joy_pairs):
    dry = (*REFERENCE, "--data", joy_pairs, "--dry-run", "--json")
    assert trimtab(*dry, "--modules", "mlp").record["streams"] == ["modules mlp"]
    head = trimtab(*dry, "--stream", "head_out", "--head", "2").record
    assert head["streams"] == ["head 2 of head_out"]
