"""A dose sweep in one call against one call per generation: `python -m benchmarks.sweep --json` prints one line.

Nine doses × five vectors × eight prompts of 200 shared tokens (the tokens of neutral texts), four-token answers,
greedy, on the embedded model, which is loaded once. The plans act on generated tokens only, so that all rows of a
prompt have one prefill.

    batched_speedup     (one call per vector, dose and prompt) ÷ (one call for everything)
    vs_prompt_batched   (one call per vector and dose, its prompts batched) ÷ (one call for everything)

Numbers are CPU seconds on one thread, medians over `--repeats` rounds in which the three take turns. The answers of all
three must be the same tokens; where greedy decoding meets a near tie they may differ, which is counted
(`detail.different_rows`) and fails the benchmark above one row in a hundred.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from trimtab.data.neutral import neutral_texts
from trimtab.directions import Direction
from trimtab.engines import load_engine
from trimtab.engines.base import Engine
from trimtab.engines.requests import Request, Sampling
from trimtab.plans import SteeringPlan
from trimtab.recipes import typical_norms
from trimtab.sites import Site

DOSES = (-1.0, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 1.0)
VECTORS, PROMPTS, SHARED, OWN, ANSWER, LAYER = 5, 8, 200, 12, 4, 3
GOALS = {"batched_speedup": 5.0, "vs_prompt_batched": 1.5}


def cells(runner: Engine) -> list[list[Request]]:
    """One list of requests (its prompts) per (vector, dose)."""
    tokens = [t for text in neutral_texts() for t in runner.encode(text, bare=True).tokens]
    shared, rest = tokens[:SHARED], tokens[SHARED:]
    prompts = [runner.encode(shared + rest[k * OWN : (k + 1) * OWN]) for k in range(PROMPTS)]
    norm = typical_norms(runner, [LAYER])[Site(LAYER)]
    found = []
    for k in range(VECTORS):
        row = np.random.default_rng([1, k]).normal(size=runner.info.hidden_size)
        vector = Direction.from_raw(f"v{k}", Site(LAYER), row, typical_norm=norm)
        for dose in DOSES:
            plan = SteeringPlan.add(vector, dose=dose, positions="generated")
            sampling = Sampling(max_tokens=ANSWER, ignore_eos=True)
            found.append([Request(p, runner.resolve(plan, p), sampling) for p in prompts])
    return found


def run(repeats: int) -> dict[str, Any]:
    """Time the three ways in turns and compare what they say."""
    torch.set_num_threads(1)
    runner = load_engine("embedded")
    whole = cells(runner)
    flat = [r for cell in whole for r in cell]
    ways: dict[str, Callable[[], list[tuple[int, ...]]]] = {
        "one by one": lambda: [runner.generate(r)[0].tokens for r in flat],
        "prompts batched": lambda: [c.tokens for cell in whole for c in runner.generate(cell)],
        "one batch": lambda: [c.tokens for c in runner.generate(flat)],
    }
    ways["one batch"]()  # warm up
    seconds: dict[str, list[float]] = {w: [] for w in ways}
    answers: dict[str, list[tuple[int, ...]]] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            answers[name] = way()
            seconds[name].append(time.process_time() - start)
    median = {w: statistics.median(s) for w, s in seconds.items()}
    different = {w: sum(a != b for a, b in zip(answers[w], answers["one batch"], strict=True)) for w in ways}
    return {
        "batched_speedup": median["one by one"] / median["one batch"],
        "vs_prompt_batched": median["prompts batched"] / median["one batch"],
        "detail": {
            "goals": GOALS,
            "cpu_seconds": median,
            "rounds": seconds,
            "rows": len(flat),
            "prompt_tokens": SHARED + OWN,
            "answer_tokens": ANSWER,
            "different_rows": different,
            "distinct_answers": len(set(answers["one batch"])),
        },
    }


def main() -> None:
    """Print the result; exit 1 where a goal is missed or the answers differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line instead of a table")
    parser.add_argument("--repeats", type=int, default=3)
    found = run((given := parser.parse_args()).repeats)
    if given.json:
        print(json.dumps(found))
    else:
        for key, goal in GOALS.items():
            print(f"{key:18} {found[key]:<8.3g} goal {goal:g}")
        print(json.dumps(found["detail"], indent=1))
    wrong = max(found["detail"]["different_rows"].values()) > 0.01 * found["detail"]["rows"]
    if wrong or any(found[k] < goal for k, goal in GOALS.items()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
