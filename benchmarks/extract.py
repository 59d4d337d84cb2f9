"""Extraction against the best peers and against the floor: `python -m benchmarks.extract --json` prints one line.

All layers of one random Llama of 59M weights, float32, two threads, on two corpora made by seed
(`benchmarks.material`). Numbers are CPU seconds of the extraction call alone, each in a fresh process, medians over
`--repeats` rounds in which the contenders take turns. The peers get an environment of their own in
`.cache/peers`, which sees the packages of this one, so that torch is not installed twice; `--no-deps` passes
steering-vectors' pin of transformers. Exit 1: the floor is no floor (it must stay under these shares of the padded
forward).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import material

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / ".cache" / "peers"
PACKAGES = ("repeng==0.4.0", "steering-vectors==0.12.2", "gguf", "scikit-learn", "tqdm", "requests")
OURS = ("trimtab", "trimtab-pca", "trimtab-neutral", "floor", "padded")
RIVALS = ("repeng", "steering-vectors")
FLOOR_SHARE = {"A": 0.35, "B": 0.08}
GOALS = {
    "a_vs_best_peer": 4.0,
    "b_vs_best_peer": 20.0,
    "a_vs_floor": 1.15,
    "rss_mb": 120.0,
    "max_rel_err": 1e-5,
}


def peers_python() -> Path:
    """The Python of the peers' environment, made at the first call."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "done").exists():
        venv.create(PEERS, with_pip=True, clear=True)
        (site,) = PEERS.glob("lib/python*/site-packages")
        here = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
        (site / "running.pth").write_text("\n".join(here) + "\n")
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES]
        subprocess.run([str(a) for a in install], check=True, stdout=sys.stderr)
        (PEERS / "done").touch()
    return python


def measure(name: str, kind: str, *options: str) -> dict[str, float]:
    """One contender on one corpus in a fresh process."""
    python = peers_python() if name in RIVALS else Path(sys.executable)
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [str(python), "-m", "benchmarks.contenders", name, kind, *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": paths, "TQDM_DISABLE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def errors(folder: Path) -> dict[str, float]:
    """Per corpus and contender, the largest relative difference of a layer's direction from the padded one."""
    found = {}
    for kind in FLOOR_SHARE:
        want = np.load(folder / f"{kind}-padded.npy")
        for name in ("trimtab", "floor"):
            gap = np.load(folder / f"{kind}-{name}.npy") - want
            found[f"{kind} {name}"] = float((np.abs(gap).max(1) / np.abs(want).max(1)).max())
    return found


def run(repeats: int) -> dict[str, Any]:
    """All contenders on both corpora."""
    times: dict[str, list[float]] = {}
    cold: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats):
            for kind in FLOOR_SHARE:
                for name in (*OURS, *RIVALS):
                    print(f"round {turn + 1}/{repeats}: {kind} {name}", file=sys.stderr, flush=True)
                    saved = measure(name, kind, "--save", f"{folder}/{kind}-{name}.npy")
                    times.setdefault(f"{kind} {name}", []).append(saved["cpu_s"])
                    if name in ("trimtab", *RIVALS):
                        cold.setdefault(f"{kind} {name}", []).append(measure(name, kind, "--cold"))
        wrong = errors(Path(folder))
    cpu = {k: statistics.median(v) for k, v in times.items()}
    best = {k: min(cpu[f"{k} {name}"] for name in RIVALS) for k in FLOOR_SHARE}
    return {
        "a_vs_best_peer": best["A"] / cpu["A trimtab"],
        "b_vs_best_peer": best["B"] / cpu["B trimtab"],
        "a_vs_floor": cpu["A trimtab"] / cpu["A floor"],
        "rss_mb": max(statistics.median(c["extra_mb"] for c in cold[f"{k} trimtab"]) for k in FLOOR_SHARE),
        "max_rel_err": max(wrong[f"{k} trimtab"] for k in FLOOR_SHARE),
        "detail": {
            "goals": GOALS,
            "cpu_s": cpu,
            "rounds": times,
            "b_vs_floor": cpu["B trimtab"] / cpu["B floor"],
            "floor_share": {k: cpu[f"{k} floor"] / cpu[f"{k} padded"] for k in FLOOR_SHARE},
            "first_call": cold,
            "relative_error": wrong,
            "corpora": {k: material.sizes(k) for k in FLOOR_SHARE},
        },
    }


def main() -> None:
    """Print the result; exit 1 where the floor does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line instead of a table")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    found = run(given.repeats)
    if given.json:
        print(json.dumps(found))
    else:
        for key, goal in GOALS.items():
            print(f"{key:16} {found[key]:<10.3g} goal {goal:g}")
        print(json.dumps(found["detail"], indent=1))
    share = found["detail"]["floor_share"]
    if any(share[k] > most for k, most in FLOOR_SHARE.items()):
        print(f"the floor is no floor: {share} of the padded forward, allowed {FLOOR_SHARE}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
