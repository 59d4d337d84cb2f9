"""From a vector file to a dose that can be trusted, on the embedded model: calibrate, sweep, eval dilemmas, by their
verbs.

The reduced grid runs with every `make test`; the whole one, with the exhaustive search that it is compared to, with
`make check`.
"""

import json
import time

import numpy as np
import pytest

from trimtab import embedded
from trimtab.cli import main
from trimtab.data import load
from trimtab.directions import ConceptVectors
from trimtab.engines import load_engine
from trimtab.engines.requests import Sampling
from trimtab.evaluation.coherence import SLACK, Reference
from trimtab.evaluation.limits import CoherenceDrop
from trimtab.evaluation.materials import default_items
from trimtab.plans import SteeringPlan
from trimtab.recipes import extract
from trimtab.safe_range import safe_range

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]
LAYER = 3


@pytest.fixture(scope="module")
def engine():
    if not (embedded.MODEL / "model.safetensors").exists():
        pytest.skip("the embedded model is not in this checkout: build it with `python -m embedded.train`")
    return load_engine("embedded")


def vectors(engine, concepts, path):
    contrasts = [c for c in load(embedded.data("pairs.jsonl")) if c.concept in concepts]
    extract(engine, contrasts).save(path)
    return path


def call(capsys, monkeypatch, folder, *argv):
    monkeypatch.chdir(folder)
    capsys.readouterr()
    started = time.monotonic(), time.process_time()
    code = main([*map(str, argv), "--json", "--quiet"])
    took = time.monotonic() - started[0], time.process_time() - started[1]
    out = capsys.readouterr()
    assert code == 0, out.err
    return {**json.loads(out.out), "took": took}


def held_out_drops(engine, path, concepts, prompts, samples):
    """Fall of coherence at both ends of each calibrated range, on prompts that neither calibration nor sweep saw."""
    file = ConceptVectors.load(path)
    plans = [
        SteeringPlan.add(file.only([c]), dose=dose, layers=[LAYER])
        for c in concepts
        for dose in safe_range(file.calibration, c, f"layer_{LAYER}")
    ]
    sampling = Sampling(max_tokens=32, temperature=0.7, top_p=0.9, n=samples)
    limit = CoherenceDrop(
        reference=Reference.load(embedded.data("trigrams.npz")), sampling=sampling, margin=0.0
    )
    items = default_items(engine, "embedded", "report")[-prompts:]
    return limit.values(engine, plans, [i.encode(engine) for i in items])


def test_a_reduced_grid(engine, tmp_path, capsys, monkeypatch):
    path = vectors(engine, ["calm"], tmp_path / "calm.safetensors")
    done = call(
        capsys, monkeypatch, tmp_path, "calibrate", "embedded", path, "--layers", LAYER, "--limit", "coherence",
        "--limit-items", 8, "--no-sign",
    )  # fmt: skip
    ends = {r["sign"]: r["strength"] for r in done["ranges"]}
    assert 0.1 < ends[1] < 1.5 and 0.05 < ends[-1] < 1.5 and all(r["cost"] <= SLACK for r in done["ranges"])
    # half the range is safe on other prompts too; how far the whole of it holds is measured in the full check
    dose = ends[1] / 2
    file = ConceptVectors.load(path)
    limit = CoherenceDrop(reference=Reference.load(embedded.data("trigrams.npz")), margin=0.0)
    items = default_items(engine, "embedded", "report", 8)
    plan = SteeringPlan.add(file, dose=dose, layers=[LAYER])
    assert limit.values(engine, [plan], [i.encode(engine) for i in items])[0] <= SLACK
    swept = call(
        capsys, monkeypatch, tmp_path, "sweep", "embedded", path, "--layers", "1,3,5", "--doses", "0.5",
        "--limit-items", 6, "--max-tokens", 24, "--no-refine",
    )  # fmt: skip
    assert swept["choice"]["cell"]["layers"] == [3]
    (final,) = swept["final"]
    at = {r["dose"]: r for r in final["rows"]}
    assert at[0.5]["score"] > at[0.5]["null_q95"] and final["study"]["item_slope"] > 0
    after = ConceptVectors.load(path)
    assert after.calibration["layer"] == 3  # beside the range, which stays
    assert safe_range(after.calibration, "calm", f"layer_{LAYER}") == (-ends[-1], ends[1])


#: What calibrate, sweep and eval dilemmas may take together, in seconds on two cores.
LIMIT = 600


@pytest.mark.check
def test_the_whole_grid(engine, tmp_path, capsys, monkeypatch):
    concepts = ["happy", "sad", "angry", "afraid", "calm"]
    feelings = vectors(engine, concepts, tmp_path / "feelings.safetensors")
    honest = vectors(engine, ["honest"], tmp_path / "honest.safetensors")
    steps = {
        "calibrate feelings": ("calibrate", "embedded", feelings, "--layers", LAYER, "--limit", "coherence"),
        "calibrate honest": ("calibrate", "embedded", honest, "--layers", LAYER, "--limit", "coherence"),
        "sweep": ("sweep", "embedded", feelings),
        "eval dilemmas": (
            "eval", "dilemmas", "embedded", "--steer", honest, "--steer", f"{feelings}:happy", "--free", 1,
        ),
    }  # fmt: skip
    done = {}
    for name, argv in steps.items():
        done[name] = call(capsys, monkeypatch, tmp_path, *argv)
        say(capsys, name, done[name]["took"])
    total = [sum(times) for times in zip(*(d["took"] for d in done.values()))]
    say(capsys, f"all of at most {LIMIT} s", total)

    assert {c["verdict"] for c in done["calibrate feelings"]["signs"].values()} == {"right"}
    ends = [(feelings, concepts), (honest, ["honest"])]
    drops = np.concatenate([held_out_drops(engine, path, names, 32, 2) for path, names in ends])
    assert np.max(drops) <= SLACK, drops
    _check_choice(done["sweep"], capsys, monkeypatch, tmp_path, feelings)
    _check_transfer(done["eval dilemmas"])
    assert total[0] < LIMIT  # last: a busy machine fails here, and only here


def say(capsys, name, took):
    """Both times: that of the processor is what the step costs, that of the wall depends on who else is at work."""
    with capsys.disabled():
        print(f"\n{name}: {took[0]:.0f} s on the wall, {took[1]:.0f} s of processor time", flush=True)


def _check_choice(swept, capsys, monkeypatch, folder, path):
    """The chosen layer is within one of an exhaustive search's, and its doses do more than random directions."""
    fine = ",".join(f"{d:.2f}" for d in np.arange(0.1, 1.01, 0.1))
    exhaustive = call(
        capsys, monkeypatch, folder, "sweep", "embedded", path, "--doses", fine, "--limit-items", 32,
        "--no-refine", "--no-write",
    )  # fmt: skip
    chosen, best = (s["choice"]["cell"]["layers"][0] for s in (swept, exhaustive))
    assert abs(chosen - best) <= 1
    for final in swept["final"]:
        best = next(r for r in final["rows"] if r["dose"] == final["best_dose"])
        assert best["low"] > best["null_q95"], final["concept"]


def _check_transfer(found):
    """Honesty moves towards the target further than random directions do; doses beyond the calibrated range are named
    once and not warned of plan by plan."""
    honest, happy = found["openings"]
    assert honest["strength"] is not None and honest["slopes"]["slope"]["low"] > 0
    assert honest["row"]["plus"]["change"]["target"]["low"] > honest["row"]["null"][1]
    assert honest["slopes"]["slope"]["mean"] > happy["slopes"]["slope"]["mean"]
    assert not any("safe range" in w for w in found["warnings"])
    assert sum("safe range" in n for n in found["notes"]) <= 2
