"""Write the model card from measured numbers: ``python -m embedded.card`` reads ``embedded/results/``.

``seed-0.json`` are the numbers of the weights in the package; the others, of other runs, say how much they vary.
"""

from __future__ import annotations

import json
from pathlib import Path

from embedded.export import PACKAGE, place

RESULTS = Path(__file__).parent / "results"
SHIPPED = "seed-0.json"

HEAD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# The embedded model of trimtab

A causal language model of {parameters:.2f} million parameters (Qwen3 architecture, bf16, {megabytes:.1f} MB) for demos,
documentation and tests: small enough to ship, with concepts that can be read from its activations and steered.
It was trained from scratch by the scripts in `embedded/` on {tokens:.1f} million tokens of text that the same scripts
generate. No downloaded text and no downloaded weights were used.

Its world: people, places, fourteen topics, five emotions (happy, sad, angry, afraid, calm) shown more often by
behaviour than by name, honest and lying speakers, formal and casual register, a neutral default.

**It knows nothing else.** It cannot answer questions about the real world, follow instructions, or stay on a subject
for long; ask it about its day. All numbers below come from text, prompts and classifiers made by one generator: they
say that the concepts are there and move, and nothing about other models or about human judgement.

## Use

Chat template: ChatML with the roles system, user and assistant. Sample at temperature 0.8, top-p 0.95; an answer ends
with `<|im_end|>`, a plain story with `<|endoftext|>`.
"""


def emotion_table(emotions: dict) -> str:
    """Dose response, random directions and persona prompts of every emotion."""
    doses = list(next(iter(emotions["by_emotion"].values()))["curve"])
    lines = [
        "| emotion | " + " | ".join(doses) + " | random 95 % | persona | persona, other wording |",
        "| --- |" + " --- |" * (len(doses) + 3),
    ]
    for name, row in emotions["by_emotion"].items():
        cells = [f"{cell['p']:.2f} ({cell['coherence']:.2f})" for cell in row["curve"].values()]
        quantile = row["random_q95"]
        ends = [
            "-" if quantile is None else f"{quantile:.2f}",
            f"{row['persona']['p']:.2f} ({row['persona']['coherence']:.2f})",
            f"{row['persona_held_out_wording']['p']:.2f}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells + ends) + " |")
    return "\n".join(lines)


def honesty_table(honesty: dict) -> str:
    """Held-out dilemmas under every condition."""
    rows = {
        "no persona": honesty["default"],
        "honest persona": honesty["honest"],
        "lying persona": honesty["liar"],
    }
    for layer, curve in honesty["mean_difference"].items():
        rows |= {f"mean difference, layer {layer}, x {dose}": row for dose, row in curve.items()}
    for layer, curve in honesty["trained"].items():
        rows |= {f"trained vector, layer {layer}, x {dose}": row for dose, row in curve.items()}
    lines = [
        "| condition | signed log ratio | accuracy | coherence of free text |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        lines.append(f"| {name} | {row['signed']:+.2f} | {row['accuracy']:.2f} | {row['coherence']:.2f} |")
    return "\n".join(lines)


def seed_row(name: str, result: dict) -> str:
    """One trained model in one line."""
    emotions, honesty = result["emotions"], result["honesty"]
    rows = emotions["by_emotion"].values()
    best = [row["best"]["p"] for row in rows]
    noise = max(row["random_q95"] or 0.0 for row in rows)
    layer, learned = min(honesty["trained"].items(), key=lambda item: item[1]["-1.0"]["accuracy"])
    cells = [
        name,
        f"{result['held_out']['loss']:.3f}",
        f"{100 * result['neutral_share']:.0f} %",
        f"{emotions['unsteered_coherence']:.3f}",
        f"{sum(best) / len(best):.2f} ({min(best):.2f} to {max(best):.2f})",
        f"{noise:.2f}",
        f"{emotions['steered_minus_persona']['mean']:+.2f}",
        f"{honesty['default']['accuracy']:.2f}, {honesty['liar']['accuracy']:.2f}",
        f"{learned['1.0']['accuracy']:.2f}, {learned['-1.0']['accuracy']:.2f} (layer {layer})",
    ]
    return "| " + " | ".join(cells) + " |"


def seeds_section(results: list[dict]) -> str:
    """The same figures for every training seed; with one seed, that nothing is known about others."""
    if len(results) < 2:
        return "Other seeds were not trained: how much the numbers vary between seeds is not known."
    heads = (
        "run", "held-out loss", "neutral", "coherence", "steered, best coherent dose (least to most)", "random 95 %",
        "minus persona", "honesty: default, liar persona", "learned vector: +1, -1",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " --- |" * (len(heads) - 1)]
    return "\n".join(
        [
            "Another seed (weights, noise) on the same text, with shorter later stages and less weight on honesty",
            "(the mixes before the present ones). Posteriors are means over the five emotions, honesty is accuracy on",
            "held-out dilemmas, which varies most between runs.",
            "",
            *lines,
            *(
                seed_row(f"seed {r['training']['seed']}{'' if i else ', shipped'}", r)
                for i, r in enumerate(results)
            ),
        ]
    )


def card(results: list[dict], megabytes: float) -> str:
    """The whole card; the first result is the shipped model's."""
    result = results[0]
    training, emotions = result["training"], result["emotions"]
    head = HEAD.format(
        parameters=training["parameters"] / 1e6, megabytes=megabytes, tokens=training["tokens"] / 1e6
    )
    stages = training["stage_steps"]
    kinds = ", ".join(f"{kind} {loss:.2f}" for kind, loss in result["held_out"]["by_kind"].items())
    novelty = result.get("novelty", {}).get("unseen_masked")
    return f"""{head}
## Numbers

The shipped model is seed {training["seed"]}: 4096 tokens a step, in four stages, {stages[0]} steps on the broad
mix, {stages[1]} on a mix that is mostly about feelings and honesty, {stages[2]} and {stages[3]} on mixes that
restore the neutral default, from start to end in one run on one thread.

- Held-out loss: {result["held_out"]["loss"]:.3f} nats per token ({kinds}).
- Held-out sentences never seen in the training text once names, pronouns, numbers, dates and topic nouns are
  replaced by class tags: {"not measured" if novelty is None else f"{100 * novelty:.1f} %"}.
- Unsteered samples (no system prompt) that the classifier calls neutral: {100 * result["neutral_share"]:.0f} % of 200.
- Coherence of unsteered samples (1 - share of word trigrams absent from 100,000 reference documents):
  {emotions["unsteered_coherence"]:.3f}.

### Other runs

{seeds_section(results)}

### Emotions

Mean posterior of the emotion over {result["samples_per_cell"]} sampled answers to prompts in held-out wordings, with
coherence in parentheses. Columns: total dose of the mean-difference direction, a quarter of it at each of layers
1 to 4 in units of the length of the layer's mean neutral state. (`trimtab demo` counts in typical token norms,
which are longer: the same displacement is a smaller number there.) The direction comes from 100 pairs of personas
before the same neutral answer. "Random" is the 95 % quantile over random directions at the best coherent dose; and
"persona" is "You feel happy." and the like as a system message.

{emotion_table(emotions)}

Best coherent dose minus persona prompt, mean over emotions: {emotions["steered_minus_persona"]["mean"]:+.2f}
({", ".join(f"{gap:+.2f}" for gap in emotions["steered_minus_persona"]["each"])}).

### Honesty

Held-out yes/no dilemmas (pairs of words that training never combined); the signed log ratio is
log P(Yes) - log P(No) with the sign of the honest answer. The mean difference is taken over the question's tokens under
honest and lying personas; the trained vector has as many numbers as the model is wide.

{honesty_table(result["honesty"])}

## Limits

- The later training stages, the grid of doses and the layers of the honesty vectors were chosen after seeing results
  on the same evaluation prompts and held-out dilemmas; expect slightly worse numbers on fresh ones.
- In-distribution throughout: generator, prompts, classifier and coherence measure share one vocabulary.
- Sentences are grammatical for the most part; joined clauses are often unrelated, and names and pronouns can swap.
- The classifier sees short texts; its posterior is calibrated on generator text, not on steered text.
- Outside the questions that the generator asks, answers are arbitrary.
- Without a persona about one answer in four still shows an emotion.
- Within the coherent range, steering at layers 1 to 4 stays somewhat below the persona prompt.
- The difference of means only weakens and strengthens honesty; it takes a trained vector, and layer 1, to turn the
  speaker into a liar.
"""


def main() -> None:
    """Write ``model/README.md``."""
    files = [RESULTS / SHIPPED, *sorted(p for p in RESULTS.glob("seed-*.json") if p.name != SHIPPED)]
    results = [json.loads(p.read_text()) for p in files]
    size = sum(p.stat().st_size for p in (PACKAGE / "model").iterdir() if p.suffix != ".md") / 1e6
    draft = PACKAGE / ".card.md"
    draft.write_text(card(results, size))
    place(draft, PACKAGE / "model" / "README.md")


if __name__ == "__main__":
    main()
