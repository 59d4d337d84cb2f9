"""What the subspaces of 95 concepts cost at width 5,120, against one dense eigenproblem per concept.

    python -m benchmarks.subspace --json

Made-up stories: each concept's share a direction of its own, and every story spans its tokens. A concept's negatives
are all stories of the others. Ours is the method as an extraction calls it (`Subspace.fit_site`), from the tokens: it
finds every story's span, sums the projectors of all stories once and solves all concepts together. The dense side is
given the spans and the sum; per concept it forms the difference and calls LAPACK for all its eigenvectors
(`numpy.linalg.eigh`), which is timed for `dense` concepts a round and multiplied by 95. Both sides run in turn,
`repeats` times, in CPU-seconds; `speedup` is the median of the rounds' ratios. The answers are compared every round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import numpy as np

from trimtab.directions import Direction
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.extraction import make
from trimtab.extraction.projectors import span
from trimtab.sites import Site

TARGET = 50.0
#: How far the eigenvalues, which lie between -1 and 1, and |cosines| of the leading vectors may be from the dense ones.
EXACT = 1e-10

Story = list[np.ndarray]


def stories(concepts: int, each: int, tokens: int, width: int) -> tuple[list[Story], np.ndarray]:
    """Tokens [tokens, width] float32 of each concept's stories, and the planted directions [concepts, width]."""
    rng = np.random.default_rng(0)
    planted = rng.standard_normal((concepts, width))
    planted /= np.linalg.norm(planted, axis=1, keepdims=True)

    def story(t: np.ndarray) -> np.ndarray:
        strength = 300 * (rng.standard_normal(tokens) + 0.2)
        return (rng.standard_normal((tokens, width)) + np.outer(strength, t)).astype(np.float32)

    return [[story(t) for _ in range(each)] for t in planted], planted


def evidence_of(told: list[Story]) -> list[Evidence]:
    """Every concept against all the others, as an engine collects it."""
    means = [np.stack([x.mean(0, dtype=np.float64) for x in texts]) for texts in told]
    total, count = sum(m.sum(0) for m in means), sum(len(m) for m in means)
    found = []
    for i, (texts, own) in enumerate(zip(told, means, strict=True)):
        others = tuple(x for j, more in enumerate(told) if j != i for x in more)
        mean = {POSITIVE: own.mean(0), NEGATIVE: (total - own.sum(0)) / (count - len(own))}
        tokens = {POSITIVE: tuple(texts), NEGATIVE: others}
        sizes = {g: len(t) for g, t in tokens.items()}
        variances = {g: np.asarray(own.var(0)) for g in tokens}
        needs = frozenset({"mean", "tokens"})
        found.append(Evidence(Site(0), sizes, mean, variances, tokens=tokens, needs=needs))
    return found


def ours(evidence: list[Evidence], k: int) -> tuple[list[Direction], float]:
    """All directions, and the CPU-seconds that they took."""
    started = time.process_time()
    found = list(make("subspace", k=k).fit_site(evidence, [str(i) for i in range(len(evidence))]))
    return found, time.process_time() - started


def dense(
    told: list[Story], everything: np.ndarray, which: list[int], found: list[Direction], k: int
) -> tuple[float, float, float]:
    """CPU-seconds per concept, and how far eigenvalues and leading vectors are apart."""
    n, m = len(told[0]), len(told[0]) * (len(told) - 1)
    seconds, values_apart, vector_apart = 0.0, 0.0, 0.0
    for i in which:
        rows = np.concatenate([span(x)[0] for x in told[i]])
        started = time.process_time()
        values, vectors = np.linalg.eigh((1 / n + 1 / m) * (rows.T @ rows) - everything / m)
        seconds += time.process_time() - started
        got = found[i].provenance["eigenvalues"]
        values_apart = max(values_apart, float(np.abs(values[::-1][:k] - got).max()))
        basis = found[i].basis
        assert basis is not None
        vector_apart = max(vector_apart, 1 - abs(float(basis[0] @ vectors[:, -1])))
    return seconds / len(which), values_apart, vector_apart


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both sides and how far apart their answers are."""
    told, planted = stories(options.concepts, options.stories, options.tokens, options.width)
    evidence = evidence_of(told)
    everything = np.zeros((options.width, options.width))
    for texts in told:
        rows = np.concatenate([span(x)[0] for x in texts])
        everything += rows.T @ rows
    rounds = []
    for number in range(options.repeats):
        found, seconds = ours(evidence, options.k)
        which = [(number * options.dense + j) % options.concepts for j in range(options.dense)]
        each, values_apart, vector_apart = dense(told, everything, which, found, options.k)
        rounds.append((seconds, each, values_apart, vector_apart))
    ratios = [each * options.concepts / seconds for seconds, each, _, _ in rounds]
    cosines = [abs(float(d.basis[0] @ t)) for d, t in zip(found, planted, strict=True) if d.basis is not None]
    sizes = ("width", "concepts", "stories", "tokens", "k", "repeats", "dense")
    return {
        "speedup": round(statistics.median(ratios), 1),
        "detail": {
            **{name: getattr(options, name) for name in sizes},
            "speedup_of_rounds": [round(r, 1) for r in ratios],
            "ours_cpu_s": [round(r[0], 2) for r in rounds],
            "dense_each_cpu_s": [round(r[1], 2) for r in rounds],
            "eigenvalues_apart": max(r[2] for r in rounds),
            "leading_vector_apart": max(r[3] for r in rounds),
            "least_cosine_with_planted": round(min(cosines), 4),
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
        ("repeats", 3),
        ("dense", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args(arguments)
    found = measure(options)
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))
    exact = found["detail"]["eigenvalues_apart"] < EXACT
    return 0 if found["speedup"] >= TARGET and exact else 1


if __name__ == "__main__":
    sys.exit(main())
