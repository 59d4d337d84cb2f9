"""What to type next: the same lines in the terminal and in the report."""

from __future__ import annotations

import shlex

from trimtab.demo.results import DemoResult
from trimtab.engines import DEFAULT


def next_commands(result: DemoResult) -> list[tuple[str, str]]:
    """(why, command) pairs; the first ones work at once, the later ones with a model of one's own."""
    f = result.feelings
    concept = result.settings.emotions[0]
    dose = f.curves[concept].best.dose or 0.6
    layers = ",".join(map(str, f.layers))
    file = shlex.quote(str(result.folder / "feelings.safetensors"))
    question = result.shown.prompts[0][-1]["content"]
    engine = "" if result.engine == DEFAULT else f" --engine {result.engine}"
    return [
        (
            "Steer the same model yourself:",
            f"trimtab generate embedded{engine} --chat --prompt {shlex.quote(question)} \\\n"
            f"  --steer {file}:{concept} --dose {dose:g} --layers {layers} --temperature 0.8",
        ),
        ("See what a vector file holds:", f"trimtab inspect {file}"),
        (
            "Do it with a model of your own. Write contrasting pairs, one per line "
            '({"positive": "…", "negative": "…"}), and extract:',
            f"trimtab extract path/or/hub-id{engine} --data pairs.jsonl --layers all -o mine.safetensors",
        ),
        (
            "Then generate with and without them, in both directions:",
            f'trimtab generate path/or/hub-id{engine} --chat --prompt "Tell me about your day." \\\n'
            "  --steer mine.safetensors --dose 0.4\n"
            f'trimtab generate path/or/hub-id{engine} --chat --prompt "Tell me about your day." \\\n'
            "  --steer mine.safetensors --dose -0.4",
        ),
    ]
