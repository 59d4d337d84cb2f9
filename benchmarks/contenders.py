"""One contender on one corpus in a process of its own: `python -m benchmarks.contenders NAME KIND` prints one line.

Each gets the model, the tokenizer and the texts, and gives one direction per layer. Measured are the CPU seconds (user
and system, all threads) of that call alone, after a first call on a few other texts of the same kind; with `--cold`
there is no first call, and the growth of the resident memory is measured too.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import material

Pairs = list[tuple[str, str]]
Call = Callable[[Pairs], np.ndarray]


def trimtab(model: Any, tokenizer: Any, method: str = "mean_diff") -> Call:
    """Evidence and fit for all layers: what a recipe does, without the neutral texts."""
    from trimtab.engines.collect import Comparison
    from trimtab.engines.transformers import TransformersEngine
    from trimtab.extraction import make
    from trimtab.sites import Site

    engine = TransformersEngine(model, tokenizer, id="benchmark")
    chosen, sites = make(method), [Site(n) for n in range(material.LAYERS)]

    def call(pairs: Pairs) -> np.ndarray:
        prompts = [engine.encode(t) for pair in pairs for t in pair]
        comparison = Comparison(
            tuple(range(0, len(prompts), 2)), tuple(range(1, len(prompts), 2)), paired=True
        )
        (evidence,) = engine.collect(prompts, [comparison], sites, chosen.wanted)
        found = [chosen.fit(evidence[s], "benchmark") for s in sites]
        return np.stack([d.unit * d.norm for d in found])

    return call


def trimtab_pca(model: Any, tokenizer: Any) -> Call:
    """As above by PCA of the differences, which is what repeng computes."""
    return trimtab(model, tokenizer, "pca_diff")


def trimtab_neutral(model: Any, tokenizer: Any) -> Call:
    """What a recipe adds for any number of concepts: typical norms, mean and std over the neutral texts."""
    from trimtab.engines.transformers import TransformersEngine
    from trimtab.recipes.neutral import measure
    from trimtab.sites import Site

    engine = TransformersEngine(model, tokenizer, id="benchmark")
    units = {Site(n): np.ones((1, material.HIDDEN), np.float32) for n in range(material.LAYERS)}

    def call(pairs: Pairs) -> np.ndarray:
        found = measure(engine, units).typical_norms
        return np.array([found[s] for s in units])

    return call


def floor(model: Any, tokenizer: Any) -> Call:
    """See `benchmarks.floor`."""
    from benchmarks.floor import directions

    def call(pairs: Pairs) -> np.ndarray:
        sides = tuple([tuple(tokenizer(t)["input_ids"]) for t in side] for side in zip(*pairs, strict=True))
        return directions(model, sides)  # type: ignore[arg-type]

    return call


def padded(model: Any, tokenizer: Any) -> Call:
    """The plain way without logits: batches of 32 in the order given, padded; the reference for numbers and cost."""
    import torch

    states: list[Any] = []
    for layer in model.model.layers:
        layer.register_forward_hook(
            lambda m, a, out: states.append(out[0] if isinstance(out, tuple) else out)
        )

    @torch.inference_mode()
    def call(pairs: Pairs) -> np.ndarray:
        texts = [t for pair in pairs for t in pair]
        found: Any = 0
        for start in range(0, len(texts), 32):
            batch = tokenizer(texts[start : start + 32], padding=True, return_tensors="pt")
            states.clear()
            model.model(batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
            last = batch["attention_mask"].sum(1) - 1
            picked = torch.stack([h[torch.arange(len(last)), last] for h in states]).double()
            found = found + picked[:, 0::2].sum(1) - picked[:, 1::2].sum(1)
        return found.numpy() / len(pairs)

    return call


def repeng(model: Any, tokenizer: Any) -> Call:
    """Its default: PCA of the differences, batches of 32; asked for every layer, the first too."""
    np.float_ = np.float64  # type: ignore[attr-defined]  # the name that it was written with is gone from numpy 2
    from repeng import ControlVector, DatasetEntry

    def call(pairs: Pairs) -> np.ndarray:
        found = ControlVector.train(
            model, tokenizer, [DatasetEntry(p, n) for p, n in pairs], hidden_layers=range(material.LAYERS)
        )
        return np.stack([found.directions[n] for n in range(material.LAYERS)])

    return call


def steering_vectors(model: Any, tokenizer: Any) -> Call:
    """Its default aggregation, the mean, in batches of 32 (its own default is 1, which costs more)."""
    from steering_vectors import train_steering_vector

    def call(pairs: Pairs) -> np.ndarray:
        found = train_steering_vector(model, tokenizer, pairs, batch_size=32).layer_activations
        return np.stack([found[n].numpy() for n in range(material.LAYERS)])

    return call


CONTENDERS: dict[str, Callable[[Any, Any], Call]] = {
    "trimtab": trimtab,
    "trimtab-pca": trimtab_pca,
    "trimtab-neutral": trimtab_neutral,
    "floor": floor,
    "padded": padded,
    "repeng": repeng,
    "steering-vectors": steering_vectors,
}


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory(field: str) -> float:
    """A line of /proc/self/status in MB: VmRSS is now, VmHWM the peak since it was last reset."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def main() -> None:
    """Run one contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("kind", choices=["A", "B"])
    parser.add_argument("--cold", action="store_true", help="no first call; measure memory")
    parser.add_argument("--save", help="where the directions go (.npy)")
    given = parser.parse_args()
    call = CONTENDERS[given.name](material.model(), material.tokenizer())
    pairs = material.pairs(given.kind)
    if not given.cold:
        call(material.pairs(given.kind, seed=1, small=True))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before, start = memory("VmRSS"), cpu_seconds()
    found = call(pairs)
    result = {"cpu_s": cpu_seconds() - start, "extra_mb": memory("VmHWM") - before}
    if given.save:
        np.save(given.save, found)
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
