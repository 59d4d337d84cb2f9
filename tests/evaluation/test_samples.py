"""Rows: what they hold, that batchmates change nothing, and that no kill changes what a run ends with."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from evaluation import driver
from trimtab.engines import load_engine
from trimtab.engines.requests import Request, Sampling, ScoreRequest
from trimtab.errors import FormatError, InputError
from trimtab.evaluation.conditions import PLAIN, Condition, prefix, steered
from trimtab.evaluation.items import Item, read_items
from trimtab.evaluation.samples import Memory, by_condition, item_scores, measure
from trimtab.evaluation.scorers import open_scorer
from trimtab.evaluation.scorers.logprob import Logprob
from trimtab.evaluation.scorers.projection import Projection

ROWS = 84


def rows_of(folder):
    """Rows of the file by key; a key that stands twice, or a torn line, fails."""
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    found = {r["key"]: r for r in lines}
    assert len(found) == len(lines)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder and the rows of a run that nobody disturbed."""
    return driver.evaluate(tmp_path_factory.mktemp("whole"))


def test_a_row_holds_what_scoring_it_again_needs(whole):
    _, rows = whole
    assert len(rows) == ROWS
    row = next(r for r in rows if r["condition"].startswith("joy +0.5 @1") and r["item"] == "we")
    assert {"item", "sample", "fingerprint", "dose", "scale", "seed", "model", "revision", "text"} <= set(row)
    assert (row["dose"], row["kind"], row["axes"]["layers"]) == (0.5, "steered", [1])
    assert row["scale"] == pytest.approx(0.5 * 4.0)  # the raw norm of the planted direction is 1
    assert row["scores"]["projection"]["joy"] == row["readings"]["joy"]
    plain = next(r for r in rows if r["kind"] == "plain")
    assert (plain["fingerprint"], plain["dose"], plain["scale"]) == ("plain", 0.0, 0.0)
    told = next(r for r in rows if r["kind"] == "prefix")
    assert told["system"] == "You are joy." and told["fingerprint"] == "plain"


def test_a_row_is_what_its_request_alone_gives(whole):
    """Batched with everything else, or run by itself: one text."""
    _, rows = whole
    row = next(
        r for r in rows if r["condition"].startswith("joy -0.5") and r["item"] == "you" and r["sample"] == 1
    )
    engine = load_engine("tiny", "reference")
    plan = steered(driver.joy(engine), "joy", -0.5, [1]).plan
    prompt = engine.encode("you feel really", bare=True)
    sampling = Sampling(max_tokens=3, temperature=1.0, n=2, seed=row["seed"])
    (alone,) = engine.generate(Request(prompt, plan, sampling))
    assert alone.samples[1].text == row["text"]


def test_steering_moves_the_score_and_chance_does_less(whole):
    _, rows = whole
    mean = {name: item_scores(own, "projection", "joy").mean() for name, own in by_condition(rows).items()}
    assert mean["joy -0.5 @1"] < mean["plain"] < mean["joy +0.5 @1"]
    assert abs(mean["random-0 +0.5 @1"] - mean["plain"]) < mean["joy +0.5 @1"] - mean["plain"]


def test_conditions_differ_by_what_they_do_and_not_by_luck(whole):
    _, rows = whole
    seeds = {(r["item"], r["seed"]) for r in rows}
    assert len(seeds) == 6 == len({s for _, s in seeds})


@pytest.mark.parametrize("seed", range(3))
def test_cut_anywhere_a_run_ends_with_the_same_rows(whole, tmp_path, seed):
    """A kill leaves some prefix of the file, torn anywhere: every such prefix is completed to the same rows."""
    folder, _ = whole
    content = (folder / "samples.jsonl").read_bytes()
    cut = random.Random(seed).randrange(len(content))
    copy = tmp_path / folder.name
    copy.mkdir()
    (copy / "run.json").write_text((folder / "run.json").read_text())
    (copy / "samples.jsonl").write_bytes(content[:cut])
    again, _ = driver.evaluate(tmp_path)
    assert again == copy and rows_of(again) == rows_of(folder)


@pytest.mark.slow
def test_killed_again_and_again_a_run_ends_with_the_same_rows(whole, tmp_path):
    folder, _ = whole
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, driver.__file__, str(tmp_path), "0.005"]
    moments, sizes = random.Random(1), [0]
    for _ in range(12):
        process = subprocess.Popen(command, env=environment)
        target = sizes[-1] + moments.randrange(1, 9000)
        while (
            process.poll() is None
            and sum(p.stat().st_size for p in tmp_path.glob("*/samples.jsonl")) < target
        ):
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        sizes.append(sum(p.stat().st_size for p in tmp_path.glob("*/samples.jsonl")))
    assert any(0 < s < max(sizes) for s in sizes)  # at least one kill fell into the middle
    again, _ = driver.evaluate(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1 and rows_of(again) == rows_of(folder)


def test_fresh_begins_anew(tmp_path):
    first, _ = driver.evaluate(tmp_path)
    second, _ = driver.evaluate(tmp_path, fresh=True)
    assert first != second and rows_of(first) == rows_of(second)


def test_continuations_are_scored_without_generating():
    engine = load_engine("tiny", "reference")
    vectors = driver.joy(engine)
    words = {"joy": [" happy", " glad"], "other": [" sad", " gloomy"]}
    items = [Item.of(f"{s} feel really", id=s, continuations=words) for s in ("I", "we")]
    conditions = [PLAIN, *(steered(vectors, "joy", d, [2]) for d in (-0.5, 0.5))]
    rows = measure(engine, items, conditions, ["joy"], [Logprob()])
    assert all("text" not in r for r in rows)
    mean = [item_scores(own, "logprob", "joy").mean() for own in by_condition(rows).values()]
    assert mean[1] < mean[0] < mean[2]
    (score,) = engine.score([ScoreRequest(engine.encode("I feel really", bare=True), " glad")])
    assert rows[0]["continuations"]["joy"][1] == [pytest.approx(score.total), 1]


def test_what_is_missing_is_refused_before_anything_runs():
    engine = load_engine("tiny", "reference")
    item = Item.of("I feel", id="a")
    with pytest.raises(InputError, match="continuations"):
        measure(engine, [item], [PLAIN], ["joy"], [Logprob()])
    with pytest.raises(InputError, match="distinct ids"):
        measure(engine, [item, item], [PLAIN], ["joy"], [Projection()])
    with pytest.raises(InputError, match="distinct names"):
        measure(engine, [item], [PLAIN, PLAIN], ["joy"], [Projection()])
    with pytest.raises(InputError, match="at least one score"):
        measure(engine, [item], [PLAIN], ["joy"], [])
    with pytest.raises(InputError, match="without a readout"):
        measure(engine, [item], [PLAIN], ["joy"], [Projection()])
    with pytest.raises(InputError, match="one of plain"):
        Condition("x", "steer")
    with pytest.raises(LookupError, match="Did you mean 'logprob'"):
        open_scorer("logprobs", ["joy"])
    with pytest.raises(LookupError, match="setting"):
        open_scorer("logprob", ["joy"], {"file": "x"})


def test_items_have_names_that_order_does_not_change(tmp_path):
    file = tmp_path / "items.jsonl"
    lines = [
        {"prompt": "I feel", "split": "eval"},
        {"messages": [{"role": "user", "content": "now"}], "split": "eval", "id": "now"},
        {"prompt": "I feel", "split": "eval"},
        {"prompt": "we", "split": "train"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    first = read_items(file, split="eval")
    file.write_text("\n".join(map(json.dumps, reversed(lines))))
    assert {i.id for i in first} == {i.id for i in read_items(file, split="eval")} and len(first) == 2
    assert len(read_items(file, limit=1)) == 1
    file.write_text('{"prompt": "a", "messages": []}\n{"text": "x"}\n')
    with pytest.raises(FormatError, match="line 2"):
        read_items(file)
    with pytest.raises(InputError, match="empty"):
        file.write_text("\n")
        read_items(file)
    with pytest.raises(FormatError, match="no items of split 'eval'"):
        file.write_text('{"prompt": "a"}\n')
        read_items(file, split="eval")


def test_a_prefix_stands_in_front_of_chats_and_texts():
    engine = load_engine("tiny", "reference")
    told = prefix("joy", "Be merry.")
    chat = Item.of([{"role": "system", "content": "now"}, {"role": "user", "content": "we"}])
    assert "Be merry.\nnow" in (chat.encode(engine, told.system).text or "")
    assert Item.of("we feel").encode(engine, told.system).text.endswith("Be merry. we feel")
    assert len(Memory().done) == 0 and np.isnan(
        item_scores([{"item": "a", "scores": {"s": {"c": None}}}], "s", "c")[0]
    )
