"""The kit on the engines that run checkpoints: the embedded model, compared with Transformers in float32."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from trimtab import embedded
from trimtab.conformance.registry import CHECKS, Failed, names_of
from trimtab.conformance.runner import verify
from trimtab.conformance.stands import stand_of
from trimtab.conformance.subject import Subject
from trimtab.conformance.truth import Truth, unavailable
from trimtab.engines import load_engine
from trimtab.interventions import Add
from trimtab.plans import EMPTY
from trimtab.sites import Site

pytestmark = pytest.mark.engine
#: What takes long and has its own tests; `trimtab verify` runs it like the rest.
SLOW = ("cost", "cache_rounds", "many_vectors", "concurrency")


@pytest.fixture(scope="module")
def truth():
    return Truth(embedded.MODEL)


@pytest.mark.parametrize(("engine", "options"), [("transformers", {}), ("mlx", {"dtype": "float32"})])
def test_every_check_passes(engine, options):
    if engine == "mlx":
        pytest.importorskip(
            "mlx_lm", reason="the mlx engine needs mlx and mlx-lm: pip install 'trimtab[mlx]'"
        )
    chosen = [n for n in names_of(engine) if n not in SLOW]
    report = verify("embedded", engine, only=chosen, compare="transformers", **options)
    assert report.passed, [e for e in report.checks if e.status != "pass"]
    assert [e.name for e in report.checks] == chosen
    assert report.about["compared_with"] == "transformers float32"


@pytest.fixture(scope="module")
def subject(truth):
    return Subject(load_engine("embedded", "transformers"), stand_of("transformers"), truth)


def test_the_truth_is_the_model_and_its_edits_are_the_definition(truth, subject):
    """Against the engine's plain states, and against closed forms."""
    prompt, site = subject.prompts[0], subject.middle
    plain = truth.run(prompt.tokens, EMPTY)
    assert np.abs(plain.before[site] - subject.plain(site)).max() < 1e-4
    assert np.abs(np.exp(plain.logprobs).sum(1) - 1).max() < 1e-9
    a, u = subject.size(site), subject.direction(site).unit
    steered = truth.run(prompt.tokens, subject.resolved(subject.place(Add(amount=a), site), prompt))
    assert np.abs(steered.after[site] - steered.before[site] - a * u).max() < 1e-5 * a
    below = Site(site.layer - 1)
    assert np.array_equal(steered.after[below], plain.after[below])
    assert np.abs(steered.logprobs - plain.logprobs).max() > 0.1


@pytest.mark.parametrize(
    "check", ["capture_parity", "score_parity", "generation_parity", "layers", "decode_steps"]
)
def test_an_engine_that_computes_something_else_is_caught(subject, check, monkeypatch):
    """One layer's output is off by two per cent, as where a residual is added once more or a norm is missed."""
    block = subject.truth.layers[2]
    handle = block.mlp.register_forward_hook(lambda module, args, out: out * 1.02)
    monkeypatch.setattr(subject.truth, "_seen", {})
    try:
        with pytest.raises(Failed):
            CHECKS[check].run(subject)
    finally:
        handle.remove()


def test_a_model_that_cannot_be_compared_says_why(tmp_path, monkeypatch):
    assert unavailable(embedded.MODEL) == ""
    assert "no checkpoint" in unavailable(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "safetensors" in unavailable(tmp_path)
    monkeypatch.setattr("trimtab.conformance.truth._free_bytes", lambda: 2**20)
    assert "do not fit" in unavailable(embedded.MODEL)


@pytest.mark.parametrize(
    "flags", [["--eager"], pytest.param([], marks=pytest.mark.check)], ids=["eager", "compiled"]
)
def test_vllm_as_a_person_verifies_it(flags):
    """Eager, and compiled as a model is served: one engine start, in a process of its own; one line on stdout, every
    check passed, none left out."""
    pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")
    command = "import sys; from trimtab.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", command, "verify", "embedded", "--engine", "vllm", *flags, "--json"],
        capture_output=True,
        text=True,
        env={"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ},
        timeout=1800,
    )
    assert done.stdout.count("\n") == 1, (done.stdout[-2000:], done.stderr[-2000:])
    record = json.loads(done.stdout)
    assert [c for c in record["checks"] if c["status"] != "pass"] == []
    assert [c["name"] for c in record["checks"]] == list(names_of("vllm")) and record["not_run"] == []
    assert done.returncode == 0


@pytest.mark.check
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_vllm_compiled_in_sixteen_bits(dtype):
    """What states that are not finite can spoil, in the formats and in the mode in which models are served."""
    pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")
    chosen = "generation_parity,preemption,lost_is_withheld,non_finite_contained"
    run = "import sys; from trimtab.cli import main; sys.exit(main())"
    flags = ["--engine", "vllm", "--dtype", dtype, "--only", chosen, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", run, "verify", "embedded", *flags],
        capture_output=True,
        text=True,
        env={"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ},
        timeout=1200,
    )
    assert done.stdout.count("\n") == 1, (done.stdout[-2000:], done.stderr[-2000:])
    record = json.loads(done.stdout)
    assert {c["name"]: c["status"] for c in record["checks"]} == dict.fromkeys(chosen.split(","), "pass"), (
        record
    )
    assert record["summary"]["dtype"] == dtype
