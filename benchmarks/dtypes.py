"""What 16 bits change, and whether it matters which engine a vector came from: `python -m benchmarks.dtypes --json`
prints one line.

For bfloat16 and float16, on the embedded model:

* *States*: resid_post of every layer on the neutral texts, by Transformers and by vLLM, against Transformers in
  float32. The error of a token is |x − x32| / |x32|; of a text, the median over its tokens without the first; intervals
  are over texts.
* *Dose response*: the honesty direction, extracted by Transformers and by vLLM in that format, steers vLLM; what is
  measured is log p(honest) − log p(lie) on the held-out dilemmas, paired by dilemma. A reason for a gap is tried by
  vectors that were extracted without it, by both engines.

An engine's own noise is what changes when it does the same again in reverse order, so that other texts share its
batches. A gap between the engines counts where its interval leaves 0 out and it is larger than that noise. Every gap is
printed, and each that counts with its reasons; exit 1 where one has none.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from benchmarks.rounding import Fused, Rounded, States, errors, rounded, states_of

from trimtab import embedded
from trimtab.data.contrast import Contrast
from trimtab.demo.materials import Dilemma, Materials
from trimtab.demo.settings import DemoSettings
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines import load_engine
from trimtab.engines.base import Engine
from trimtab.evaluation.log_ratio import Choice, measure
from trimtab.evaluation.statistics import Estimate, mean_interval, paired_difference
from trimtab.plans import SteeringPlan
from trimtab.recipes import extract
from trimtab.sites import Site

DTYPES, DOSES, LAYER = ("bfloat16", "float16"), (-0.6, -0.3, 0.3, 0.6), 3
VLLM: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 32, "max_num_batched_tokens": 1024}
#: A gap that is left after its known cause is taken away, as a share of it, is another gap.
LEFT = 0.25
#: Known causes, as they are printed.
STORED = "the rounding of a stored state"
INSIDE = "the roundings of sums before norms, and within turned queries and keys, too"
EXTRACTED = "16 bits while extracting"


@dataclass(frozen=True)
class Gap:
    """A difference between engines beside what one engine differs from itself, over the same items. `left` is what
    remains of it, as a share, after each reason in turn is taken away."""

    what: str
    gap: Estimate
    noise: Estimate
    left: dict[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether it is more than noise."""
        found = self.gap.low > 0 or self.gap.high < 0
        own = max(abs(self.noise.mean), abs(self.noise.low), abs(self.noise.high))
        return bool(found and abs(self.gap.mean) > own)

    @property
    def explained(self) -> bool:
        """Whether little is left of it."""
        return abs(min(self.left.values(), key=abs, default=1.0)) <= LEFT

    def __str__(self) -> str:
        g, n = self.gap, self.noise
        head = f"{self.what}: {g.mean:+.3g} [{g.low:+.3g}, {g.high:+.3g}], one engine's own {n.mean:+.2g}"
        if not self.counts:
            return f"{head}: no more than noise"
        reasons = "; ".join(f"{100 * share:.0f} % left without {name}" for name, share in self.left.items())
        return f"{head}: {reasons or 'no reason is known'}"

    def to_json(self) -> dict[str, Any]:
        """Numbers, and whether it counts and is explained."""
        return {**asdict(self), "counts": self.counts, "explained": self.explained}


def compare_states(
    hf: States, fused: States, runs: tuple[States, States], truth: States, dtype: str
) -> tuple[dict[str, Any], list[Gap]]:
    """Errors per layer of each; vLLM's minus Transformers', and what is left of that without the reasons."""
    found = {
        "transformers": errors(hf, truth),
        "transformers, fused": errors(fused, truth),
        "vllm": errors(runs[0], truth),
        "vllm, rounded": errors(rounded(runs[0], dtype), truth),
    }
    theirs, ours, again = found["transformers"], found["vllm"], errors(runs[1], truth)
    gaps = []
    for n in range(theirs.shape[1]):
        gap = paired_difference(ours[:, n], theirs[:, n])
        whole = [x[:, n] for x in (found["vllm, rounded"], theirs, found["transformers, fused"])]
        total = gap.mean or 1.0
        left = {
            STORED: float((whole[0] - whole[1]).mean() / total),
            INSIDE: float((whole[0] - whole[2]).mean() / total),
        }
        noise = paired_difference(again[:, n], ours[:, n])
        gaps.append(Gap(f"{dtype}, error of states after layer {n}", gap, noise, left))
    layers = {k: [asdict(mean_interval(x[:, n])) for n in range(x.shape[1])] for k, x in found.items()}
    return layers, gaps


def curve(
    engine: Engine, vectors: ConceptVectors, items: Sequence[Dilemma], backwards: bool = False
) -> np.ndarray:
    """Signed log-ratios [doses, dilemmas]."""
    order = -1 if backwards else 1
    choice = Choice.of(engine, items[0].messages)
    prompts = [engine.encode(list(d.messages)) for d in items][::order]
    signs, found = np.array([d.sign for d in items]), []
    for dose in DOSES:
        plan = SteeringPlan.add(vectors, dose=dose, layers=[LAYER])
        found.append(measure(engine, prompts, choice, plan).log_ratio[::order] * signs)
    return np.array(found)


def turned(contrast: Contrast) -> Contrast:
    """The same pairs in reverse order."""
    return replace(
        contrast,
        positive=contrast.positive[::-1],
        negative=contrast.negative[::-1],
        groups=contrast.groups[::-1],
    )


@dataclass(frozen=True, eq=False)
class Theirs:
    """What Transformers makes of it in one format: states and the vector, also where it rounds as vLLM does."""

    plain: States
    fused: States
    vectors: ConceptVectors
    fused_vectors: ConceptVectors

    @classmethod
    def of(cls, dtype: str, materials: Materials) -> Theirs:
        """Load the model and measure."""
        engine: Any = load_engine("embedded", "transformers", dtype=dtype)
        plain, vectors = states_of(engine), honesty(engine, materials)
        with Fused(engine.model):
            return cls(plain, states_of(engine), vectors, honesty(engine, materials))


def honesty(engine: Engine, materials: Materials) -> ConceptVectors:
    """The direction at one layer."""
    return extract(engine, [materials.honesty], layers=[LAYER])


def compare_vectors(
    theirs: Theirs, engine: Engine, materials: Materials, exact: dict[str, ConceptVectors]
) -> tuple[dict[str, Any], list[Gap]]:
    """Both engines' vectors steer vLLM; `exact` are those that they extract in float32."""
    vectors = {
        "transformers": theirs.vectors,
        "transformers, fused": theirs.fused_vectors,
        "vllm": honesty(engine, materials),
        "vllm, again": extract(engine, [turned(materials.honesty)], layers=[LAYER]),
        **exact,
    }
    with Rounded(engine):
        vectors["vllm, rounded"] = honesty(engine, materials)
    curves = {n: curve(engine, v, materials.held_out, n == "vllm, again") for n, v in vectors.items()}
    reasons = {
        STORED: ("transformers", "vllm, rounded"),
        INSIDE: ("transformers, fused", "vllm, rounded"),
        EXTRACTED: tuple(exact),
    }
    gaps = []
    for i, dose in enumerate(DOSES):
        gap = paired_difference(curves["transformers"][i], curves["vllm"][i])
        gaps.append(
            Gap(
                f"{engine.info.dtype}, dose response at {dose:+g}",
                gap,
                paired_difference(curves["vllm, again"][i], curves["vllm"][i]),
                {
                    why: float((curves[a][i] - curves[b][i]).mean() / (gap.mean or 1.0))
                    for why, (a, b) in reasons.items()
                },
            )
        )
    ours = vectors["vllm"].direction("honest", Site(LAYER))
    others = {n: v.direction("honest", Site(LAYER)) for n, v in vectors.items() if n != "vllm"}
    told = {
        "doses": DOSES,
        "dose_response": {n: [asdict(mean_interval(row)) for row in x] for n, x in curves.items()},
        "one_minus_cosine": {n: _apart(d, ours) for n, d in others.items()},
        "typical_norm_ratio": {n: _ratio(d, ours) for n, d in others.items()},
    }
    return told, gaps


def _apart(a: Direction, b: Direction) -> float:
    return float(1.0 - a.unit.astype(np.float64) @ b.unit.astype(np.float64))


def _ratio(a: Direction, b: Direction) -> float:
    assert a.typical_norm is not None and b.typical_norm is not None
    return a.typical_norm / b.typical_norm


def run(
    dtype: str, truth: States, materials: Materials, theirs: Theirs, exact: dict[str, ConceptVectors]
) -> tuple[dict[str, Any], list[Gap]]:
    """vLLM in one format, beside what Transformers made of it."""
    engine = load_engine("embedded", "vllm", dtype=dtype, **VLLM)
    try:
        print(f"{dtype}: states", file=sys.stderr, flush=True)
        runs = states_of(engine), states_of(engine, backwards=True)
        layers, gaps = compare_states(theirs.plain, theirs.fused, runs, truth, dtype)
        print(f"{dtype}: dose response", file=sys.stderr, flush=True)
        vectors, more = compare_vectors(theirs, engine, materials, exact)
    finally:
        engine.close()
    return {"error_of_states": layers, **vectors}, [*gaps, *more]


def study(dtypes: Sequence[str]) -> dict[str, Any]:
    """All formats."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # the result alone goes to stdout
    materials = Materials.read(embedded.data("pairs.jsonl").parent, DemoSettings())
    engine = load_engine("embedded", "transformers", dtype="float32")
    truth, exact = states_of(engine), {"transformers, float32": honesty(engine, materials)}
    engine = load_engine("embedded", "vllm", dtype="float32", **VLLM)
    try:
        exact["vllm, float32"] = honesty(engine, materials)
    finally:
        engine.close()
    found, gaps = {}, []
    for dtype in dtypes:
        found[dtype], more = run(dtype, truth, materials, Theirs.of(dtype, materials), exact)
        gaps += more
    for gap in gaps:
        print(gap, file=sys.stderr)
    counting = [g for g in gaps if g.counts]
    return {
        "gaps": len(counting),
        "unexplained": [g.what for g in counting if not g.explained],
        "detail": {
            **found,
            "texts": len(truth),
            "dilemmas": len(materials.held_out),
            "gaps": [g.to_json() for g in gaps],
        },
    }


def main() -> None:
    """Print the result; exit 1 where a gap has no reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line instead of a table")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="one format only [default: both]")
    given = parser.parse_args()
    found = study(given.dtype or DTYPES)
    print(json.dumps(found) if given.json else json.dumps(found, indent=1))
    if found["unexplained"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
