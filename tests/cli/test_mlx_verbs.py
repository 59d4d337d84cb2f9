"""The evaluation verbs on mlx, in a process without torch, beside the transformers engine: the same file, the same
numbers; and on 4-bit weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mlx_lm", reason="the mlx engine needs mlx and mlx-lm: pip install 'trimtab[mlx]'")
pytest.importorskip("sklearn")

from cli import torch_free
from trimtab import embedded
from trimtab.directions import ConceptVectors
from trimtab.sites import Site

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]

MLX = ("--engine", "mlx", "--dtype", "float32", "--device", "cpu")
SWEEP = ("--layers", "1,3", "--doses", "0.5", "--no-refine", "--no-write")
CALIBRATE = ("--layers", "3", "--limit-items", "3", "--no-sign")
DILEMMAS = ("--doses", "0.5", "--random", "0", "--limit", "16", "--min-items", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pairs, items with continuations, questions, and the embedded model in 4 bits."""
    if not (embedded.MODEL / "model.safetensors").exists():
        pytest.skip("the embedded model is not in this checkout: build it with `python -m embedded.train`")
    path = tmp_path_factory.mktemp("verbs")
    pairs = [r for r in embedded.data("pairs.jsonl").read_text().splitlines() if '"happy"' in r]
    (path / "pairs.jsonl").write_text("\n".join(pairs[:8]) + "\n")
    said = {
        "happy": ["I am full of delight.", "Every song sounds sweet to me."],
        "other": ["I am at the inn.", "My heart is heavy."],
    }
    asked = ("How was your day?", "How do you feel?", "What is new?", "Tell me about yourself.")
    rows = [
        {"messages": [{"role": "user", "content": q + more}], "continuations": said}
        for q in asked
        for more in ("", " I want to know.")
    ]
    (path / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (path / "questions.txt").write_text("\n".join(asked[:2]) + "\n")
    from mlx_lm import convert

    convert(
        str(embedded.MODEL), str(path / "four"), quantize=True, q_bits=4, q_group_size=32, dtype="float32"
    )
    return path


@pytest.fixture(scope="module")
def done(folder):
    """Every command line of these tests by name, run in one process without torch."""
    file, small = folder / "happy.safetensors", folder / "small.safetensors"
    items = ("--items", folder / "items.jsonl")
    lines = {
        "extract": ("extract", "embedded", *MLX, "--data", folder / "pairs.jsonl", "--layers", "1,3", "-o", file),
        "calibrate": ("calibrate", "embedded", file, *MLX, *CALIBRATE, "-o", folder / "safe.safetensors"),
        "sweep": ("sweep", "embedded", file, *MLX, *items, *SWEEP),
        "dilemmas": ("eval", "dilemmas", "embedded", *MLX, "--steer", file, *DILEMMAS),
        "small calibrate": (
            "calibrate", folder / "four", file, *MLX, "--layers", "3", "--limit-items", "1", "--no-sign", "-o", small,
        ),
        "small sweep": ("sweep", folder / "four", file, *MLX, *items, *SWEEP),
        "small rollouts": (
            "generate", folder / "four", *MLX, "--chat", "--dataset", folder / "questions.txt", "--steer", small,
            "--scales", "0,2", "--layers", "3", "--max-tokens", "6",
        ),
    }  # fmt: skip
    argvs = [[str(a) for a in argv] for argv in lines.values()]
    argvs = [
        [*a, "--json"] + ([] if a[0] == "extract" else ["--runs-dir", str(folder / "runs")]) for a in argvs
    ]
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run(
        [sys.executable, torch_free.__file__],
        input=json.dumps(argvs),
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root / "src"), os.environ.get("PYTHONPATH", "")]),
        },
    )
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["torch"] == []
    return dict(zip(lines, told["results"], strict=True))


@pytest.fixture(scope="module")
def theirs(done, folder, tmp_path_factory):
    """The same verbs on the transformers engine, with the file that was made on mlx."""
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    home = tmp_path_factory.mktemp("theirs")
    file = home / "happy.safetensors"
    shutil.copy(folder / "happy.safetensors", file)
    flags = (
        "--engine",
        "transformers",
        "--dtype",
        "float32",
        "--device",
        "cpu",
        "--runs-dir",
        home,
        "--json",
    )
    lines = {
        "extract": (
            "extract", "embedded", *flags[:6], "--data", folder / "pairs.jsonl", "--layers", "1,3", "--json",
            "-o", home / "own.safetensors",
        ),
        "calibrate": ("calibrate", "embedded", file, *flags, *CALIBRATE, "-o", home / "safe.safetensors"),
        "sweep": ("sweep", "embedded", file, *flags, "--items", folder / "items.jsonl", *SWEEP),
        "dilemmas": ("eval", "dilemmas", "embedded", *flags, "--steer", file, *DILEMMAS),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as monkeypatch:
        torch_free.few_neutral_texts(monkeypatch.setattr)
        found = {name: torch_free.run([str(a) for a in argv]) for name, argv in lines.items()}
    return {"home": home} | found


def test_every_verb_runs_without_torch_and_names_its_engine(done):
    assert {name: (d["code"], d["err"] if d["code"] else "") for name, d in done.items()} == dict.fromkeys(
        done, (0, "")
    )
    (told,) = [line for line in done["extract"]["err"].splitlines() if line.startswith("next: ")]
    assert "--engine mlx" in told
    assert all(d["record"]["engine"] == "mlx" for d in done.values())


def test_vectors_are_those_of_transformers(done, theirs, folder):
    ours, others = (
        ConceptVectors.load(p / n)
        for p, n in ((folder, "happy.safetensors"), (theirs["home"], "own.safetensors"))
    )
    for site in ours.sites:
        a, b = (v.direction("happy", site) for v in (ours, others))
        assert a.unit @ b.unit > 0.99999 and a.norm == pytest.approx(b.norm, rel=1e-3)
        assert ours.typical_norms[site] == pytest.approx(others.typical_norms[site], rel=1e-4)


def test_the_sweep_chooses_the_same_layer_by_the_same_numbers(done, theirs):
    ours, others = (d["sweep"]["record"] for d in (done, theirs))
    assert ours["choice"]["cell"] == others["choice"]["cell"]
    assert ours["choice"]["best_dose"] == others["choice"]["best_dose"]
    for a, b in zip(ours["final"][0]["rows"], others["final"][0]["rows"], strict=True):
        for key in ("dose", "score", "coherence", "null_q95"):
            assert a[key] == pytest.approx(b[key], abs=1e-3), key
    moved = {r["dose"]: r["score"] for r in ours["final"][0]["rows"]}
    assert moved[0.5] - moved[0.0] > 0.1, "steering did nothing"


def test_the_safe_range_is_the_same(done, theirs):
    ours, others = (d["calibrate"]["record"]["ranges"] for d in (done, theirs))
    assert {r["sign"] for r in ours} == {1, -1}
    for a, b in zip(ours, others, strict=True):
        assert a["reached"] and a["strength"] == pytest.approx(b["strength"], rel=0.02)
        assert a["cost"] == pytest.approx(b["cost"], rel=0.05)


def test_decisions_in_dilemmas_are_the_same(done, theirs):
    ours, others = (d["dilemmas"]["record"] for d in (done, theirs))
    assert numbers(ours).keys() == numbers(others).keys()
    a, b = (np.array(list(numbers(r).values())) for r in (ours, others))
    assert np.allclose(a, b, atol=2e-3, rtol=2e-3)
    assert len(a) > 20


def numbers(record, where=""):
    """The finite numbers of a record by their place; random resampling is seeded, and so they compare."""
    skip = ("wall_s", "run", "revision")
    if isinstance(record, dict):
        found = [numbers(v, f"{where}/{k}") for k, v in record.items() if k not in skip]
    elif isinstance(record, list):
        found = [numbers(v, f"{where}/{i}") for i, v in enumerate(record)]
    else:
        return {where: record} if isinstance(record, float) else {}
    return {k: v for part in found for k, v in part.items()}


def test_four_bits_are_swept_calibrated_and_steered(done, folder):
    chosen = done["small sweep"]["record"]
    (strength,) = chosen["strengths"]
    site = Site(chosen["choice"]["cell"]["layers"][0])
    vectors = ConceptVectors.load(folder / "small.safetensors")
    raw, typical = vectors.direction("happy", site).norm, vectors.typical_norms[site]
    assert strength["scale"] == pytest.approx(strength["dose"] * typical / raw)
    assert strength["rule_300_scale"] == pytest.approx(300 / raw)
    rows = {r["dose"]: r["score"] for r in chosen["final"][0]["rows"]}
    assert rows[0.5] - rows[0.0] > 0.1
    ranges = {r["sign"]: r["strength"] for r in done["small calibrate"]["record"]["ranges"]}
    safe = vectors.calibration["safe"]["happy"]["layer_3"]["add"]
    assert (safe["low"], safe["high"]) == pytest.approx((-ranges[-1], ranges[1]))
    rollouts = done["small rollouts"]["record"]
    assert rollouts["replies"] == 4
    texts = [json.loads(line) for line in Path(rollouts["file"]).read_text().splitlines()]
    by = {(t["item"], t["scale"]): t["answer"] for t in texts}
    items = {i for i, _ in by}
    assert all(by[i, 0.0] != by[i, 2.0] for i in items), by
