"""A pipeline of two workers, and the V2 model runner: each is one real engine, held to Transformers.

vLLM's V2 runner is made of Triton kernels, which are interpreted here, one program after the other; what is around
them, what the scheduler sends it, preemption included, is as it is anywhere.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")

from engines.registry import place
from engines.vllm_cases import EXACT, Case, base, cases, check, counted, exact_subject, run, settled
from engines.vllm_soak import Soak
from trimtab.errors import SteeringLost
from trimtab.interventions import Add
from trimtab.plans import SteeringPlan
from trimtab.sites import Site

pytestmark = [pytest.mark.engine, pytest.mark.slow]

#: Read by every Python of vLLM's when it starts: it believes in a Triton for processors, which is the interpreter.
BELIEVES = """
from types import SimpleNamespace

import triton.backends

driver = SimpleNamespace(is_active=lambda: True)
triton.backends.backends.setdefault("cpu", SimpleNamespace(driver=driver, compiler=None))
"""


@pytest.fixture(scope="module", params=["pipeline", pytest.param("v2", marks=pytest.mark.check)])
def subject(request, tmp_path_factory):
    """So few blocks that a full batch of long answers preempts."""
    folder = tmp_path_factory.mktemp(request.param)
    patch, options = pytest.MonkeyPatch(), {"num_gpu_blocks_override": 48}
    patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    if request.param == "v2":
        pytest.importorskip("triton", reason="needs triton, which comes with torch on Linux")
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(BELIEVES)
        patch.setenv("PYTHONPATH", str(site), prepend=":")
        patch.setenv("TRITON_INTERPRET", "1")
        # This Python has started without it, and only checks the configuration.
        patch.setattr("vllm.config.vllm.HAS_TRITON", True)
        patch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    else:
        options |= {"pipeline_parallel_size": 2, "distributed_executor_backend": "mp"}
    yield from exact_subject(folder, **options)
    patch.undo()


def test_a_mixed_batch_is_what_transformers_makes_of_it(subject):
    """Gates, too, whose site is in the first worker and whose edit is in the last; captures come from both."""
    config: Any = subject.engine.loop.llm.vllm_config
    assert config.use_v2_model_runner or config.parallel_config.pipeline_parallel_size == 2
    for capture in (tuple(Site(n) for n in range(subject.last + 1)), ()):
        batch = cases(subject, base(70))
        run(subject, batch, capture)
        for case in batch:
            check(subject, case)
    counts = [settled(subject.engine), *subject.engine.loop.call("trimtab_counts")]
    assert all(c["programs"] == c["bank"] == 0 for c in counts)


def test_preemption_changes_nothing(subject):
    before, batch = counted("num_preemptions"), cases(subject, base(72))
    run(subject, batch, (Site(0), Site(subject.last)), new=80)
    assert counted("num_preemptions") > before, "nothing was preempted; the test shows nothing"
    for case in batch:
        check(subject, case, 3 * EXACT)  # 230 tokens of float32, through weights that amplify


@pytest.mark.parametrize("where", ["first", "last"])
def test_a_plan_that_breaks_states_loses_its_request_alone(subject, where):
    site = Site(0 if where == "first" else subject.last)
    strong = SteeringPlan(place(subject, Add(amount=3e38), site).placements * 9)
    good = cases(subject, base(71), ["add", "gated", "plain"])
    bad = Case("bad", good[0].prompt, subject.engine.resolve(strong, good[0].prompt))
    with pytest.raises(SteeringLost, match="not finite"):
        run(subject, [bad])
    for case in run(subject, good):
        check(subject, case)


def test_many_requests_with_aborts_are_what_each_is_alone(subject):
    soak = Soak(subject)
    soak.run(60)
    print(f"soak of 60: {soak.worst:.2g} nats, {soak.aborted} aborted")
    assert soak.worst <= EXACT and soak.finished + soak.aborted == 60 and soak.aborted
    counts = settled(subject.engine)
    assert (counts["programs"], counts["bank"], len(subject.engine.ledger)) == (0, 0, 0)
