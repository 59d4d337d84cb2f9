"""`trimtab read`: every token of existing texts, its file, its page, and everything it refuses."""

import io
import json

import numpy as np
import pytest

from trimtab.directions import ConceptVectors, Direction
from trimtab.engines import load_engine
from trimtab.sites import Site

READ = ("read", "--engine", "reference")


@pytest.fixture
def diary(tmp_path):
    path = tmp_path / "diary.txt"
    path.write_text("I feel so happy today. We stay.\n\nThey look gloomy and sad again.\n")
    return path


@pytest.fixture
def chat(tmp_path):
    turns = [
        {"role": "user", "content": "How are you?"},
        {"role": "assistant", "content": "I feel glad today."},
    ]
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"conversation": turns}))
    return path


def test_the_record_and_the_token_file_agree_with_captures(trimtab, joy, diary, tmp_path):
    out = tmp_path / "new" / "tokens.jsonl"
    record = trimtab(*READ, joy, diary, "-o", out, "--json").record
    vectors, engine = ConceptVectors.load(joy), load_engine("tiny", "reference")
    site = vectors.read_site()
    assert (record["align"], record["unit"], record["sites"]) == ("emit", "z", [site.key])
    assert record["hash"] == vectors.hash and record["model"] == "tiny" and record["files"] == [str(out)]
    prompt = engine.encode(diary.read_text().strip("\n"), bare=True)
    table = vectors.table(site)
    along = engine.capture(prompt, [site])[0][site] @ table.vectors[0]
    z = (along - table.mean[0]) / table.std[0]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["token_id"] for r in rows] == list(prompt.tokens)
    assert "".join(r["token"] for r in rows) == engine.decode(prompt.tokens, special=True)
    assert rows[0]["values"][site.key]["joy"] is None and rows[0]["counted"] is False
    assert np.allclose([r["values"][site.key]["joy"] for r in rows[1:]], z[:-1], rtol=1e-3, atol=1e-3)
    (text,) = record["texts"]
    counted = [r["values"][site.key]["joy"] for r in rows if r["counted"]]
    assert text["name"] == "diary.txt" and text["mean"][site.key]["joy"] == pytest.approx(
        np.mean(counted), rel=1e-4
    )
    best = record["top_spans"][0]["spans"][0]
    span = rows[best["start"] : best["end"]]
    assert "".join(r["token"] for r in span) == best["text"]
    assert best["mean"] == pytest.approx(np.mean([r["values"][site.key]["joy"] for r in span]), rel=1e-4)


def test_happy_words_read_higher_than_sad_ones(trimtab, joy, diary):
    flags = ("--blocks", "--align", "own", "--layers", "3", "--raw")
    happy, sad = trimtab(*READ, joy, diary, *flags, "--json").record["texts"]
    assert (happy["name"], sad["name"]) == ("diary.txt:1", "diary.txt:2")
    assert happy["mean"]["layer_3"]["joy"] > sad["mean"]["layer_3"]["joy"] + 0.1


def test_own_is_emit_moved_by_one_token(trimtab, joy, diary, tmp_path):
    values = {}
    for align in ("emit", "own"):
        trimtab(*READ, joy, diary, "--align", align, "--raw", "--layers", "2", "-o", tmp_path / align)
        rows = [json.loads(line) for line in (tmp_path / align).read_text().splitlines()]
        assert {r["align"] for r in rows} == {align} and {r["unit"] for r in rows} == {"coordinate"}
        values[align] = [r["values"]["layer_2"]["joy"] for r in rows]
    assert values["own"][:-1] == values["emit"][1:] and values["emit"][0] is None


def test_for_a_reader(trimtab, joy, diary, chat):
    out = trimtab(*READ, joy, diary, chat, "--text", "You seem glad.").out
    assert "the state that emitted it" in out and "(z)" in out
    assert all(w in out for w in ("diary.txt", "chat.json", "--text", "I feel so happy today.", "top spans"))
    assert (
        out.index("user")
        < out.index("How are you?")
        < out.index("assistant")
        < out.index("I feel glad today.")
    )


def test_a_page(trimtab, joy, diary, chat, tmp_path):
    page = tmp_path / "pages" / "read.html"
    done = trimtab(*READ, joy, diary, chat, "--html", page, "--layers", "1,3")
    text = page.read_text()
    assert f"wrote {page}" in done.err and "joy at layer_1" in text and "joy at layer_3" in text
    assert ">chat.json<" in text and text.count('class="strip"') == 2


def test_stdin_and_flags(trimtab, joy, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("I feel glad.\n\nThey look sad.\n"))
    record = trimtab(*READ, joy, "-", "--blocks", "--text", "one", "--text", "two", "--json").record
    assert [t["name"] for t in record["texts"]] == ["--text 1", "--text 2", "stdin:1", "stdin:2"]


def test_names_that_meet_are_told_apart(trimtab, joy, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text("I feel glad.")
    record = trimtab(*READ, joy, tmp_path / "a", tmp_path / "b", "--json").record
    assert [t["name"] for t in record["texts"]] == ["x.txt", "x.txt (2)"]


def test_z_at_another_alignment_is_warned_of(trimtab, joy, diary):
    assert "with --align own" in trimtab(*READ, joy, diary, "--align", "own").err
    assert "--align" not in trimtab(*READ, joy, diary, "--align", "own", "--raw").err
    assert "--align" not in trimtab(*READ, joy, diary).err


def test_windows_are_asked_for_not_taken(trimtab, refused, joy, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("I feel happy today. " * 120)
    assert "long.txt has 602 tokens" in refused(*READ, joy, path)
    record = trimtab(*READ, joy, path, "--window", "128", "--json").record
    assert record["texts"][0]["tokens"] == 602 and record["texts"][0]["counted"] == 600


def test_a_dry_run_loads_nothing(trimtab, no_model, joy, diary, tmp_path):
    page = tmp_path / "page.html"
    record = trimtab(*READ, joy, diary, "--html", page, "--dry-run", "--json").record
    assert record["texts"] == ["diary.txt"] and record["concepts"] == ["joy"] and not page.exists()


@pytest.fixture
def foreign(tmp_path):
    rows = [Direction("joy", Site(2), np.eye(32)[0]), Direction("awe", Site(2), np.eye(32)[1])]
    path = tmp_path / "foreign.safetensors"
    ConceptVectors.from_directions(rows).save(path)
    return path


def test_a_file_without_means_is_read_as_coordinates(trimtab, foreign, diary):
    record = trimtab(*READ, foreign, diary, "--model", "tiny", "--json").record
    assert (record["unit"], record["concepts"]) == ("coordinate", ["joy", "awe"])
    record = trimtab(*READ, foreign, diary, "--model", "tiny", "--concepts", "awe", "--json").record
    assert record["concepts"] == ["awe"] and len(record["top_spans"]) == 1


def test_what_is_refused_before_a_model_loads(refused, no_model, joy, foreign, diary, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    assert "empty.txt is empty" in refused(*READ, joy, empty)
    assert "nothing to read" in refused(*READ, joy)
    assert "no such file" in refused(*READ, joy, tmp_path / "none.txt")
    assert "no such file" in refused(*READ, tmp_path / "none.safetensors", diary)
    assert "unknown concept 'grief'" in refused(*READ, joy, diary, "--concepts", "grief")
    assert "--concepts names none" in refused(*READ, joy, diary, "--concepts", " , ")
    assert "layer 9 does not exist" in refused(*READ, joy, diary, "--layers", "9")
    assert "unknown stream" in refused(*READ, joy, diary, "--stream", "mlp_out")
    assert "name one with --model" in refused(*READ, foreign, diary)
    assert "read raw instead" in refused(*READ, foreign, diary, "--model", "tiny", "--z")
    assert "is a folder" in refused(*READ, joy, diary, "--html", tmp_path)


def test_another_model_is_refused(refused, no_model, joy, diary, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 4, "hidden_size": 64}))
    assert "does not fit" in refused("read", joy, diary, "--model", tmp_path)


@pytest.mark.engine
def test_the_embedded_model_round_trip(trimtab, tmp_path):
    """Extract, then read with nothing but the file: it knows its model, its layer and its calibration."""
    data, file = tmp_path / "mood.jsonl", tmp_path / "mood.safetensors"
    sides = (("happy", "sad"), ("glad", "lonely"), ("cheerful", "gloomy"))
    data.write_text(
        "".join(json.dumps({"positive": f"I felt {p}.", "negative": f"I felt {n}."}) + "\n" for p, n in sides)
    )
    assert trimtab("extract", "embedded", "--data", data, "--concept", "happy", "-o", file).code == 0
    record = trimtab("read", file, "--text", "I am full of cheer.", "--json").record
    assert record["model"] == "embedded" and record["unit"] == "z"
    assert record["sites"] == [ConceptVectors.load(file).read_site().key]
