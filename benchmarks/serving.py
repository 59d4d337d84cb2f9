"""One vLLM process of `benchmarks.serve`: it loads an engine, plain or with trimtab, and runs what it is told.

A command is a line of JSON on stdin, the answer a line on stdout: {"key", "tokens"} runs one batch of that key and
answers the CPU and wall seconds of every step of the worker. The meter wraps the same two methods of the worker in both
kinds of process, and measures the thread that runs them: with one OpenMP thread that is all the work there is.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BATCH, PROMPT, CONCEPTS, DISTINCT = 64, 4, 64, 256
HIDDEN, LAYERS, VOCABULARY = 768, 12, 1024
KEYS = (
    "idle", "one_vector", "all_requests_one_layer", "all_layers", "distinct_256", "readout_64", "capture_1",
)  # fmt: skip
#: Where one layer is steered, read or captured, and which four are fetched.
MIDDLE, FOUR = 6, (2, 5, 8, 11)


class Meter:
    """Added to vLLM's worker as its extension class."""

    def meter_start(self) -> None:
        """Begin anew; the first call wraps the methods of this worker."""
        self.meter_steps: list[list[float]] = []
        if "execute_model" not in vars(self):
            self.execute_model = self._metered(self.execute_model, True)  # type: ignore[has-type]
            self.sample_tokens = self._metered(self.sample_tokens, False)  # type: ignore[has-type]

    def _metered(self, method: Callable[..., Any], new: bool) -> Callable[..., Any]:
        def timed(first: Any, *args: Any, **kwargs: Any) -> Any:
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return method(first, *args, **kwargs)
            finally:
                spent = [time.thread_time() - cpu, time.perf_counter() - wall]
                if new:
                    scheduled = first.num_scheduled_tokens
                    self.meter_steps.append([*spent, sum(scheduled.values()), len(scheduled)])
                elif self.meter_steps:
                    self.meter_steps[-1][0] += spent[0]
                    self.meter_steps[-1][1] += spent[1]

        return timed

    def meter_take(self) -> list[list[float]]:
        """[cpu, wall, tokens, requests] of every step since the start."""
        return self.meter_steps

    def meter_pickled(self, count: int, rows: int) -> bytes:
        """Captures as a worker without a channel would answer them: `count` arrays [rows, width] in one pickle."""
        if "meter_rows" not in vars(self):
            draw = np.random.default_rng(0)
            self.meter_rows = [draw.standard_normal((rows, HIDDEN), np.float32) for _ in range(count)]
        return pickle.dumps(self.meter_rows)


def save_model(path: str) -> int:
    """A random Llama and its tokenizer; how many weights it has."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=2048, num_hidden_layers=LAYERS, num_attention_heads=12,
        num_key_value_heads=12, vocab_size=VOCABULARY, max_position_embeddings=512, bos_token_id=1,
        eos_token_id=2, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(path)
    bare = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    bare.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=bare, bos_token="w1", eos_token="w2").save_pretrained(path)
    return sum(p.numel() for p in model.parameters())


def prompts(count: int, seed: int) -> list[tuple[int, ...]]:
    """Prompts that share no beginning."""
    draw = np.random.default_rng([seed, 7])
    return [tuple(int(t) for t in draw.integers(3, VOCABULARY, PROMPT)) for _ in range(count)]


class Process:
    """One engine: `run(key, tokens, seed)` is a batch of 64 (256 requests in turns for `distinct_256`)."""

    def __init__(self, kind: str, mode: str, path: str) -> None:
        options: dict[str, Any] = {
            "enforce_eager": mode == "eager", "block_size": 32, "max_num_seqs": BATCH, "max_model_len": 256,
            "max_num_batched_tokens": BATCH * PROMPT, "kv_cache_memory_bytes": 1 << 29,
            "worker_extension_cls": "benchmarks.serving.Meter",
        }  # fmt: skip
        self.engine: Any = None
        if kind == "plugin":
            import trimtab

            self.engine = trimtab.load_engine(path, "vllm", bank=2 * DISTINCT, dtype="float32", **options)
            self.loop = self.engine.loop
        else:
            from trimtab.engines.vllm.loop import Loop

            self.loop = Loop()
            self.loop.start(
                {"model": path, "dtype": "float32", "max_logprobs": -1, "disable_log_stats": True, **options},
                lambda config: None,
            )

    def run(self, key: str, tokens: int, seed: int) -> dict[str, Any]:
        """Every step's [cpu, wall, tokens, requests]."""
        count = DISTINCT if key == "distinct_256" else BATCH
        self.loop.call("meter_start")
        texts, fetched = prompts(count, seed), 0.0
        if self.engine is None:
            self._plain(texts, tokens)
        else:
            fetched = self._told(key, texts, tokens)
        (steps,) = self.loop.call("meter_take")
        return {"steps": steps, "fetch_s": fetched}

    def _plain(self, texts: list[tuple[int, ...]], tokens: int) -> None:
        from vllm import SamplingParams

        from trimtab.engines.vllm.loop import Flight

        flight = Flight(
            self.loop,
            [(f"r{i}-{time.monotonic_ns()}", t, SamplingParams(**_params(tokens), detokenize=False))
             for i, t in enumerate(texts)],
        )  # fmt: skip
        left = len(texts)
        while left:
            left -= flight.next()[1].finished

    def _told(self, key: str, texts: list[tuple[int, ...]], tokens: int) -> float:
        """Seconds from the last output of the engine to the last captured row in the reader's hands."""
        from trimtab.engines.vllm.generation import Batch

        orders = [self._order(key, i, t, _params(tokens)) for i, t in enumerate(texts)]
        batch, end = Batch(self.engine, orders), PROMPT + tokens - 1
        try:
            cached = {i: output.num_cached_tokens or 0 for i, output in batch if output.finished}
            start = time.perf_counter()
            for index, order in enumerate(orders):
                batch.whole(index, cached[index], end)
                for site in order.sites:
                    batch.rows(index, site, np.arange(end))
            return time.perf_counter() - start
        finally:
            batch.close()

    def _order(self, key: str, i: int, tokens: tuple[int, ...], params: dict[str, Any]) -> Any:
        from trimtab.engines.vllm.generation import Order
        from trimtab.prompts import Prompt
        from trimtab.sites import Site

        plan: Any = None
        kinds: dict[str, Any] = {}
        if key == "one_vector":
            plan = _add(0, [MIDDLE])
        elif key in ("all_requests_one_layer", "distinct_256"):
            plan = _add(i, [MIDDLE])
        elif key == "all_layers":
            plan = _add(0, range(LAYERS))
        elif key == "capture_1":
            kinds = {"sites": (Site(MIDDLE),), "ranges": ((0, None),)}
        elif key == "fetch_4":
            kinds = {"sites": tuple(Site(layer) for layer in FOUR), "ranges": ((0, None),)}
        elif key == "readout_64":
            kinds = {"readout": _readout()}
        return Order(tokens, self.engine.resolve(plan, Prompt(tokens)), params, **kinds)

    def pickled(self, tokens: int) -> dict[str, float]:
        """Seconds in which the reader has as many rows as `fetch_4` captures out of one pickled RPC."""
        start = time.perf_counter()
        (blob,) = self.loop.call("meter_pickled", BATCH * len(FOUR), PROMPT + tokens - 1)
        pickle.loads(blob)
        return {"fetch_s": time.perf_counter() - start}

    def close(self) -> None:
        """End vLLM."""
        (self.engine or self.loop).close()


def _params(tokens: int) -> dict[str, Any]:
    from vllm.sampling_params import RequestOutputKind

    return {
        "max_tokens": tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "output_kind": RequestOutputKind.FINAL_ONLY,
    }


def _direction(which: int, layer: int) -> Any:
    from trimtab.directions import Direction
    from trimtab.sites import Site

    raw = np.random.default_rng([which, layer]).standard_normal(HIDDEN).astype(np.float32)
    return Direction.from_raw(f"d{which}", Site(layer), raw, typical_norm=20.0, mean=0.0, std=1.0)


def _add(which: int, layers: Any) -> Any:
    from trimtab.interventions import Add
    from trimtab.plans import Placement, SteeringPlan

    return SteeringPlan(tuple(Placement(Add(amount=0.5), _direction(which, n), layers=[n]) for n in layers))


def _readout() -> Any:
    from trimtab.directions import ConceptVectors
    from trimtab.readouts import Readout

    return Readout.from_vectors(
        ConceptVectors.from_directions([_direction(c, MIDDLE) for c in range(CONCEPTS)])
    )


def commands() -> Iterator[dict[str, Any]]:
    """Lines of stdin, until it ends."""
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    """Answer commands; what vLLM prints goes to stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("vanilla", "plugin"))
    parser.add_argument("mode", choices=("compiled", "eager"))
    parser.add_argument("model")
    given = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    process = Process(given.kind, given.mode, given.model)
    try:
        print(json.dumps({"ready": True}), file=answers)
        for c in commands():
            pickled = c["key"] == "pickled"
            found = process.pickled(c["tokens"]) if pickled else process.run(c["key"], c["tokens"], c["seed"])
            print(json.dumps(found), file=answers)
    finally:
        process.close()


if __name__ == "__main__":
    main()
