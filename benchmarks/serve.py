"""What trimtab costs a vLLM worker on a CPU: `python -m benchmarks.serve --json` prints one line.

The seven top-level numbers are vanilla ÷ plugin of the worker's CPU seconds per decode step (1 = free), compiled, 64
requests of a random Llama of 87M weights. Of every key, the vanilla process and the plugin's run the same batch by
turns; a repetition's ratio is that of the two medians over steps, and the number is the median over repetitions. The
processes start in both orders. `one_vector`: every request adds the same vector at one layer;
`all_requests_one_layer`: a vector of its own; `all_layers`: one vector at each layer; `distinct_256`: 256 requests
with a vector each, 64 at a time; `readout_64`: 64 concepts at one layer, every token; `capture_1`: every state of one
layer. Wall ratios, eager ratios and spread stand in `detail`, and `fetch_4`: the seconds from the last output to the
last row of four captured layers, beside the same rows in one pickled RPC.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.serving import BATCH, KEYS, save_model

ROOT = Path(__file__).parent.parent
GOALS = {
    "idle": 0.99,
    "one_vector": 0.97,
    "all_requests_one_layer": 0.97,
    "all_layers": 0.97,
    "distinct_256": 0.95,
    "readout_64": 0.97,
    "capture_1": 0.95,
    "fetch_4": 5.0,
}
FETCHED = 32


class Engine:
    """A child process with an engine in it."""

    def __init__(self, kind: str, mode: str, model: str, log: Path) -> None:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            # Nothing but trimtab, or nothing at all.
            "VLLM_PLUGINS": "trimtab" if kind == "plugin" else "",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.name, self.log = f"{kind} {mode}", log.open("ab")
        self.child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving", kind, mode, model],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            start_new_session=True,
        )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        """The next line of the child."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.name} process ended; its output is in {self.log.name}")
        return json.loads(line)

    def ask(self, key: str, tokens: int, seed: int) -> dict[str, Any]:
        """Run a batch."""
        assert self.child.stdin is not None
        print(json.dumps({"key": key, "tokens": tokens, "seed": seed}), file=self.child.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        """Let the child end by itself."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        try:
            self.child.wait(timeout=120)
        except subprocess.TimeoutExpired:  # it is still loading, because another one failed
            os.killpg(self.child.pid, signal.SIGKILL)
        self.log.close()


def decoding(answer: dict[str, Any], which: int) -> float:
    """The median of a batch's decode steps, in which every slot is taken: 0 for CPU seconds, 1 for wall."""
    return statistics.median(s[which] for s in answer["steps"] if s[2] == s[3] == BATCH)


def whole(answer: dict[str, Any]) -> float:
    """CPU seconds of every step of a batch: prompts, arrivals and half-full steps too."""
    return sum(s[0] for s in answer["steps"])


def compare(
    engines: dict[str, Engine], repeats: int, tokens: int, turn: int, until: float
) -> list[dict[str, Any]]:
    """One row for each key and repetition, the two engines by turns, whoever is first changing each time. No repetition
    begins after `until`, but one is always made."""
    for engine in engines.values():
        engine.answer()  # it is loaded
    for engine in engines.values():
        for key in ("idle", "all_layers"):
            engine.ask(key, 3, 0)
    rows: list[dict[str, Any]] = []
    for repeat in range(repeats):
        if repeat > 0 and time.perf_counter() > until:
            break
        for place, key in enumerate(KEYS):
            order = sorted(engines, reverse=bool((turn + repeat + place) % 2))
            long = tokens if key != "distinct_256" else max(8, tokens // 2)  # four times as many requests
            got = {k: engines[k].ask(key, long, 100 * repeat + place + 1000 * (turn + 1)) for k in order}
            plain, told = got["vanilla"], got["plugin"]
            rows.append({
                "key": key,
                "cpu": decoding(plain, 0) / decoding(told, 0),
                "wall": decoding(plain, 1) / decoding(told, 1),
                "run": whole(plain) / whole(told),
                "vanilla_ms": decoding(plain, 0) * 1e3,
            })  # fmt: skip
            print(f"{', '.join(e.name for e in engines.values())}: {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def fetches(engine: Engine, repeats: int) -> dict[str, list[float]]:
    """Seconds of our way and of the pickled one, by turns."""
    found: dict[str, list[float]] = {"fetch_4": [], "pickled": []}
    for repeat in range(repeats):
        for key, times in found.items():
            times.append(engine.ask(key, FETCHED, 5000 + repeat)["fetch_s"])
    return found


def of(rows: list[dict[str, Any]], key: str, what: str) -> list[float]:
    """A column of one key's rows."""
    return [round(r[what], 4) for r in rows if r["key"] == key]


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and every repetition of the CPU ratio, by key."""
    return {
        key: {what: round(statistics.median(of(rows, key, what)), 4) for what in ("cpu", "wall", "run", "vanilla_ms")}
        | {"repetitions": of(rows, key, "cpu")}
        for key in KEYS
    }  # fmt: skip


def run(repeats: int, tokens: int, eager: bool, minutes: float) -> dict[str, Any]:
    """Two pairs of compiled processes, started in both orders, and one eager pair. Each pair has its share of the
    minutes; on a busy machine they end it before the repetitions are done, and `detail` says how many were made."""
    begun, rows, eagerly, fetched = time.perf_counter(), [], [], {}
    pairs = [
        ("compiled", ("vanilla", "plugin"), (repeats + 1) // 2),
        ("compiled", ("plugin", "vanilla"), repeats // 2),
    ]
    if eager:
        pairs.append(("eager", ("plugin", "vanilla"), max(1, repeats // 2)))
    with tempfile.TemporaryDirectory(prefix="trimtab-serve-") as folder:
        weights = save_model(folder)
        log = Path(folder) / "log"
        for turn, (mode, order, count) in enumerate(pairs):
            engines: dict[str, Engine] = {}
            try:
                for kind in order:
                    engines[kind] = Engine(kind, mode, folder, log)
                until = begun + 60 * minutes * (turn + 1) / len(pairs)
                (eagerly if mode == "eager" else rows).extend(compare(engines, count, tokens, turn, until))
                if turn == 1:
                    fetched = fetches(engines["plugin"], 4)
            except BaseException:
                sys.stderr.write(log.read_text(errors="replace")[-6000:])
                raise
            finally:
                for engine in engines.values():
                    engine.close()
    fetch = summary(fetched)
    found = {key: round(statistics.median(of(rows, key, "cpu")), 4) for key in KEYS}
    return found | {
        "detail": {
            "goals": GOALS,
            "met": {k: v >= GOALS[k] for k, v in (found | {"fetch_4": fetch["pickled_vs_ours"]}).items()},
            "compiled": table(rows),
            "eager": table(eagerly) if eagerly else "not run",
            "fetch_4": fetch,
            "vllm_lens": "not run: it is not installed here",
            "repetitions": len(of(rows, KEYS[0], "cpu")),
            "tokens": tokens,
            "weights": weights,
            "minutes": round((time.perf_counter() - begun) / 60, 1),
        }
    }  # fmt: skip


def fetch_alone() -> dict[str, Any]:
    """`fetch_4` in an eager process of its own: what is compiled has no part in it."""
    with tempfile.TemporaryDirectory(prefix="trimtab-serve-") as folder:
        save_model(folder)
        engine = Engine("plugin", "eager", folder, Path(folder) / "log")
        try:
            engine.answer()
            engine.ask("fetch_4", 3, 0)
            return summary(fetches(engine, 6))
        finally:
            engine.close()


def summary(fetched: dict[str, list[float]]) -> dict[str, Any]:
    """The ratio of medians, and every time."""
    medians = {k: statistics.median(v) for k, v in fetched.items()}
    return {
        "pickled_vs_ours": round(medians["pickled"] / medians["fetch_4"], 2),
        "seconds": {k: [round(x, 5) for x in v] for k, v in fetched.items()},
    }


def main() -> None:
    """Print the result; the exit code is 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line instead of a table")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--no-eager", action="store_true")
    parser.add_argument("--minutes", type=float, default=22.0, help="no repetition begins after these")
    parser.add_argument("--fetch", action="store_true", help="only `fetch_4`")
    given = parser.parse_args()
    if given.fetch:
        print(json.dumps(fetch_alone()))
        return
    found = run(given.repeats, given.tokens, not given.no_eager, given.minutes)
    if given.json:
        print(json.dumps(found))
    else:
        for key in KEYS:
            print(f"{key:24} {found[key]:.3f}  goal {GOALS[key]}")
        print(json.dumps(found["detail"], indent=1))
    raise SystemExit(0 if all(found["detail"]["met"].values()) else 1)


if __name__ == "__main__":
    main()
