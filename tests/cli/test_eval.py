"""`trimtab eval …` as a person types it, on planted truth."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.planted_answers import PlantedEngine, direction
from evaluation.small_dilemmas import FILE, GAMMA, logits
from trimtab.cli.eval import EVALUATIONS
from trimtab.cli.frame import root
from trimtab.data.reading import rows_of_run
from trimtab.directions import ConceptVectors
from trimtab.safe_range import with_safe_range


@pytest.fixture
def planted(monkeypatch):
    engine = PlantedEngine(logits, reply=lambda text, moved: "No<|endoftext|>")
    monkeypatch.setattr("trimtab.cli.models.load_engine", lambda *_, **__: engine)
    return engine


@pytest.fixture
def honest(tmp_path):
    path = tmp_path / "honest.safetensors"
    ConceptVectors.from_directions([direction(0, norm=2.0, typical_norm=1.0)]).save(path)
    return path


COMMON = ("--engine", "reference", "--layers", "1", "--slot", "", "--min-items", "5")


def test_every_evaluation_has_a_command():
    group = root.get_command(None, "eval")
    for name in EVALUATIONS:
        command = group.get_command(None, name)
        assert command.name == name and command.callback is not None


def test_unknown_evaluations_name_the_nearest(trimtab):
    done = trimtab("eval", "dilemma", "m")
    assert done.code == 2 and "Did you mean 'dilemmas'" in done.err


def test_dilemmas_end_to_end_with_resume_and_leaderboard(trimtab, planted, honest, tmp_path):
    argv = ("eval", "dilemmas", "m", FILE, "--steer", honest, "--doses", "0.5,1", "--free", "4",
            "--runs-dir", tmp_path / "runs", "-o", tmp_path / "one.json", *COMMON)  # fmt: skip
    done = trimtab(*argv, "--json")
    assert done.code == 0, done.err
    (opening,) = done.record["openings"]
    assert opening["strength"] == 1 and opening["row"]["plus"]["change"]["target"]["mean"] == pytest.approx(
        GAMMA
    )
    assert opening["row"]["minus"]["change"]["target"]["mean"] == pytest.approx(-GAMMA)
    assert opening["slopes"]["anti_steered"] == 0 and opening["slopes"]["slope"]["mean"] == pytest.approx(
        GAMMA
    )
    low, high = opening["row"]["null"]
    assert -GAMMA < low < 0 < high < GAMMA
    assert set(done.record["prompts"]) == {"prompt: Be honest.", "prompt: Be dishonest."}
    names = [r["condition"] for r in done.record["leaderboard"]["rows"]]
    assert names == ["plain", "axis-0 +1", "axis-0 -1", "prompt: Be honest.", "prompt: Be dishonest."]
    assert all(
        r["missing"] == 0 for r in done.record["leaderboard"]["rows"]
    )  # "No<|endoftext|>" is an answer
    kept = [row for _, row in rows_of_run(Path(done.record["run"]))]
    cells = 1 + 4 + 2 + 5 * 4
    assert len([r for r in kept if "log_ratio" in r]) == 40 * cells
    assert {(r["model"], r["revision"], r["seed"]) for r in kept} == {("planted", "1", 0)}
    columns = {"item", "condition", "kind", "fingerprint", "dose", "scale"}
    assert all(columns <= set(r) for r in kept)
    assert {(r["dose"], r["scale"]) for r in kept if r["condition"] == "axis-0 +1"} == {(1.0, 0.5)}
    assert all(r["text"] and r["scores"]["log_ratio"] for r in kept if "log_ratio" in r)
    assert {r["fingerprint"] for r in kept if r["kind"] in ("plain", "prompt")} == {"plain"}
    # The same command finds every cell in its run folder: an engine that cannot measure is not asked.
    planted.logits = lambda text, moved: (
        pytest.fail("measured again") if "Proposed" in text else {"Yes": 0, "No": 0}
    )
    again = trimtab(*argv, "--json")
    assert again.record["openings"] == done.record["openings"] and again.record["run"] == done.record["run"]
    # A run that lost its last rows ends with the same ones; its free answers can be marked as those of any run.
    samples = Path(done.record["run"]) / "samples.jsonl"
    lines = samples.read_text().splitlines()
    samples.write_text("\n".join(lines[:-3]) + "\n" + lines[-3][:50])
    planted.logits = logits
    assert trimtab(*argv, "--json").record["openings"] == done.record["openings"]
    assert sorted(samples.read_text().splitlines()) == sorted(lines)
    marked = trimtab("eval", "repetition", samples.parent, "--baseline", "plain", "--json")
    assert len(marked.record["conditions"]) == cells
    again = trimtab("score", samples.parent, "--score", "repetition", "--json")
    assert again.code == 0 and again.record["rows"] == 40 * cells, again.err
    board = trimtab("eval", "leaderboard", tmp_path / "one.json", tmp_path / "one.json", "--json")
    assert len(board.record["rows"]) == 10 and board.record["target"] == "honesty"
    # The run folder holds what a reader and a paper need, with the figures of the record.
    run = Path(done.record["run"])
    assert {p.name for p in run.iterdir()} >= {
        "report.html",
        "table.md",
        "table.csv",
        "card.md",
        "metrics.json",
    }
    (row,) = csv.DictReader((run / "table.csv").open())
    assert float(row["plus"]) == opening["row"]["plus"]["change"]["target"]["mean"]
    assert json.loads((run / "metrics.json").read_text())["openings"] == done.record["openings"]
    command = (run / "card.md").read_text().split("$ ")[1].split("\n")[0]
    assert command.startswith("trimtab eval dilemmas m ")
    assert "--doses 0.5,1" in command and "--free 4" in command and "--random" not in command
    told = trimtab("eval", "leaderboard", tmp_path / "one.json", "-o", tmp_path / "board", "--json")
    assert told.record["files"][0] == str(tmp_path / "board" / "report.html")
    assert "axis-0 +1" in (tmp_path / "board" / "table.csv").read_text()


def test_free_answers_that_were_cut_go_on(trimtab, refused, planted, honest, tmp_path):
    """The answer stands behind three brackets: two tokens do not reach it, six do, however they are come by."""

    def reply(text, moved):
        said = text.rpartition("[assistant]")[2]
        return ("(((No" if moved[0] >= 0 else "No")[len(said) :]

    planted.reply = reply
    argv = ("eval", "dilemmas", "m", FILE, "--steer", honest, "--doses", "1", "--random", "0",
            "--runs-dir", tmp_path / "runs", *COMMON)  # fmt: skip
    short = trimtab(*argv, "--free", "2", "--json")
    missing = {r["condition"]: r["missing"] for r in short.record["leaderboard"]["rows"]}
    assert missing["plain"] == missing["axis-0 +1"] == 1 and missing["axis-0 -1"] == 0
    assert "from 0% to 100% between conditions" in short.err and "--continue-to" in short.err
    went = trimtab(*argv, "--free", "2", "--continue-to", "6", "--json")
    assert went.code == 0 and went.record["run"] == short.record["run"], went.err
    whole = trimtab(*argv, "--free", "6", "--json")
    assert went.record["leaderboard"] == whole.record["leaderboard"]
    assert went.record["openings"] == whole.record["openings"]  # lengths and shares cut too
    planted.reply = lambda text, moved: pytest.fail("written again")
    again = trimtab(*argv, "--free", "2", "--continue-to", "6", "--json")
    assert again.record["leaderboard"] == went.record["leaderboard"]
    assert "--continue-to is more than --free" in refused(*argv, "--continue-to", "6")


def test_doses_beyond_the_safe_range_are_named_once(trimtab, planted, honest, tmp_path):
    """A study of doses goes beyond on purpose: its report says where, and nothing is warned of plan by plan."""
    file = ConceptVectors.load(honest)
    entry = {"low": -0.6, "high": 0.3, "limit": "kl_p95", "value": 1.0, "prompts": 8}
    ranges = with_safe_range({}, file.concepts[0], file.sites[0].key, "add", entry)
    replace(file, calibration=ranges).save(honest)
    done = trimtab(
        "eval", "dilemmas", "m", FILE, "--steer", honest, "--doses", "0.25,0.5,1", "--runs-dir", tmp_path, *COMMON,
        "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    said = "axis-0: doses −1, +0.5, +1 lie beyond its safe range, −0.6 to +0.3"
    assert done.err.count("safe range") == 1 and said in done.err
    assert next(n for n in done.record["notes"] if "safe range" in n).startswith(said)
    assert said in (Path(done.record["run"]) / "report.html").read_text()
    assert not any("safe range" in w for w in done.record["warnings"])


def test_trained_weights_beside_a_vector(trimtab, refused, planted, honest, tmp_path, monkeypatch):
    """`--tuned` measures another model on the same dilemmas; it is a row of the table, the page and the leaderboard."""
    folder = tmp_path / "tuned"
    folder.mkdir()
    leaning = PlantedEngine(lambda text, moved: logits(text, moved + np.array([2.0, 0, 0, 0])))
    opened = []

    def load(model, *_, **__):
        opened.append(model)
        return leaning if model == str(folder) else planted

    monkeypatch.setattr("trimtab.cli.models.load_engine", load)
    argv = ("eval", "dilemmas", "m", FILE, "--steer", honest, "--doses", "1", "--tuned", f"full={folder}",
            "--runs-dir", tmp_path / "runs", *COMMON)  # fmt: skip
    done = trimtab(*argv, "--json")
    assert done.code == 0 and opened == ["m", str(folder)], done.err
    assert done.record["tuned"]["full"]["change"]["target"]["mean"] == pytest.approx(2 * GAMMA)
    assert "full" in [r["condition"] for r in done.record["leaderboard"]["rows"]]
    run = Path(done.record["run"])
    assert "full" in (run / "table-conditions.csv").read_text()
    assert "trained weights instead of a vector" in (run / "report.html").read_text()
    leaning.logits = lambda text, moved: (
        pytest.fail("measured again") if "Proposed" in text else {"Yes": 0, "No": 0}
    )
    assert trimtab(*argv, "--json").record["tuned"] == done.record["tuned"]
    assert "there is no folder" in refused(*argv[:-8], "--tuned", "x=none", *COMMON)
    assert "has the name of a vector" in refused(*argv, "--tuned", f"axis-0={folder}")
    (folder / "adapter_config.json").write_text("{}")
    assert "--engine transformers" in trimtab(*argv).err


def test_the_table_for_a_reader(trimtab, planted, honest, tmp_path):
    done = trimtab(
        "eval", "dilemmas", "m", FILE, "--steer", honest, "--doses", "1", "--runs-dir", tmp_path, *COMMON
    )
    assert done.code == 0 and "axis-0" in done.out and "prompt: Be" in done.out and "rule" in done.out


def test_what_is_checked_before_a_model_loads(refused, trimtab, no_model, honest, tmp_path):
    assert "name a file of dilemmas" in refused("eval", "dilemmas", "m", "--engine", "reference")
    assert "no dilemma names the value 'greed'" in refused(
        "eval", "dilemmas", "m", FILE, "--target", "greed", *COMMON
    )
    assert "--doses or --scales" in refused(
        "eval", "dilemmas", "m", FILE, "--doses", "1", "--scales", "1", *COMMON
    )
    assert "positive numbers" in refused(
        "eval", "dilemmas", "m", FILE, "--steer", honest, "--doses", "-1", *COMMON
    )
    assert "list of numbers" in refused("eval", "dilemmas", "m", FILE, "--doses", "x", *COMMON)
    listed = trimtab("eval", "dilemmas", "m", FILE, "--list-values", "--json")
    assert listed.record["values"]["honesty"] >= 12
    dry = trimtab(
        "eval", "dilemmas", "m", FILE, "--steer", honest, "--doses", "1", "--dry-run", "--json", *COMMON
    )
    assert dry.record["questions"] == 40 and len(dry.record["conditions"]) == 1 + 2 + 2 + 10


def test_a_model_that_does_not_answer_at_the_slot_is_refused(trimtab, planted, honest, tmp_path):
    planted.mass = 0.2
    done = trimtab("eval", "dilemmas", "m", FILE, "--steer", honest, "--runs-dir", tmp_path, *COMMON)
    assert done.code == 2 and "--slot" in done.err


# --- answers


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.jsonl"
    rows = [
        {"question": f"q{i}", "answer": text, "condition": c, "finish": "stop"}
        for i in range(6)
        for c, text in (("plain", f"a merry bird number {i}"), ("steered", "no no no no"))
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_repetition(trimtab, answers, tmp_path):
    out = tmp_path / "marks.jsonl"
    done = trimtab("eval", "repetition", answers, "--baseline", "plain", "-o", out, "--json")
    plain, steered = done.record["conditions"]
    assert plain["mean"]["mean"] == 1.0 and steered["mean"]["mean"] == pytest.approx(0.25)
    assert steered["difference"]["mean"] == pytest.approx(-0.75) and steered["p"] == pytest.approx(2 / 64)
    marks = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(marks) == 12 and marks[1]["mark"] == pytest.approx(0.25) and marks[0]["scorer"] == "repetition"


def test_perplexity_prefers_the_models_own_language(trimtab, tmp_path):
    path = tmp_path / "a.jsonl"
    said = {"fluent": " feel really happy today.", "salad": " today happy I feel feel."}
    path.write_text(
        "".join(json.dumps({"question": "I", "answer": a, "condition": c}) + "\n" for c, a in said.items())
    )
    done = trimtab("eval", "perplexity", "tiny", path, "--engine", "reference", "--json")
    fluent, salad = done.record["conditions"]
    assert salad["perplexity"] > 2 * fluent["perplexity"]


def test_classifier_on_a_corpus(trimtab, answers, tmp_path):
    corpus = tmp_path / "mood.jsonl"
    pairs = [
        ("the merry bird", "the gloomy bird"),
        ("a merry dog", "a gloomy dog"),
        ("one merry day", "one gloomy day"),
    ] * 6
    corpus.write_text(
        "".join(
            json.dumps({"positive": f"{p} {i}", "negative": f"{n} {i}", "concept": "mood"}) + "\n"
            for i, (p, n) in enumerate(pairs)
        )
    )
    done = trimtab("eval", "classifier", answers, "--corpus", corpus, "--embedder", "tfidf", "--json")
    assert done.code == 0, done.err
    plain, steered = done.record["conditions"]
    assert plain["mean"]["mean"] > steered["mean"]["mean"] and done.record["held_out"]["auc"] == 1.0
    assert done.record["scorer"] == "classifier on tfidf"


def test_judge_over_http(trimtab, answers, tmp_path, monkeypatch):
    pytest.importorskip("uvicorn", reason="the stub server needs uvicorn: pip install 'trimtab[serve]'")
    from evaluation.scorers.stub_judge import chat, serving

    def reply(body, n):
        return chat("REFUSAL" if "number 3" in body["messages"][0]["content"] else "90")

    common = (
        "eval",
        "judge",
        answers,
        "--judge-model",
        "m",
        "--about",
        "mirth",
        "--cache",
        tmp_path / "kept",
        "--no-logprobs",
    )
    with serving(reply) as stub:
        common = (*common, "--endpoint", stub.url)
        dry = trimtab(*common, "--dry-run", "--price-in", "1", "--json")
        assert dry.record["estimate"]["calls"] == 12 and dry.record["estimate"]["cost"] > 0 and not stub.seen
        dear = trimtab(*common, "--price-in", "1e9", "--max-cost", "1")
        assert dear.code == 2 and "nothing was sent" in dear.err and not stub.seen
        assert "--price-in" in trimtab(*common, "--max-cost", "1").err
        done = trimtab(*common)
        assert done.code == 3 and "1 refusal" in done.out  # some rows have no mark, and the exit code says so
        assert len(stub.seen) == 12
        trimtab(*common)
        assert len(stub.seen) == 12
    assert "is not set" in trimtab(*common, "--api-key-env", "NO_SUCH_KEY").err


# --- choices


@pytest.fixture
def ab(tmp_path):
    """Two A/B questions, one of which matches with B."""
    path = tmp_path / "ab.json"
    rows = [("x? (A) y (B) n", "(A)", "(B)"), ("z? (A) n (B) y", "(B)", "(A)")]
    keys = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
    path.write_text(json.dumps([dict(zip(keys, r)) for r in rows]))
    return path


@pytest.fixture
def knowledge(tmp_path):
    path = tmp_path / "mc.jsonl"
    path.write_text('{"question": "x?", "choices": ["u", "v"], "answer": "B"}\n')
    return path


CHOICES = ("--engine", "reference", "--dose", "1", "--layers", "1")


def _multiple(knowledge, folder):
    return ("eval", "multiple-choice", "m", knowledge, "--runs-dir", folder / "r")


def _with_dose(argv, dose):
    at = argv.index("--dose") + 1
    return (*argv[:at], dose, *argv[at + 1 :])


def test_ab_choice_at_both_signs(trimtab, planted, honest, ab, tmp_path):
    argv = ("eval", "ab-choice", "m", ab, *CHOICES, "--steer", honest, "--runs-dir", tmp_path / "runs")
    done = trimtab(*argv, "--json")
    assert done.code == 0, done.err
    plain, plus, minus = done.record["conditions"]
    assert plain["margin"]["mean"] == pytest.approx(0) and plus["condition"] == "axis-0 +1"
    # The letter A gains 1 nat: one item moves up, the other down, and the mean stays: no behaviour, only a letter.
    assert plus["change"]["mean"] == pytest.approx(0) and minus["change"]["mean"] == pytest.approx(0)
    assert sorted(done.record["slopes"]) == pytest.approx([-1, 1])
    assert done.record["null"] == pytest.approx([0, 0])  # for random directions too
    run = Path(done.record["run"])
    rows = [row for _, row in rows_of_run(run)]
    assert len(rows) == 2 * (1 + 2 + 2 * 5) and all(set(r["options"]) == {"A", "B"} for r in rows)
    assert {(r["dose"], r["scale"]) for r in rows if r["condition"] == "axis-0 -1"} == {(-1.0, -0.5)}
    assert {(r["model"], r["revision"], r["seed"]) for r in rows} == {("planted", "1", 0)}
    assert {r["fingerprint"] for r in rows if r["kind"] == "plain"} == {"plain"}
    # The same command finds every row in its run folder, and one that lost its last rows ends with the same ones.
    planted.logits = lambda text, moved: pytest.fail("asked again")
    again = trimtab(*argv, "--json")
    assert again.record == done.record
    samples = run / "samples.jsonl"
    lines = samples.read_text().splitlines()
    samples.write_text("\n".join(lines[:-3]) + "\n" + lines[-3][:50])
    planted.logits = logits
    assert trimtab(*argv, "--json").record["conditions"] == done.record["conditions"]
    assert sorted(samples.read_text().splitlines()) == sorted(lines)


def test_choices_leave_a_report_and_are_scored_and_compared(trimtab, refused, planted, honest, ab, tmp_path):
    argv = ("eval", "ab-choice", "m", ab, *CHOICES, "--steer", honest, "--runs-dir", tmp_path / "runs")
    run = Path(trimtab(*argv, "--json").record["run"])
    (plain, plus, minus) = csv.DictReader((run / "table.csv").open())
    assert plain["condition"] == "plain" and float(plus["strength"]) == 1 and float(minus["strength"]) == -1
    assert len(list(csv.DictReader((run / "table-random.csv").open()))) == 10
    page, card = (run / "report.html").read_text(), (run / "card.md").read_text()
    assert "Does behaviour move?" in page and "axis-0 +1" in page and "random directions" in page
    assert "$ trimtab eval ab-choice m " in card and "--dose 1" in card and "axis-0" in card
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["conditions"][1]["condition"] == "axis-0 +1"
    # Another unit of the same log-probabilities, without the model.
    planted.logits = lambda text, moved: pytest.fail("asked again")
    scored = trimtab("score", run, "--score", "ab_choice", "--score-set", "unit=probability", "--json")
    lines = {x["condition"]: x for x in scored.record["lines"]}
    assert lines["axis-0 +1"]["mean"] == pytest.approx(0.5) and lines["axis-0 +1"]["n"] == 2
    assert "trimtab eval multiple-choice" in refused("score", run, "--score", "multiple_choice")
    found = trimtab("compare", run, "--by", "ab_choice", "--json").record
    assert set(found["means"]) == {"plain", "axis-0 +1", "axis-0 -1"}
    both = next(d for d in found["differences"] if d["one"] == "axis-0 +1")
    assert both["difference"]["mean"] == pytest.approx(0) and both["difference"]["n"] == 2
    # Another strength is another run; two runs are compared too.
    planted.logits = logits
    other = Path(trimtab(*_with_dose(argv, "2"), "--json").record["run"])
    assert other != run
    chosen = ("--condition", "axis-0 +1", "--condition", "axis-0 +2")
    wide = trimtab("compare", run, other, "--by", "ab_choice", *chosen, "--json")
    assert len(wide.record["means"]) == 2 and wide.record["differences"][0]["difference"]["n"] == 2


def test_multiple_choice_moves_are_shown(trimtab, planted, honest, knowledge, tmp_path):
    argv = (*_multiple(knowledge, tmp_path), *CHOICES, "--steer", honest)
    done = trimtab(*argv, "--json")
    plain, plus, minus = done.record["conditions"]
    assert plain["margin"]["mean"] == pytest.approx(0.5) and plain["share"] == 1
    assert plus["change"]["mean"] == pytest.approx(-1.0) and plus["share"] == 0 and plus["lost"] == 1
    assert minus["change"]["mean"] == pytest.approx(1.0)
    # A random direction of the same length moves it too, by its part along the axis: less, and to both sides.
    low, high = done.record["null"]
    assert -1 < low < 0 < high < 1 and low == pytest.approx(-high)
    assert "random" in trimtab(*argv).out
    # A negative strength is the same two conditions.
    turned = trimtab(*_with_dose(argv, "-1"), "--json").record
    assert [c["change"] for c in turned["conditions"][1:]] == [plus["change"], minus["change"]]


def test_choices_of_the_model_alone(trimtab, planted, knowledge, tmp_path):
    done = trimtab(*_multiple(knowledge, tmp_path), "--engine", "reference", "--json")
    assert done.code == 0, done.err
    assert [c["condition"] for c in done.record["conditions"]] == ["plain"] and done.record["null"] is None
    assert not (Path(done.record["run"]) / "card.md").exists()


def test_choices_name_doses_beyond_the_safe_range(trimtab, planted, honest, knowledge, tmp_path):
    file = ConceptVectors.load(honest)
    entry = {"low": -0.6, "high": 0.3, "limit": "kl_p95", "value": 1.0, "prompts": 8}
    ranges = with_safe_range({}, file.concepts[0], file.sites[0].key, "add", entry)
    replace(file, calibration=ranges).save(honest)
    done = trimtab(*_multiple(knowledge, tmp_path), *CHOICES, "--steer", honest, "--json")
    said = "axis-0: doses −1, +1 lie beyond its safe range, −0.6 to +0.3"
    assert done.code == 0 and done.err.count("safe range") == 1 and said in done.err
    assert "Shaded" in (Path(done.record["run"]) / "report.html").read_text()


def test_choices_refuse_a_band_of_too_few(refused, no_model, honest, knowledge):
    argv = ("eval", "multiple-choice", "m", knowledge, *CHOICES, "--steer", honest)
    assert "at least 5 random directions" in refused(*argv, "--random", "3")
    assert "a strength of 0 steers nothing" in refused(*_with_dose(argv, "0"))


@pytest.mark.engine
@pytest.mark.slow
def test_the_embedded_model_on_its_own_dilemmas(trimtab, tmp_path):
    from trimtab import embedded

    file = tmp_path / "v.safetensors"
    assert (
        trimtab(
            "extract", "embedded", "--data", embedded.data("pairs.jsonl"), "--concept", "honest", "-o", file
        ).code
        == 0
    )
    done = trimtab(
        "eval",
        "dilemmas",
        "embedded",
        "--steer",
        file,
        "--doses",
        "0.4,0.8",
        "--layers",
        "1-4",
        "--limit",
        "40",
        "--runs-dir",
        tmp_path,
        "--json",
    )
    assert done.code == 0, done.err
    (opening,) = done.record["openings"]
    row = opening["row"]
    assert row["plus"]["change"]["target"]["low"] > 0 > row["minus"]["change"]["target"]["high"]
    assert (
        row["plus"]["change"]["target"]["mean"] > row["null"][1]
    )  # more than any random direction of its norm
    assert done.record["prompts"]["prompt: Be dishonest."]["change"]["target"]["high"] < -1


def test_prompts_alone_are_compared_where_nothing_steers(trimtab, planted, tmp_path):
    done = trimtab("eval", "dilemmas", "m", FILE, "--runs-dir", tmp_path, *COMMON, "--json")
    assert done.code == 0, done.err
    assert done.record["openings"] == [] and len(done.record["leaderboard"]["rows"]) == 3
    shown = trimtab("eval", "dilemmas", "m", FILE, "--runs-dir", tmp_path, *COMMON)
    assert "prompt: Be honest." in shown.out
