"""The door under load: `python -m benchmarks.http --json` prints one line with `throughput_ratio` and `itl_p95_ratio`.

Stock vLLM's server (to which no plugin is known) and the same server with trimtab run side by side on loopback, with
the model of `benchmarks.serve`, compiled, and take turns: `--clients` streams at once, each of `--tokens` tokens from a
prompt of its own. With trimtab every stream also has a plan of its own (its own vector) and a packed reading of 16
concepts. Ratios are medians over `--repeats` rounds, trimtab over stock: throughput is tokens a second, and the gap
between two tokens is that between two server-sent events, as one client process sees them; its share of a processor is
in `detail`. No round begins after `--minutes`, but one is always made. Flags that are not known here are vLLM's.
trimtab must be installed, so that vLLM finds its entry points.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from benchmarks.serving import BATCH, save_model

from trimtab import embedded
from trimtab.directions import ConceptVectors, Direction
from trimtab.server.vllm import starting
from trimtab.sites import Site

CONCEPTS = 16
GOALS = {"throughput_ratio": 0.95, "itl_p95_ratio": 1.1}
#: How both servers run, as `benchmarks.serve` runs its engines; what is given on the command line comes after.
FLAGS = ["--dtype", "float32", "--max-model-len", "256", "--max-num-seqs", str(BATCH), "--block-size", "32"]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Served:
    """A server in a process of its own, with its log."""

    def __init__(self, model: str, flags: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{s.getsockname()[1]}"
        port = self.url.rsplit(":", 1)[1]
        with log.open("w") as out:
            self.process = subprocess.Popen(
                starting.command(model, ["--port", port, "--served-model-name", "model", *FLAGS, *flags]),
                env={**os.environ, **ENVIRONMENT, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it is healthy."""
        while self.process.poll() is None:
            try:
                if httpx.get(self.url + "/health", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        raise SystemExit(f"a server did not start:\n{self.log.read_text(errors='replace')[-6000:]}")

    def close(self) -> None:
        """As an operator ends it; and for good, should it or a worker hang."""
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def vectors(model: Path, count: int) -> ConceptVectors:
    """`count` random concepts at the middle layer; the first ones are read."""
    config = json.loads((model / "config.json").read_text())
    site, random = Site(config["num_hidden_layers"] // 2), np.random.default_rng(0)
    return ConceptVectors.from_directions(
        [
            Direction.from_raw(f"c{i}", site, random.standard_normal(config["hidden_size"]))
            for i in range(count)
        ]
    )


def body(index: int, tokens: int, ours: bool) -> dict[str, Any]:
    """One client's request."""
    asked = {
        "model": "model",
        "prompt": [5 + (7 * index + k) % 400 for k in range(32)],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    if ours:
        asked["steering"] = {"placements": [{"op": "add", "vector": f"c{index}", "scale": 0.01}]}
        asked["readout"] = {"concepts": [f"c{i}" for i in range(CONCEPTS)], "encoding": "float16"}
    return asked


async def one(client: httpx.AsyncClient, asked: dict[str, Any]) -> list[float]:
    """When each event with a token came. What came is looked at when everything has come."""
    came: list[tuple[float, str]] = []
    async with client.stream("POST", "/v1/completions", json=asked) as answer:
        if answer.status_code != 200:
            raise SystemExit((await answer.aread()).decode())
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                came.append((time.perf_counter(), line))
    check([line.removeprefix("data: ") for _, line in came], asked)
    return [when for when, _ in came]


def check(events: list[str], asked: dict[str, Any]) -> None:
    """A stream that was not whole, or not steered and read as asked, is no measurement."""
    if (
        not events
        or '"error"' in events[-1]
        or json.loads(events[-1])["choices"][0]["finish_reason"] != "length"
    ):
        raise SystemExit(f"a stream that is not whole: {events[-1:]}")
    if "readout" not in asked:
        return
    if "steering_applied" not in json.loads(events[-1]):
        raise SystemExit(f"a stream without its receipt: {events[-1]}")
    rows = 0
    for event in events:
        found = json.loads(event)["choices"][0].get("readout")
        if found is None:
            raise SystemExit(f"an event without a reading: {event}")
        rows += found["shape"][0]
    if rows != asked["max_tokens"]:
        raise SystemExit(f"{rows} readings of {asked['max_tokens']} tokens")


async def round_of(url: str, clients: int, tokens: int, ours: bool) -> dict[str, float]:
    """All clients at once."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        start, cpu = time.perf_counter(), time.process_time()
        found = await asyncio.gather(*(one(client, body(i, tokens, ours)) for i in range(clients)))
        wall = time.perf_counter() - start
        gaps = np.concatenate([np.diff(times) for times in found])
        return {
            "tokens_per_s": clients * tokens / wall,
            "itl_p95_ms": 1000 * float(np.quantile(gaps, 0.95)),
            "itl_median_ms": 1000 * float(np.median(gaps)),
            "client_cpu": (time.process_time() - cpu) / wall,
        }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start both, warm both, take turns in both orders."""
    begun = time.perf_counter()
    if options.model is None:
        save_model(str(folder / "model"))
        model = folder / "model"
    else:
        model = embedded.MODEL if options.model == "embedded" else Path(options.model)
    vectors(model, max(options.clients, CONCEPTS)).save(folder / "bench.safetensors")
    ours = {**starting.environment(), "TRIMTAB_READOUT_VECTORS": str(folder / "bench.safetensors")}
    served: dict[str, Served] = {}
    rounds: dict[str, list[dict[str, float]]] = {"stock": [], "trimtab": []}
    try:
        for name, environment in (("stock", {"VLLM_PLUGINS": ""}), ("trimtab", ours)):
            served[name] = Served(str(model), options.flags, environment, folder / f"{name}.log")
            served[name].wait()
            asyncio.run(round_of(served[name].url, options.clients, 8, name == "trimtab"))
        started = time.perf_counter() - begun
        for turn in range(options.repeats):
            if turn and time.perf_counter() - begun > 60 * options.minutes:
                break
            for name in ("stock", "trimtab") if turn % 2 else ("trimtab", "stock"):
                found = round_of(served[name].url, options.clients, options.tokens, name == "trimtab")
                rounds[name].append(asyncio.run(found))
                print(f"{name} {rounds[name][-1]}", file=sys.stderr, flush=True)
    finally:
        for server in served.values():
            server.close()

    def ratio(key: str) -> float:
        a, b = (statistics.median(r[key] for r in rounds[n]) for n in ("trimtab", "stock"))
        return round(a / b, 4)

    return {
        "throughput_ratio": ratio("tokens_per_s"),
        "itl_p95_ratio": ratio("itl_p95_ms"),
        "detail": {
            "model": options.model or "the random Llama of benchmarks.serve", "clients": options.clients,
            "tokens": options.tokens, "concepts": CONCEPTS, "flags": [*FLAGS, *options.flags],
            "client_cpu": statistics.median(r["client_cpu"] for rows in rounds.values() for r in rows),
            "start_s": round(started, 1), "minutes": round((time.perf_counter() - begun) / 60, 1),
            "goals": GOALS, "rounds": rounds,
        },
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder or 'embedded' (the model of benchmarks.serve)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=20.0, help="no round begins after these")
    parser.add_argument("--json", action="store_true")
    options, flags = parser.parse_known_args()  # what is not ours is vLLM's
    options.flags = flags
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    for key, goal in GOALS.items():
        print(f"{key} {result[key]} (goal {goal})", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
