"""What the subspace of 95 concepts costs at width 5,120, against one dense eigenproblem per concept.

    python -m benchmarks.subspace --json

Made-up stories: each concept's share a direction of its own, and every story spans its tokens. The base of a concept is
all stories of the others, so that, with S the sum of projectors over a set,
M(own) - M(others) = (1 / n + 1 / m) S(own) - S(all) / m. S(all) is summed once; each concept's top is then found by
Lanczos (`extraction.projectors.top_of`) with a start in the span of its own stories. Both sides are given the spans and
S(all); the dense side forms the difference and calls LAPACK for all its eigenvectors (`numpy.linalg.eigh`), which is
timed for `dense_timed` concepts and multiplied by 95. Wall time; the two answers are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from trimtab.extraction.projectors import span, top_of

TARGET = 50.0


def stories(concepts: int, each: int, tokens: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Orthonormal rows of all stories of each concept [each * tokens, width], and its planted direction."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(concepts):
        t = rng.standard_normal(width)
        t /= np.linalg.norm(t)
        texts = [
            rng.standard_normal((tokens, width)) + 300 * np.outer(rng.standard_normal(tokens), t)
            for _ in range(each)
        ]
        out.append((np.concatenate([span(x)[0] for x in texts]), t))
    return out


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both sides and how far apart their answers are."""
    own = stories(options.concepts, options.stories, options.tokens, options.width)
    started = time.perf_counter()
    everything = np.zeros((options.width, options.width))
    for rows, _ in own:
        everything += rows.T @ rows
    summed = time.perf_counter() - started
    n, m = options.stories, options.stories * (options.concepts - 1)
    share = 1 / n + 1 / m
    tops, started = [], time.perf_counter()
    for rows, _ in own:
        weights = np.full(len(rows), share)
        _, near = top_of(rows, weights, options.k)
        tops.append(top_of(rows, weights, options.k, rest=lambda x: everything @ x / -m, start=near.sum(0)))
    ours = time.perf_counter() - started
    found = [abs(float(vectors[0] @ t)) for (_, vectors), (_, t) in zip(tops, own, strict=True)]
    dense, apart = 0.0, 0.0
    for (rows, _), (values, _) in list(zip(own, tops, strict=True))[: options.dense]:
        started = time.perf_counter()
        exact = np.linalg.eigh(share * (rows.T @ rows) - everything / m)[0]
        dense += time.perf_counter() - started
        apart = max(apart, float(np.abs(exact[::-1][: options.k] - values).max()))
    whole = dense / options.dense * options.concepts
    return {
        "speedup": round(whole / (ours + summed), 1),
        "detail": {
            **{k: getattr(options, k) for k in ("width", "concepts", "stories", "tokens", "k")},
            "ours_s": round(ours, 2),
            "summing_s": round(summed, 2),
            "dense_timed": options.dense,
            "dense_each_s": round(dense / options.dense, 2),
            "dense_extrapolated_s": round(whole, 1),
            "eigenvalues_apart": apart,
            "least_cosine_with_planted": round(min(found), 4),
            "target": TARGET,
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; the exit code is 1 if the target is missed or the answers differ."""
    parser = argparse.ArgumentParser(prog="benchmarks.subspace", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    for name, value in (
        ("width", 5120),
        ("concepts", 95),
        ("stories", 6),
        ("tokens", 32),
        ("k", 5),
        ("dense", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args(arguments)
    found = measure(options)
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))
    return 0 if found["speedup"] >= TARGET and found["detail"]["eigenvalues_apart"] < 1e-10 else 1


if __name__ == "__main__":
    sys.exit(main())
