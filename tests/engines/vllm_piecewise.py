"""A run of `test_vllm_modes`: vLLM compiles in pieces and keeps them on disk, as on a GPU. In one process, engines are
started one after the other, plain and steered, and how far each is from Transformers is printed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from engines.oracles import HookOracle
from engines.registry import place
from engines.subjects import TOLERANCES, Subject
from trimtab.engines.requests import CaptureSpec, Request
from trimtab.engines.vllm import plugin, worker
from trimtab.engines.vllm.engine import VllmEngine
from trimtab.errors import SteeringLost, Unsupported
from trimtab.interventions import Add, Pin
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

TOKENS = tuple(int(t) for t in np.random.default_rng(8).integers(3, 99, 80))
OPTIONS: dict[str, Any] = {
    "dtype": "float32", "block_size": 32, "max_num_seqs": 8, "max_num_batched_tokens": 256, "max_logprobs": -1,
    "enable_prefix_caching": False,
}  # fmt: skip
SEEN = Site(2)
PARAMS: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0, "ignore_eos": True, "logprobs": -1}


def force() -> None:
    """Compile on a CPU as on a GPU."""
    import torch
    import vllm._custom_ops  # noqa: F401 (what its kernels define must be there before it is looked for)
    import vllm.compilation.passes.utility.fix_functionalization as known
    from vllm.config import CompilationMode
    from vllm.platforms.cpu import CpuPlatform

    # A pass of the compiler names ops that the CPU build does not have.
    library = torch.library.Library("_C", "FRAGMENT")
    CpuPlatform.forced = library  # type: ignore[attr-defined]
    with open(str(known.__file__), encoding="utf-8") as text:
        for name in sorted(set(re.findall(r"torch\.ops\._C\.(\w+)", text.read()))):
            if not hasattr(torch.ops._C, name):
                library.define(name + "(Tensor x) -> ()")
    original = CpuPlatform.check_and_update_config.__func__  # type: ignore[attr-defined]

    def check(cls: Any, config: Any) -> None:
        original(cls, config)
        c = config.compilation_config
        if c.mode == CompilationMode.DYNAMO_TRACE_ONCE:
            c.mode, c.backend, c.compile_sizes = CompilationMode.VLLM_COMPILE, "inductor", []
            c.splitting_ops = list(c._attention_ops)

    CpuPlatform.check_and_update_config = classmethod(check)  # type: ignore[assignment]


class Loads(logging.Handler):
    """Counts compiled code that came from the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        logger = logging.getLogger("vllm")
        logger.addHandler(self)
        logger.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "Directly load" in record.getMessage()


def start(path: str, plan: ResolvedPlan | None, off: Callable[..., float]) -> dict[str, Any]:
    """One `LLM`, a plain request, and a steered and captured one beside it where there is a plan."""
    from vllm import LLM, SamplingParams
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    loads = Loads()
    llm = LLM(path, **OPTIONS)
    plain = SamplingParams(**PARAMS)
    if plan is None:
        (output,) = llm.generate([{"prompt_token_ids": list(TOKENS)}], plain, use_tqdm=False)
        found: dict[str, Any] = {"plain": off(output.outputs[0], ResolvedPlan()), "loaded": loads.count}
    else:
        engine = VllmEngine.attach(llm)
        ride = engine.board(Prompt(TOKENS), plain, plan=plan, capture=CaptureSpec((SEEN,), "generated"))
        outputs = llm.generate([ride.prompt] * 2, [plain, ride.params], use_tqdm=False)
        done = [o.outputs[0] for o in outputs]
        found = {"plain": off(done[0], ResolvedPlan()), "loaded": loads.count, "lost": ""}
        try:
            (sample,) = ride.completion(outputs[1]).samples
            found |= {"steered": off(done[1], plan), "effect": off(done[1], ResolvedPlan())}
            found["tokens"] = sample.applied.tokens_steered
            with sample.capture as handle:  # type: ignore[union-attr]
                found["states"] = off(done[1], plan, handle.fetch()[SEEN])
        except SteeringLost as error:
            found["lost"] = str(error)
        try:
            engine.generate(Request(Prompt(TOKENS)))
        except Unsupported as error:
            found["refused"] = str(error)
        engine.close()
    logging.getLogger("vllm").removeHandler(loads)
    llm.llm_engine.engine_core.shutdown()
    del llm
    cleanup_dist_env_and_memory()
    return found


def main(path: str) -> None:
    """Plain; steered beside the cache that the plain one left; steered from its own; and, so that the canary is seen,
    steered with the plain one's compiled code, which holds no op."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype="float64", attn_implementation="eager").eval()
    oracle = HookOracle(model)

    def off(done: Any, plan: ResolvedPlan, states: np.ndarray | None = None) -> float:
        """In nats; or, of captured states, as a share of the largest."""
        whole = TOKENS + tuple(done.token_ids)[:-1]
        want = oracle.run(whole, plan)
        if states is not None:
            expected = want.state(SEEN, "after")[len(TOKENS) :]
            return float(np.abs(states - expected).max() / np.abs(expected).max())
        got = np.array([[row[t].logprob for t in range(len(row))] for row in done.logprobs])
        return float(np.abs(got - want.logprobs[len(TOKENS) - 1 :]).max())

    force()
    found = {"plain": start(path, None, off)}
    plugin.register()
    plan = plan_for(path, oracle)
    found["cold"], found["warm"] = start(path, plan, off), start(path, plan, off)
    worker.salt = lambda config: {}  # type: ignore[assignment]
    found["stale"] = start(path, plan, off)
    print(json.dumps(found))


def plan_for(path: str, oracle: HookOracle) -> ResolvedPlan:
    """Two layers, two operators."""
    import trimtab

    engine = trimtab.load_engine(path, "transformers", dtype="float32", device="cpu")
    TOLERANCES["piecewise"] = TOLERANCES["vllm-compiled"]
    s = Subject("piecewise", engine, oracle)
    a = 0.5 * s.size(Site(1))
    plan = place(s, Add(amount=a), Site(1)) | place(s, Pin(a), Site(2), 1, positions="generated")
    return engine.resolve(plan, Prompt(TOKENS))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # threads that vLLM leaves behind abort the process when the interpreter takes itself apart
