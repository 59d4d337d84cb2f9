"""The demo end to end on a small grid: files, the JSON line, determinism, and a clean exit."""

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest

import trimtab
from trimtab.cli import main
from trimtab.demo import honesty, settings
from trimtab.demo.run import run
from trimtab.demo.sampling import Condition, sample
from trimtab.directions import ConceptVectors
from trimtab.engines import load_engine
from trimtab.engines.requests import Request, Sampling
from trimtab.plans import SteeringPlan

pytestmark = pytest.mark.engine


class Silent:
    """A voice that counts."""

    def __init__(self):
        self.expected, self.done = {}, {}

    def note(self, message):
        pass

    @contextlib.contextmanager
    def progress(self, label, total=None):
        self.expected[label], self.done[label] = total, 0
        voice = self

        class Bar:
            def advance(self, n=1):
                voice.done[label] += n

        yield Bar()


@pytest.fixture(scope="module")
def engine(model_is_there):
    return load_engine("embedded")


@pytest.fixture(scope="module")
def voice():
    return Silent()


@pytest.fixture(scope="module")
def result(engine, small, voice, tmp_path_factory):
    return run(small, tmp_path_factory.mktemp("runs") / "demo", voice, lambda: engine)


def test_files(result):
    names = {p.name for p in result.folder.iterdir()}
    assert names >= {"report.html", "samples.jsonl", "metrics.json", "feelings.safetensors", "feelings.json"}
    assert names >= {"honest.safetensors", "honest-learned.safetensors"}
    line = json.loads((result.folder / "metrics.json").read_text())
    assert line["model"] == "embedded" and line["report"] == str(result.report)
    html = result.report.read_text()
    assert html.startswith("<!doctype html>") and "https://" not in html


def test_progress_counts_what_was_promised(result, voice):
    assert voice.done["steer (samples)"] == voice.expected["steer (samples)"] > 0
    assert voice.done["honesty (samples)"] == voice.expected["honesty (samples)"] > 0


def test_every_condition_is_there_with_its_own_plan(result, small):
    f = result.feelings
    for curve in f.curves.values():
        assert [r.dose for r in curve.rows] == list(small.doses)
        assert all(len(r.scores) == small.random_directions for r in curve.random)
        assert all(0 <= r.low <= r.score <= r.high <= 1 and r.n == small.prompts for r in curve.rows)
    plans = [s.fingerprint for s in f.steered.values()]
    assert len(set(plans)) == len(plans) and "plain" not in plans
    assert f.unsteered.fingerprint == "plain"
    assert all(s.fingerprint == "plain" for s in f.personas.values())
    assert result.honesty.plus.fingerprint != result.honesty.minus.fingerprint


def test_vector_files_steer_again(result, engine):
    """What was written reproduces what was sampled: the demo's commands are true."""
    vectors = trimtab.load(result.folder / "feelings.safetensors", model=engine.info)
    assert isinstance(vectors, ConceptVectors) and vectors.calibration["layers"] == list(
        result.feelings.layers
    )
    key = ("sad", 0.6)
    plan = SteeringPlan.add(vectors.only(["sad"]), dose=0.6, layers=list(result.feelings.layers))
    prompt = engine.encode(list(result.materials.evaluate[0]))
    assert engine.resolve(plan, prompt).fingerprint == result.feelings.steered[key].fingerprint
    learned = trimtab.load(result.folder / "honest-learned.safetensors", model=engine.info)
    plan = SteeringPlan.add(learned, scale=-1.0)
    assert engine.resolve(plan, prompt).fingerprint == result.honesty.minus.fingerprint


def test_same_seed_same_texts_other_seed_other_texts(result, engine, small):
    plain = Condition("plain", samples=small.samples)
    again = sample(engine, [plain], result.materials.evaluate, small)[0]
    other = sample(engine, [plain], result.materials.evaluate, replace(small, seed=1))[0]
    assert again.texts == result.feelings.unsteered.texts
    assert other.texts != again.texts


def test_learned_vector_lowers_its_loss_and_zero_is_the_base(result, engine, small):
    assert result.honesty.learned.losses[-1] < result.honesty.learned.losses[0]
    prompt = engine.encode(list(result.materials.evaluate[0]))
    zero = SteeringPlan.add(result.honesty.learned.direction, scale=0.0)
    greedy = Sampling(max_tokens=8)
    # One at a time: rows of one batch may fall to different threads, whose sums differ in the last bit.
    (a,), (b,) = (engine.generate(Request(prompt, plan, greedy)) for plan in (zero, None))
    assert a.tokens == b.tokens and np.array_equal(a.samples[0].logprobs, b.samples[0].logprobs)


def test_choice_tokens_are_words_not_pieces(engine, result):
    choice = honesty.Choice.of(engine, result.materials.held_out[0].messages)
    assert {engine.decode([t]).strip().lower() for t in choice.yes} == {"yes"}
    assert {engine.decode([t]).strip().lower() for t in choice.no} == {"no"}
    assert result.honesty.zero.valid > 0.9


def test_command_prints_one_line(model_is_there, small, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(settings, "DemoSettings", lambda seed: replace(small, seed=seed))
    assert main(["demo", "--json", "--seed", "1", "-o", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr().out
    assert captured.count("\n") == 1
    line = json.loads(captured)
    assert line["detail"]["settings"]["seed"] == 1
    assert (tmp_path / "out" / "report.html").exists()


def test_an_unwritable_folder_is_refused_first(model_is_there, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main(["demo", "-o", str(tmp_path / "file" / "out")]) == 2
    assert "-o" in capsys.readouterr().err
