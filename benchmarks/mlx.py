"""What the mlx engine costs beside plain mlx-lm: `python -m benchmarks.mlx --json` prints one line.

A random 4-bit Llama of at least 80M parameters decodes 128 tokens at batch 1: by mlx-lm's own loop, by the engine with
no plan, and by the engine with one `Add` at one layer. The three take turns; `idle` and `steered` are medians of the
tokens per second divided by plain mlx-lm's in the same turn (1 = free). `detail` holds the embedded model too, and the
same ratios by processor time, which other processes on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.models import llama

import trimtab
from trimtab.directions import Direction
from trimtab.engines.base import Engine
from trimtab.engines.mlx import MLXEngine
from trimtab.engines.requests import Request, Sampling
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt
from trimtab.sites import Site

#: A warm-up compiles what a run compiles, so that a few tokens of each case are enough.
TOKENS, PROMPT, TURNS, WARM_UP = 128, 8, 7, 8
TARGETS = {"idle": 0.98, "steered": 0.95}
CONFIG = {
    "model_type": "llama", "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 2048,
    "num_attention_heads": 12, "num_key_value_heads": 12, "rms_norm_eps": 1e-6, "vocab_size": 8192,
    "tie_word_embeddings": True, "max_position_embeddings": 1024,
}  # fmt: skip


class NoText:
    """A tokenizer for a model that nobody reads: the benchmark gives and takes token ids."""

    all_special_ids: tuple[int, ...] = ()
    eos_token_id = None
    eos_token_ids: tuple[int, ...] = ()
    chat_template = None
    is_fast = False

    def decode(self, ids: list[int], **options: Any) -> str:
        """Nothing."""
        return ""


def random_llama() -> MLXEngine:
    """At least 80M parameters before quantisation to 4 bits, in groups of 64.

    MLX's CPU kernels emulate half precision, thirty times slower than float32: beside such a token any overhead looks
    like nothing, and a run takes hours.
    """
    mx.random.seed(0)
    model = llama.Model(llama.ModelArgs.from_dict(CONFIG))
    size = sum(v.size for v in dict(tree_flatten(model.parameters())).values())
    assert size >= 80_000_000, size
    model.set_dtype(mx.float32 if mx.default_device() == mx.Device(mx.cpu) else mx.float16)
    nn.quantize(model, group_size=64, bits=4)
    mx.eval(model.parameters())
    return MLXEngine(model, NoText(), CONFIG, id=f"random 4-bit Llama of {size / 1e6:.0f}M parameters")


@dataclass(frozen=True)
class Rate:
    """Tokens per second of the clock, and of processor time."""

    wall: float
    cpu: float


Case = Callable[[int], int]


def timed(case: Case, tokens: int) -> Rate:
    """Run a case once."""
    wall, cpu = time.perf_counter(), time.process_time()
    assert case(tokens) == tokens
    return Rate(tokens / (time.perf_counter() - wall), tokens / (time.process_time() - cpu))


def cases(engine: Engine, seed: int) -> dict[str, Case]:
    """Name -> a run that decodes so many tokens and says how many came."""
    rng = np.random.default_rng(seed)
    prompt = Prompt(tuple(int(t) for t in rng.integers(3, engine.info.vocab_size or 3, PROMPT)))
    site = Site(engine.info.n_layers // 2)
    vector = Direction.from_raw("random", site, rng.standard_normal(engine.info.width(site)))
    plan = SteeringPlan.add(vector, amount=1.0, layers=[site.layer])
    model: Any = engine.model  # type: ignore[attr-defined]

    def plain(tokens: int) -> int:
        return sum(1 for _ in generate_step(mx.array(prompt.tokens), model, max_tokens=tokens))

    def ours(chosen: SteeringPlan | None) -> Case:
        def run(tokens: int) -> int:
            request = Request(prompt, chosen, Sampling(max_tokens=tokens, ignore_eos=True))
            return len(engine.generate(request)[0].tokens)

        return run

    return {"plain": plain, "idle": ours(None), "steered": ours(plan)}


def compare(engine: Engine, turns: int) -> dict[str, Any]:
    """Medians and spreads of tokens per second, and of the ratios to plain mlx-lm turn by turn."""
    runs = cases(engine, 0)
    for run in runs.values():
        timed(run, WARM_UP)
    seen: dict[str, list[Rate]] = {name: [] for name in runs}
    for turn in range(turns):
        for name in list(runs) if turn % 2 else list(reversed(runs)):
            seen[name].append(timed(runs[name], TOKENS))

    def ratio(name: str, clock: str) -> dict[str, float]:
        pairs = zip(seen[name], seen["plain"], strict=True)
        return _spread([getattr(a, clock) / getattr(b, clock) for a, b in pairs])

    return {
        "model": engine.info.id,
        "dtype": engine.info.dtype,
        "tokens_per_second": {n: _spread([r.wall for r in v]) for n, v in seen.items()},
        "ratio": {n: ratio(n, "wall") for n in TARGETS},
        "cpu_ratio": {n: ratio(n, "cpu") for n in TARGETS},
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Cost of the mlx engine beside plain mlx-lm.")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--turns", type=int, default=TURNS)
    arguments = parser.parse_args()
    large = compare(random_llama(), arguments.turns)
    small = compare(trimtab.load_engine("embedded", "mlx"), arguments.turns)
    result: dict[str, Any] = {name: large["ratio"][name]["median"] for name in TARGETS}
    result["detail"] = {"large": large, "embedded": small, "turns": arguments.turns, "goals": TARGETS}
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))
    return int(any(result[name] < goal for name, goal in TARGETS.items()))


if __name__ == "__main__":
    sys.exit(main())
