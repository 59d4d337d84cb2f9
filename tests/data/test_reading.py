"""JSON lines have one reader: every complaint names file and line, and a torn end costs one record and no more."""

import json

import pytest

from trimtab.cli.compare import _replies
from trimtab.data.passages import load_passages
from trimtab.data.reading import appended, records_of
from trimtab.errors import FormatError, InputError
from trimtab.evaluation.items import read_items
from trimtab.evaluation.rescore import read_rows
from trimtab.evaluation.rule_traces import read_traces
from trimtab.evaluation.scorers.classifier import read_labelled
from trimtab.evaluation.scorers.scorer import read_answered

GOOD = {
    read_items: {"prompt": "one\u2028two"},
    read_traces: {
        "id": "a", "layers": [0], "concepts": ["calm"], "unit": "z", "start": 0, "values": [[[0.5]]],
        "truth": {"one\u2028two": True},
    },
    read_labelled: {"text": "one\u2028two", "label": "calm"},
    read_answered: {"question": "one\u2028two", "answer": "yes"},
    load_passages: {"text": "one\u2028two"},
}  # fmt: skip


@pytest.mark.parametrize("reader", GOOD, ids=lambda r: r.__name__)
def test_lines_end_where_json_lines_do_and_complaints_say_where(reader, tmp_path):
    """U+2028 inside of a text ends no line; blank lines count; a line that is not JSON is named by its number."""
    file = tmp_path / "rows.jsonl"
    line = json.dumps(GOOD[reader], ensure_ascii=False)
    file.write_text(f"\n{line}\n", encoding="utf-8")
    assert len(reader(file)) == (2 if reader is read_labelled else 1)
    file.write_text(f"\n{line}\n{line[:-5]}\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"rows\.jsonl line 3, column \d+: not JSON"):
        reader(file)


@pytest.mark.parametrize("reader", [r for r in GOOD if r is not load_passages], ids=lambda r: r.__name__)
def test_a_record_of_another_kind_is_named(reader, tmp_path):
    file = tmp_path / "rows.jsonl"
    for wrong in ("[1]", '"text"', "{}", "null"):
        file.write_text(f"{json.dumps(GOOD[reader])}\n{wrong}\n", encoding="utf-8")
        with pytest.raises(InputError, match=r"rows\.jsonl line 2"):
            reader(file)


def test_every_cut_of_an_append_only_file_keeps_the_whole_records(tmp_path):
    file = tmp_path / "samples.jsonl"
    lines = [f'{{"n": {n}, "text": "ü"}}\n'.encode() for n in range(3)]
    content = b"".join(lines)
    ends = [0, *(len(b"".join(lines[: i + 1])) for i in range(3))]
    for cut in range(len(content) + 1):
        file.write_bytes(content[:cut])
        records, whole = appended(file)
        kept = sum(e <= cut for e in ends[1:])
        assert whole == ends[kept]
        assert [(where, row["n"]) for where, row in records] == [
            (f"{file} line {n + 1}", n) for n in range(kept)
        ]


def test_a_broken_line_inside_of_an_append_only_file_is_an_error(tmp_path):
    file = tmp_path / "samples.jsonl"
    file.write_bytes(b'{"n": 1}\n{"n": \n{"n": 3}\n')
    with pytest.raises(FormatError, match="line 2, column"):
        appended(file)
    file.write_bytes(b'{"n": 1}\n"\xff"\n')
    with pytest.raises(FormatError, match="line 2 is not UTF-8"):
        appended(file)


def test_a_run_that_was_killed_can_be_scored_and_compared(tmp_path):
    row = {"key": "a", "item": "q", "condition": "plain", "answer": "yes", "scores": {}}
    (tmp_path / "samples.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row)[:-9])
    assert read_rows(tmp_path) == [row]
    assert _replies(tmp_path) == [row]


def test_a_list_is_read_as_its_entries(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text('[{"n": 1}, {"n": 2}]')
    assert list(records_of(file)) == [(f"{file} entry 1", {"n": 1}), (f"{file} entry 2", {"n": 2})]
