"""A run of `test_vllm_modes`: vLLM's own compiler in pieces, plain or steered; prints differences from Transformers."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from engines.oracles import HookOracle
from engines.registry import place
from engines.subjects import TOLERANCES, Subject
from trimtab.interventions import Add
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

TOKENS = tuple(int(t) for t in np.random.default_rng(8).integers(3, 99, 80))
OPTIONS: dict[str, Any] = {
    "dtype": "float32", "block_size": 32, "max_num_seqs": 8, "max_num_batched_tokens": 256, "max_logprobs": -1,
}  # fmt: skip
PARAMS: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0, "ignore_eos": True, "logprobs": -1}


def main(kind: str, path: str) -> None:
    """Run it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype="float64", attn_implementation="eager").eval()
    oracle = HookOracle(model)

    def off(done: Any, plan: ResolvedPlan) -> float:
        whole = TOKENS + tuple(done.token_ids)[:-1]
        want = oracle.run(whole, plan).logprobs[len(TOKENS) - 1 :]
        got = np.array([[row[t].logprob for t in range(len(row))] for row in done.logprobs])
        return float(np.abs(got - want).max())

    if kind == "plain":
        from vllm import LLM, SamplingParams

        llm = LLM(path, **OPTIONS)
        (output,) = llm.generate([{"prompt_token_ids": list(TOKENS)}], SamplingParams(**PARAMS))
        print(json.dumps({"plain": off(output.outputs[0], ResolvedPlan())}))
        return

    import trimtab
    from trimtab.engines.vllm.generation import Batch, Order

    engine: Any = trimtab.load_engine(path, "vllm", **OPTIONS)
    TOLERANCES["piecewise"] = TOLERANCES["vllm-compiled"]
    s = Subject("piecewise", engine, oracle)
    plan = engine.resolve(place(s, Add(amount=0.5 * s.size(Site(1))), Site(1)), Prompt(TOKENS))
    orders = [Order(TOKENS, p, dict(PARAMS)) for p in (ResolvedPlan(), plan)]
    batch, found = Batch(engine, orders), {}
    for index, output in batch:
        if output.finished:
            batch.whole(index, output.num_cached_tokens or 0, len(TOKENS) + 7)
            found["steered" if index else "plain"] = off(output.outputs[0], orders[index].plan)
            if index:
                found["effect"] = off(output.outputs[0], ResolvedPlan())
    batch.close()
    engine.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
