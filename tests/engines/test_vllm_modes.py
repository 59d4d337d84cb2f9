"""Modes of vLLM beside plans: two tensor-parallel workers, adapters, compiled code from an older cache, speculation."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")

import torch

from engines.checkpoints import save_adapter, save_tiny_llama
from engines.vllm_cases import EXACT, LENGTH, NEW, base, cases, check, exact_subject, run, settled
from engines.vllm_families import GEMMA3N
from trimtab.engines.vllm import worker
from trimtab.engines.vllm.ticket import KEY, Ticket, plan_json
from trimtab.errors import Unsupported
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

pytestmark = pytest.mark.engine
HERE = Path(__file__).parent
SPECULATION: dict[str, Any] = {
    "speculative_config": {
        "method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3, "prompt_lookup_min": 2,
    },
}  # fmt: skip


# --- tensor parallelism and adapters -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two workers, with room for an adapter. And for another: on a CPU, vLLM gives requests without an adapter the last
    one's when they share a batch, and the last is empty here."""
    patch = pytest.MonkeyPatch()
    patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    yield from exact_subject(
        tmp_path_factory.mktemp("pair"),
        tensor_parallel_size=2,
        enable_lora=True,
        max_lora_rank=8,
        max_loras=2,
    )
    patch.undo()


def test_two_workers_steer_capture_and_count_as_one(pair):
    for capture in ((Site(0), Site(pair.last)), ()):
        batch = cases(pair, base(50))
        run(pair, batch, capture)
        for case in batch:
            check(pair, case)
    one, other = pair.engine.loop.call("trimtab_counts")
    assert one["bank"] == other["bank"]
    assert settled(pair.engine)["programs"] == 0


def test_an_adapter_and_a_plan_in_one_request(pair, tmp_path):
    """With and without each of them, twice, so that the second time reads its own prefix cache."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.sampling_params import RequestOutputKind

    engine: Any = pair.engine
    added = save_adapter(tmp_path / "adapter", pair.oracle.model)
    adapter = LoRARequest("loud", 1, str(tmp_path / "adapter"))
    (case,) = cases(pair, base(51), ["stack"])
    held = engine.shelf.hold(case.plan.vectors)
    wanted = [(a, p) for a in (None, adapter) for p in (ResolvedPlan(), case.plan)]

    async def one(lora: Any, plan: ResolvedPlan, key: str) -> Any:
        params = SamplingParams(
            max_tokens=NEW, ignore_eos=True, logprobs=-1, temperature=0.0,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )  # fmt: skip
        if plan.effective:
            ticket = Ticket(key, engine.epoch, plan_json(plan), plan.first_position())
            params.extra_args = {KEY: ticket.to_text()}
        prompt = {"prompt_token_ids": list(case.prompt.tokens)}
        async for output in engine.loop.llm.generate(prompt, params, key, lora_request=lora):
            last = output
        return last

    async def all_of(turn: int) -> Any:
        return await asyncio.gather(*(one(a, p, f"lora{turn}{i}") for i, (a, p) in enumerate(wanted)))

    tables = []
    for turn in range(2):
        outputs = engine.loop.submit(all_of(turn)).result(timeout=900)
        for (lora, plan), output in zip(wanted, outputs, strict=True):
            done, cached = output.outputs[0], output.num_cached_tokens
            got = np.array([[row[t].logprob for t in range(len(row))] for row in done.logprobs])
            whole = case.prompt.tokens + tuple(done.token_ids)[:-1]
            want = _with(pair, added if lora else {}, whole, plan)
            assert np.abs(got - want).max() <= 2 * EXACT, (bool(lora), bool(plan.effective), cached)
            assert (cached > 0) is (turn == 1)
            tables.append(got[0])
    engine.shelf.release(held)
    assert min(np.abs(a - b).max() for i, a in enumerate(tables[:4]) for b in tables[:i]) > 1e-2


def _with(subject: Any, added: dict[str, Any], tokens: tuple[int, ...], plan: ResolvedPlan) -> np.ndarray:
    weights = dict(subject.oracle.model.named_parameters())
    with torch.no_grad():
        for name, change in added.items():
            weights[name] += change
        try:
            return subject.oracle.run(tokens, plan).logprobs[LENGTH - 1 :]
        finally:
            for name, change in added.items():
                weights[name] -= change


# --- compiled code -------------------------------------------------------------------------------------------------


def test_the_compile_cache_is_keyed_by_the_op():
    """Code compiled without trimtab, or with another version of it, is another entry of vLLM's cache."""
    from vllm.config import VllmConfig

    found = []
    for options, version in (({}, None), ({}, "1"), ({}, "2"), ({"trimtab": {"bank": 7}}, "1")):
        config = VllmConfig(additional_config=options)
        if version is not None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(worker, "__version__", version)
                assert worker.salt(config) == options.get("trimtab", {})
        found.append(config.compute_hash())
    assert len(set(found)) == 4


def test_compiled_code_of_a_plain_vllm_in_the_cache_steers_nothing_wrongly(tmp_path):
    """vLLM's own backend in pieces, with its cache on disk: plain, steered beside that, and from its own cache. With
    the plain one's compiled code, which the key prevents, the request is lost and not served plain."""
    save_tiny_llama(tmp_path / "llama", context=512)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE.parent)]),
        "VLLM_PLUGINS": "", "VLLM_CACHE_ROOT": str(tmp_path / "cache"), "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(HERE / "vllm_piecewise.py"), str(tmp_path / "llama")],
        env=environment, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert [r["loaded"] > 0 for r in found.values()] == [False, False, True, True], found
    assert all(r["plain"] <= EXACT for r in found.values()), found
    for kind in ("cold", "warm"):
        assert found[kind]["steered"] <= EXACT and found[kind]["effect"] > 0.01, found
        assert found[kind]["states"] <= EXACT and found[kind]["tokens"] == 80 + 7, found
        assert "llm.generate" in found[kind]["refused"]
    assert "never reached" in found["stale"]["lost"]


def test_speculation_is_refused_in_words_before_anything_is_loaded(tmp_path):
    with pytest.raises(Unsupported, match="speculative decoding"):
        next(exact_subject(tmp_path, **SPECULATION))


@pytest.mark.check
@pytest.mark.parametrize("kind", ["speculation", "gemma3n"])
def test_a_server_that_cannot_steer_serves_plain_requests_and_ends_those_with_plans(kind, tmp_path):
    """vLLM as anybody starts it, with the plugin in its worker: there is nobody to refuse it before it loads."""
    from vllm import LLM, SamplingParams

    why, options = "four versions", {}
    if kind == "speculation":
        path, why, options = save_tiny_llama(tmp_path / "llama"), "speculative decoding", SPECULATION
    else:
        GEMMA3N.save(path := tmp_path / "gemma3n")
    llm = LLM(str(path), dtype="float32", enforce_eager=True, block_size=32, max_num_seqs=8, **options)
    (found,) = llm.collective_rpc("trimtab_attach", args=("ipc:///nowhere",))
    assert why in found["refused"]
    told = SamplingParams(max_tokens=4, ignore_eos=True, extra_args={KEY: "{}"})
    plain = SamplingParams(max_tokens=4, ignore_eos=True)
    prompts: Any = [{"prompt_token_ids": [5, 6, 7, 8, 5, 6, 7, 8]}] * 3
    done = [o.outputs[0] for o in llm.generate(prompts, [plain, told, plain], use_tqdm=False)]
    assert [d.finish_reason for d in done] == ["length", "error", "length"]
    assert why in str(done[1].stop_reason) and not done[1].token_ids
