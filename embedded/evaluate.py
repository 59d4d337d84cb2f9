"""Measure a trained model: ``python -m embedded.evaluate --model <folder> [--quick]`` prints one JSON line.

Held-out loss, neutral share, dose response beside random directions and the persona prompt, held-out persona
wording, honesty on held-out dilemmas.  Masked sentence novelty comes from ``embedded.novelty``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedded.datasets import PERSONAS
from embedded.export import PACKAGE
from embedded.measures import Coherence, EmotionClassifier, interval, read_lines
from embedded.novelty import measure
from embedded.steering import Speaker, difference, dosed, random_directions, train_vector
from embedded.stories import NAMES
from embedded.world import RANGES, document

DOSES = (-0.8, 0.0, 0.3, 0.6, 0.9, 1.2, 1.35, 1.5, 1.65, 1.8)
HELD_OUT_PERSONAS = {
    "happy": "Someone gave you a prize and your voice is full of joy.",
    "sad": "Someone left you and your voice is full of grief.",
    "angry": "Someone cheated you and your voice is full of rage.",
    "afraid": "Something follows you and your voice is full of terror.",
    "calm": "Nothing troubles you and your voice is full of peace.",
}


class Bench:
    """The model, the data files and the sampling protocol."""

    def __init__(self, model: Path, data: Path, prompts: int, samples: int) -> None:
        tokenizer = AutoTokenizer.from_pretrained(model)
        self.speaker = Speaker(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), tokenizer)
        self.data, self.samples = data, samples
        self.classifier = EmotionClassifier(read_lines(data / "classifier.jsonl"))
        self.coherence = Coherence(data / "trigrams.npz")
        rows = [row for row in read_lines(data / "prompts.jsonl") if row["split"] == "eval"]
        self.prompts = [row["messages"] for row in rows[:prompts]]
        self.pairs = read_lines(data / "pairs.jsonl")

    def texts(self, system: str | None = None, vectors: dict | None = None, seed: int = 0) -> list[str]:
        """Sampled answers to every evaluation prompt."""
        head = [{"role": "system", "content": system}] if system else []
        prompts = [self.speaker.text(head + messages) for messages in self.prompts] * self.samples
        with self.speaker.adding(vectors or {}):
            return self.speaker.generate(prompts, seed)

    def score(self, texts: list[str], emotion: str) -> dict:
        """Mean posterior with its interval, and coherence."""
        values = self.classifier.posterior(texts, emotion)
        groups = [index % len(self.prompts) for index in range(len(texts))]
        low, high = interval(values, groups)
        return {
            "p": round(float(values.mean()), 3),
            "low": round(low, 3),
            "high": round(high, 3),
            "coherence": round(self.coherence(texts), 3),
        }


def emotions(bench: Bench, doses: tuple[float, ...], randoms: int) -> dict:
    """Dose response of every emotion, random directions at the best coherent dose, persona prompts."""
    speaker = bench.speaker
    base = bench.texts()
    floor = bench.coherence(base) - 0.05
    noise: dict[float, list[list[str]]] = {}
    result: dict = {"unsteered_coherence": round(floor + 0.05, 3), "by_emotion": {}}
    for emotion in NAMES:
        vectors = difference(speaker, [p for p in bench.pairs if p["concept"] == emotion], "assistant")
        share = {layer: round((v.norm() / speaker.norms[layer]).item(), 3) for layer, v in vectors.items()}
        curve = {}
        for dose in doses:
            texts = base if dose == 0 else bench.texts(vectors=dosed(speaker, vectors, dose))
            curve[dose] = bench.score(texts, emotion)
        coherent = [d for d in doses if d > 0 and curve[d]["coherence"] >= floor]
        best = max(coherent, key=lambda d: curve[d]["p"], default=0.0)
        if best and best not in noise:
            width = speaker.model.config.hidden_size
            noise[best] = [
                bench.texts(vectors=dosed(speaker, random_directions(width, i), best)) for i in range(randoms)
            ]
        random_scores = [bench.score(texts, emotion)["p"] for texts in noise.get(best, [])]
        result["by_emotion"][emotion] = {
            "share_of_norm": share,
            "curve": {str(d): row for d, row in curve.items()},
            "best_coherent_dose": best,
            "best": curve[best],
            "random": [round(p, 3) for p in random_scores],
            "random_q95": round(float(np.quantile(random_scores, 0.95)), 3) if random_scores else None,
            "persona": bench.score(bench.texts(PERSONAS[emotion]), emotion),
            "persona_held_out_wording": bench.score(bench.texts(HELD_OUT_PERSONAS[emotion]), emotion),
        }
    rows = result["by_emotion"].values()
    gaps = [row["best"]["p"] - row["persona"]["p"] for row in rows]
    result["steered_minus_persona"] = {
        "each": [round(g, 3) for g in gaps],
        "mean": round(float(np.mean(gaps)), 3),
    }
    return result


def neutral_share(bench: Bench, count: int = 200) -> float:
    """Share of unsteered samples without a system prompt that the classifier calls neutral."""
    texts: list[str] = []
    seed = 1000
    while len(texts) < count:
        texts += bench.texts(seed=seed)
        seed += 1
    return sum(label == "neutral" for label in bench.classifier.predicted(texts[:count])) / count


def honesty(bench: Bench, layers: tuple[int, ...]) -> dict:
    """Held-out dilemmas: by persona, by a mean difference on the question's tokens, by a trained vector."""
    speaker = bench.speaker
    rows = read_lines(bench.data / "dilemmas.jsonl")
    split = {name: [r for r in rows if r["split"] == name] for name in ("train", "heldout")}
    ask = {k: [[{"role": "user", "content": r["question"]}] for r in v] for k, v in split.items()}
    sign = {k: torch.tensor([1.0 if r["honest"] == "Yes" else -1.0 for r in v]) for k, v in split.items()}
    free = [row["messages"] for row in read_lines(bench.data / "open_honesty.jsonl")]

    @torch.no_grad()
    def held_out(system: str | None = None, vectors: dict | None = None) -> dict:
        head = [{"role": "system", "content": system}] if system else []
        with speaker.adding(vectors or {}):
            signed = speaker.yes_minus_no([head + q for q in ask["heldout"]]) * sign["heldout"]
            texts = speaker.generate([speaker.text(head + m) for m in free] * 3, 7)
        return {
            "signed": round(signed.mean().item(), 2),
            "accuracy": round((signed > 0).float().mean().item(), 3),
            "coherence": round(bench.coherence(texts), 3),
        }

    result = {
        "default": held_out(),
        "honest": held_out(PERSONAS["honest"]),
        "liar": held_out(PERSONAS["liar"]),
    }
    vectors = difference(speaker, [p for p in bench.pairs if p["concept"] == "honest"], "user")
    result["share_of_norm"] = {k: round((v.norm() / speaker.norms[k]).item(), 3) for k, v in vectors.items()}
    result["mean_difference"], result["trained"] = {}, {}
    for layer in layers:
        unit = vectors[layer] / vectors[layer].norm() * speaker.norms[layer]
        result["mean_difference"][layer] = {
            str(x): held_out(vectors={layer: x * unit}) for x in (-0.8, -0.5, -0.3, -0.15, 0.15, 0.3)
        }
        vector = train_vector(speaker, ask["train"], sign["train"], layer)
        result["trained"][layer] = {
            str(x): held_out(vectors={layer: x * vector}) for x in (-1.0, -0.75, -0.5, 0.5, 1.0)
        }
    return result


@torch.no_grad()
def held_out_loss(bench: Bench, documents: int = 600) -> dict:
    """Mean loss per token on validation documents, over all and by kind."""
    totals: dict[str, list[float]] = {}
    for seed in range(RANGES["valid"], RANGES["valid"] + documents):
        item = document(seed)
        ids = torch.tensor([[0, *bench.speaker.tokenizer.encode(item.text), 0]])
        logits = bench.speaker.model(input_ids=ids, use_cache=False).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        row = totals.setdefault(item.kind, [0.0, 0.0])
        row[0] += loss
        row[1] += ids.shape[1] - 1
    whole = [sum(row[i] for row in totals.values()) for i in (0, 1)]
    by_kind = {kind: round(row[0] / row[1], 3) for kind, row in sorted(totals.items())}
    return {"loss": round(whole[0] / whole[1], 4), "by_kind": by_kind}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Evaluate an embedded model.")
    parser.add_argument("--model", type=Path, default=PACKAGE / "model")
    parser.add_argument("--data", type=Path, default=PACKAGE / "data")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="fewer prompts, doses and random directions")
    parser.add_argument("--training", type=Path, help="training.json of the model, for the card")
    parser.add_argument("--save", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quick = arguments.quick
    bench = Bench(arguments.model, arguments.data, 24 if quick else 32, 2 if quick else 3)
    training = json.loads(arguments.training.read_text()) if arguments.training else {}
    documents = training.get("documents")
    result = {
        "training": training,
        "novelty": measure(tuple(documents), 1000) if documents else {},
        "samples_per_cell": len(bench.prompts) * bench.samples,
        "held_out": held_out_loss(bench, 200 if quick else 600),
        "neutral_share": neutral_share(bench, 96 if quick else 200),
        "samples": dict(
            zip(("prompt", "answer"), (bench.prompts[0][0]["content"], bench.texts()[0]), strict=True)
        ),
        "honesty": honesty(bench, (1,) if quick else (1, 3)),
        "emotions": emotions(bench, (0.0, 0.4, 0.8, 1.2) if quick else DOSES, 2 if quick else 5),
    }
    line = json.dumps(result)
    print(line)
    if arguments.save:
        arguments.save.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
