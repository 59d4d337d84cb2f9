"""What steering costs per layer and decode step: `python -m benchmarks.kernel --json` prints one line.

A block of a model in decode passes on states [8, 1, 512]. Measured is a bare module call, then the same call with
an idle station, with an `Add` of a different vector per row, and with the general kernel (gain, bounds, shift and
strength of its own per row); reported are the differences to the bare call in microseconds. Time is the process's CPU
time, the four cases take turns, and numbers are medians over many rounds, so that other work disturbs little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch

from trimtab.directions import content_hash
from trimtab.engines.transformers.schedule import Schedule
from trimtab.engines.transformers.stations import Station, install, running
from trimtab.engines.transformers.taps import Tap
from trimtab.interventions import Coefficients
from trimtab.resolved import ResolvedPlacement, ResolvedPlan
from trimtab.sites import Site

BATCH, WIDTH = 8, 512
SITE = Site(0)
TARGETS = {"idle_us": 1.5, "add_us": 3.5, "general_us": 13.0}


class Block(torch.nn.Module):
    """Passes on states that it made itself, as a block does, at no cost of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.states = torch.randn(BATCH, 1, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Always the same states; edits of a few rounds do not take them anywhere."""
        return self.states


def plan(row: int, coefficients: Coefficients) -> ResolvedPlan:
    """One placement along a vector of this row's own."""
    vector = np.random.default_rng(row).standard_normal(WIDTH).astype(np.float32)
    vector /= np.linalg.norm(vector)
    name = content_hash(vector)
    return ResolvedPlan((ResolvedPlacement(SITE, name, coefficients, ((0, None),)),), {name: vector})


def case(coefficients: Any) -> tuple[Block, Any]:
    """A block with a station, and the context in which the station acts."""
    block = Block()
    tap = Tap(SITE, block, "output", None, WIDTH, 0, torch.device("cpu"), torch.float32)
    station = Station(tap)
    install(station)
    if coefficients is not None:
        schedule = Schedule({SITE: station}, [plan(b, coefficients(b)) for b in range(BATCH)])
        schedule.step(np.full(BATCH, 10), {})
    return block, running([station])


def seconds(block: Block, calls: int) -> float:
    """CPU time of one call."""
    x = block.states
    start = time.process_time()
    for _ in range(calls):
        block(x)
    return (time.process_time() - start) / calls


def measure(rounds: int, calls: int) -> dict[str, Any]:
    """Medians of the extra cost of each case, in microseconds, with quartiles."""
    torch.set_num_threads(1)
    cases: dict[str, tuple[Block, Any]] = {
        "idle_us": case(None),
        # The signs cancel over two rows, and a tiny amount keeps the states where they are.
        "add_us": case(lambda b: Coefficients(shift=1e-6 * (b + 1))),
        "general_us": case(lambda b: Coefficients(1 - 1e-6 * b, -50.0 - b, 50.0 + b, 1e-6 * b, 0.5)),
    }
    bare = Block()
    found: dict[str, list[float]] = {name: [] for name in (*cases, "bare_us")}
    with torch.inference_mode():
        for block in (bare, *(b for b, _ in cases.values())):
            block.states = block.states.clone()
        for number in range(rounds + 5):
            base = seconds(bare, calls) * 1e6
            costs = {"bare_us": base}
            for name, (block, active) in cases.items():
                if number == 0:
                    active.__enter__()
                costs[name] = seconds(block, calls) * 1e6 - base
            if number >= 5:
                for name, value in costs.items():
                    found[name].append(value)
    medians = {name: round(statistics.median(v), 3) for name, v in found.items()}
    spread = {
        name: [round(float(q), 3) for q in np.percentile(v, [5, 25, 75, 95])] for name, v in found.items()
    }
    return {
        **medians,
        "detail": {
            "batch": BATCH,
            "width": WIDTH,
            "dtype": "float32",
            "rounds": rounds,
            "calls": calls,
            "spread_5_25_75_95": spread,
            "targets": TARGETS,
            "met": {name: medians[name] <= limit for name, limit in TARGETS.items()},
            "torch": torch.__version__,
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; the exit code is 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.kernel", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args(arguments)
    found = measure(options.rounds, options.calls)
    if options.json:
        print(json.dumps(found))
    else:
        for name, limit in TARGETS.items():
            print(f"{name:12} {found[name]:7.2f}  (target {limit})")
    return 0 if all(found["detail"]["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
