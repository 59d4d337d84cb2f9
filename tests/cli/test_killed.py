"""Evaluations that are killed (SIGKILL) in the middle of writing a row end with the rows of an unbroken run."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli import killed
from evaluation.planted_answers import direction
from evaluation.small_dilemmas import FILE
from trimtab.directions import ConceptVectors

KILLS = 3


@pytest.fixture
def argv_of(joy, tmp_path):
    """The command line of an evaluation, on planted truth or the reference model."""
    honest, ab, knowledge, asks = (
        tmp_path / n for n in ("honest.safetensors", "ab.json", "mc.json", "asks.txt")
    )
    ConceptVectors.from_directions([direction(0, norm=2.0, typical_norm=1.0)]).save(honest)
    ab.write_text(
        json.dumps([
            {"question": f"{n}? (A) y (B) n", "answer_matching_behavior": ("(A)", "(B)")[n % 2],
             "answer_not_matching_behavior": ("(B)", "(A)")[n % 2]} for n in range(20)
        ])
    )  # fmt: skip
    knowledge.write_text(
        json.dumps([{"question": f"{n}?", "choices": ["u", "v"], "answer": n % 2} for n in range(20)])
    )
    asks.write_text("".join(f"{w} feel really\n" for w in ("I", "you", "we", "they")))
    common = ["--engine", "reference", "--layers", "1", "--steer", str(honest)]
    lines = {
        "dilemmas": ["planted", FILE, *common, "--slot", "", "--min-items", "5", "--doses", "1", "--free", "4",
                     "--random", "0"],
        "steer-read": ["tiny", joy, "--prompts", asks, "--engine", "reference", "--steer-layer", "1", "--read-layer",
                       "3", "--max-tokens", "3"],
        "ab-choice": ["planted", ab, *common, "--dose", "1"],
        "multiple-choice": ["planted", knowledge, *common, "--dose", "1"],
    }  # fmt: skip
    return lambda verb, runs: ["eval", verb, *map(str, lines[verb]), "--runs-dir", str(tmp_path / runs)]


def rows_of(runs: Path):
    """Rows by key of the only run in a folder; a key that stands twice, or a torn line, fails."""
    (file,) = runs.glob("*/samples.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found = {r["key"]: r for r in lines}
    assert len(found) == len(lines)
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the driver forks")
@pytest.mark.parametrize("verb", ["dilemmas", "steer-read", "ab-choice", "multiple-choice"])
def test_killed_in_a_row_a_run_ends_with_the_same_rows(trimtab, argv_of, tmp_path, monkeypatch, verb):
    monkeypatch.setattr("trimtab.cli.models.load_engine", killed.load)
    unbroken = trimtab(*argv_of(verb, "whole"), "--json")
    assert unbroken.code == 0, unbroken.err
    whole = rows_of(tmp_path / "whole")
    moments = random.Random(verb)
    tasks = [
        {
            "argv": argv_of(verb, "killed"),
            "rows": moments.randrange(1, len(whole) // KILLS),
            "share": moments.random(),
        }
        for _ in range(KILLS)
    ]
    driver = subprocess.run(
        [sys.executable, killed.__file__],
        input="".join(json.dumps(t) + "\n" for t in tasks),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
    )
    assert driver.returncode == 0, driver.stderr
    ended = [int(line) for line in driver.stdout.splitlines() if line.strip().isdigit()]
    assert ended == [signal.SIGKILL] * KILLS, driver.stderr
    (left,) = (tmp_path / "killed").glob("*/samples.jsonl")
    assert left.read_bytes().count(b"\n") == sum(t["rows"] for t in tasks) < len(whole)
    done = trimtab(*argv_of(verb, "killed"), "--json")
    assert done.code == 0, done.err
    assert rows_of(tmp_path / "killed") == whole
    differs = {"run", "report", "output"}
    assert {k: v for k, v in done.record.items() if k not in differs} == {
        k: v for k, v in unbroken.record.items() if k not in differs
    }
