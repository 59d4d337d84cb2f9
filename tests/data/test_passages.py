"""Texts to be read: prose, lines of JSON, transcripts; and what is refused of them."""

import json

import pytest

from trimtab.data.passages import load_passages, split_passages
from trimtab.errors import FormatError, InputError

CHAT = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "I feel glad."}]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def contents(path, **flags):
    return [p.content for p in load_passages(path, **flags)]


def test_a_text_file_is_one_text_unless_blocks_divide_it(tmp_path):
    path = write(tmp_path / "diary.txt", "One day.\nIt rained.\n\n  \nThe next day.\n")
    assert contents(path) == ["One day.\nIt rained.\n\n  \nThe next day."]
    found = load_passages(path, blocks=True)
    assert [p.content for p in found] == ["One day.\nIt rained.", "The next day."]
    assert [p.name for p in found] == ["diary.txt:1", "diary.txt:2"]
    assert [p.content for p in split_passages("a\n\nb", "stdin", blocks=True)] == ["a", "b"]


def test_lines_of_json_and_their_numbers(tmp_path):
    lines = [{"text": "a"}, {"messages": CHAT}, {"conversation": CHAT, "id": 3}, "bare", {"story": "s"}]
    path = write(tmp_path / "x.jsonl", "\n\n".join(json.dumps(r) for r in lines))
    found = load_passages(path)
    assert [p.name for p in found] == ["x.jsonl:1", "x.jsonl:3", "x.jsonl:5", "x.jsonl:7", "x.jsonl:9"]
    assert [p.content for p in found] == ["a", tuple(CHAT), tuple(CHAT), "bare", "s"]


def test_a_transcript_with_its_system_prompt_and_much_else(tmp_path):
    turns = [{**m, "time": 3} for m in CHAT]
    record = {"model": "x", "system_prompt": "Be calm.", "conversation": turns, "projections": [0.1]}
    system = {"role": "system", "content": "Be calm."}
    assert contents(write(tmp_path / "t.json", record)) == [(system, *CHAT)]
    record["conversation"] = [{"role": "system", "content": "Be brief."}, *CHAT]
    assert contents(write(tmp_path / "t.json", record))[0][0]["content"] == "Be brief."
    assert contents(write(tmp_path / "t.json", {"system_prompt": None, "messages": CHAT})) == [tuple(CHAT)]


def test_a_json_list_is_a_chat_or_texts(tmp_path):
    assert contents(write(tmp_path / "a.json", CHAT)) == [tuple(CHAT)]
    assert contents(write(tmp_path / "b.json", ["x", {"text": "y"}, CHAT])) == ["x", "y", tuple(CHAT)]


def test_a_folder_is_its_files_in_order(tmp_path):
    write(tmp_path / "b.txt", "second")
    write(tmp_path / "a.jsonl", json.dumps({"text": "first"}))
    write(tmp_path / "c.png", "no text")
    assert [p.name for p in load_passages(tmp_path)] == ["a.jsonl:1", "b.txt"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "  \n", "a.txt is empty"),
        ("a.jsonl", '{"text": "x"}\n{"text": ', "a.jsonl line 2"),
        ("a.jsonl", json.dumps({"words": "x"}), r"a.jsonl:1 has the keys \['words'\], expected"),
        ("a.jsonl", json.dumps({"text": " "}), "a.jsonl:1 is blank"),
        ("a.json", [], "a.json is empty"),
        ("a.json", [3], "a.json:1 is a int"),
        ("a.json", [{"role": "narrator", "content": "x"}], "role 'narrator' is not one of"),
        ("none.txt", None, "no such file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, words):
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(InputError, match=words):
        load_passages(tmp_path / name)


def test_a_folder_without_texts(tmp_path):
    with pytest.raises(FormatError, match=r"holds no .txt, .md, .jsonl, .json file"):
        load_passages(tmp_path)
