"""`trimtab data`: beginnings that load, findings that are there, labels by thresholds."""

import json

import pytest

from trimtab.data.layouts import LAYOUTS
from trimtab.data.skeletons import SKELETONS


@pytest.mark.parametrize("kind", sorted(SKELETONS))
def test_a_beginning_validates_without_errors(trimtab, tmp_path, kind):
    made = trimtab("data", "new", kind, tmp_path / "c", "--json")
    assert made.code == 0 and made.record["files"]
    assert trimtab("data", "validate", tmp_path / "c", "--json").record["error"] == 0
    counted = trimtab("data", "stats", tmp_path / "c", "--json").record
    assert counted["layout"] in LAYOUTS and counted["concepts"]


def pairs(tmp_path, rows):
    file = tmp_path / "joy.jsonl"
    file.write_text("".join(json.dumps({"positive": p, "negative": n}) + "\n" for p, n in rows))
    return file


def words(seed, count):
    import random

    pool = [f"{a}{b}" for a in "lo mi ra te su ka no vi pe du".split() for b in "ran tel mos pir dak".split()]
    return " ".join(random.Random(seed).choices(pool, k=count))


def found(trimtab, file):
    return {f["check"] for f in trimtab("data", "validate", file, "--json").record["findings"]}


def test_a_length_that_tells_the_sides_apart_is_found(trimtab, tmp_path):
    rows = [(words(i, 9), words(100 + i, 9)) for i in range(40)]
    even = found(trimtab, pairs(tmp_path, rows))
    long = found(trimtab, pairs(tmp_path, [(f"{p} {words(900 + i, 9)}", n) for i, (p, n) in enumerate(rows)]))
    assert "length" in long - even


def test_a_phrase_that_only_one_side_has_is_found(trimtab, tmp_path):
    rows = [(words(i, 9), words(100 + i, 9)) for i in range(40)]
    even = found(trimtab, pairs(tmp_path, rows))
    marked = [(f"zumeth {p}", f"{words(500 + i, 1)} {n}") for i, (p, n) in enumerate(rows)]
    assert found(trimtab, pairs(tmp_path, marked)) - even


def test_strict_makes_warnings_fail(trimtab, tmp_path):
    rows = [(f"{words(i, 20)}", words(100 + i, 5)) for i in range(40)]
    file = pairs(tmp_path, rows)
    assert trimtab("data", "validate", file).code == 0
    assert trimtab("data", "validate", file, "--strict").code == 2


def test_notes_become_labels_by_thresholds(trimtab, tmp_path):
    notes = tmp_path / "notes.jsonl"
    scores = (0.9, 0.8, 0.5, 0.2, 0.1, None)
    lines = [{"text": f"note {i}", "scores": {} if s is None else {"joy": s}} for i, s in enumerate(scores)]
    notes.write_text("".join(json.dumps(line) + "\n" for line in lines))
    target = tmp_path / "joy.jsonl"
    flags = ("--from-notes", notes, "--threshold", "joy=0.3:0.7")
    assert trimtab("data", "new", *flags, target).code == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    labels = {r.get("text", r.get("statement")): r["label"] for r in rows}
    assert labels == {"note 0": 1, "note 1": 1, "note 3": 0, "note 4": 0}
    assert trimtab("data", "new", *flags, target).code == 2, "a file that exists is not written over"
    counted = trimtab("data", "stats", target, "--json").record["concepts"]["joy"]
    assert (counted["positive"], counted["negative"]) == (2, 2)


def test_words_that_do_not_fit_are_refused(trimtab, tmp_path):
    assert trimtab("data", "new", "no-such-kind", tmp_path / "x").code == 2
    assert trimtab("data", "validate", tmp_path / "none").code == 2
    assert trimtab("data", "stats", tmp_path, "--threshold", "joy=1").code == 2
    assert trimtab("data", "new", "pairs").code == 2
