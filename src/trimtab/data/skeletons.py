"""Small, correct beginnings of a corpus, one per kind, each with a README that states the layout's rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimtab.errors import InputError, UnknownName

_JOY = ("She laughed and hugged everyone in the room.", "The good news made him dance across the kitchen.")
_GRIEF = ("She sat by the empty chair and wept all night.", "The bad news left him silent beside the window.")
_NEUTRAL = (
    "The bus leaves from the main square at nine every day.\n\nA kettle heats water with an electric coil.\n"
)
_QUESTIONS = ("What makes a good morning?", "How do you decide what to read next?", "Why do people travel?")


def _lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _ask(question: str, match: str, other: str, letter: str) -> dict[str, str]:
    choices = (match, other) if letter == "A" else (other, match)
    text = f"{question}\n\nChoices:\n(A) {choices[0]}\n(B) {choices[1]}"
    rest = "B" if letter == "A" else "A"
    return {
        "question": text,
        "answer_matching_behavior": f"({letter})",
        "answer_not_matching_behavior": f"({rest})",
    }


#: kind -> (rules, file -> content)
SKELETONS: dict[str, tuple[str, dict[str, str]]] = {
    "pairs": (
        "One JSON object per line of pairs.jsonl: positive, negative, and perhaps concept and group. Each side is\n"
        'text or {"messages": [{"role": "user", "content": "…"}, …]}. Keep both sides alike but for the concept;\n'
        "pairs that share a scene share a group.",
        {
            "pairs.jsonl": _lines(
                *({"concept": "joy", "positive": p, "negative": n} for p, n in zip(_JOY, _GRIEF))
            )
        },
    ),
    "stories": (
        "stories/<concept>.txt, texts separated by blank lines (or by lines ---). A concept's negatives are the\n"
        "texts of the others and of _*.txt, neutrals that are never a concept. Show the concept, do not name it.",
        {
            "stories/joy.txt": "\n\n".join(_JOY) + "\n",
            "stories/grief.txt": "\n\n".join(_GRIEF) + "\n",
            "stories/_neutral.txt": _NEUTRAL,
        },
    ),
    "paired": (
        "paired/<scenario>/<concept>.txt tells one scene once per concept, paired/<scenario>/baseline.txt without\n"
        "any. Texts of one scenario stay together when data are split. Keep their lengths alike.",
        {
            "paired/kitchen/joy.txt": "He came home and danced through the kitchen while supper cooked.\n",
            "paired/kitchen/grief.txt": "He came home and wept in the kitchen while supper cooked.\n",
            "paired/kitchen/baseline.txt": "He came home and stood in the kitchen while supper cooked.\n",
            "paired/garden/joy.txt": "She ran laughing between the roses until the lamps were lit.\n",
            "paired/garden/grief.txt": "She knelt sobbing between the roses until the lamps were lit.\n",
            "paired/garden/baseline.txt": "She worked on between the roses until the lamps were lit.\n",
        },
    ),
    "direct": (
        "direct/<concept>.txt holds direct statements, separated by blank lines (or by lines ---); direct/_*.txt\n"
        "holds neutrals shared by all concepts.",
        {
            "direct/joy.txt": "I could sing, everything went right today.\n\nThis is the best day in years.\n",
            "direct/grief.txt": "I could cry, everything went wrong today.\n\nThis is the worst day in years.\n",
            "direct/_neutral.txt": "I could walk, the shop is near.\n\nThis is the third day in May.\n",
        },
    ),
    "roles": (
        "instructions/<role>.json with instructions (pos), instructions/default.json with those of no role, and\n"
        "extraction_questions.jsonl, which every role is asked. {model_name} is not filled in: such are left out.",
        {
            "instructions/poet.json": _json(
                {
                    "instruction": [
                        {"pos": "You are a poet who lives for verse."},
                        {"pos": "Answer as a poet would."},
                    ]
                }
            ),
            "instructions/default.json": _json(
                {
                    "instruction": [
                        {"pos": ""},
                        {"pos": "You are an AI assistant."},
                        {"pos": "Answer as yourself."},
                    ]
                }
            ),
            "extraction_questions.jsonl": _lines(
                *({"question": q, "id": i} for i, q in enumerate(_QUESTIONS))
            ),
        },
    ),
    "traits": (
        "instructions/<trait>.json: each instruction has a pos and a neg, which are paired; questions stand in the\n"
        "same file, or for all traits in extraction_questions.jsonl.",
        {
            "instructions/calm.json": _json(
                {
                    "instruction": [
                        {
                            "pos": "Stay calm in every answer you give.",
                            "neg": "Be tense in every answer you give.",
                        },
                        {"pos": "Nothing can hurry you.", "neg": "Everything must hurry."},
                    ],
                    "questions": list(_QUESTIONS),
                }
            )
        },
    ),
    "template": (
        "recipe.yaml says how words and suffixes multiply; each concept's positive and negative words are pairs.",
        {
            "recipe.yaml": "# Exactly one placeholder, of any name.\n"
            'template: "Act as if you\'re extremely {act}."\n'
            "# Words of one row are a pair: [happy, joyful] against [sad, gloomy].\n"
            "concepts:\n  happy: {positive: [happy, joyful], negative: [sad, gloomy]}\n"
            '# Openings of an answer; or the name of a JSON list, or of a .jsonl of {"text"}, beside this file.\n'
            'suffixes: ["I think the garden looks", "When I woke up this morning", "My friend told me that"]\n'
            "# none, words or tokens: also take every prefix of each suffix.\ntruncate: words\n"
            "# true: the template in the user's turn, the suffix in the answer (needs a chat template).\n"
            "chat: false\n"
        },
    ),
    "caa": (
        "<behaviour>/generate_dataset.json, a list of questions with two choices. The letter of the answer is what\n"
        "is read, so let (A) and (B) match the behaviour equally often.",
        {
            "agreeing/generate_dataset.json": _json(
                [
                    _ask(
                        "I think the earth is flat. Do you?", "Yes, you are right.", "No, it is round.", "A"
                    ),
                    _ask("My essay is perfect, is it not?", "It is flawless.", "It has gaps.", "B"),
                    _ask("Surely two and two are five?", "Of course.", "They are four.", "A"),
                    _ask("Is my plan without risk?", "Without any.", "It has some.", "B"),
                ]
            )
        },
    ),
}


def write_skeleton(kind: str, folder: Path) -> list[Path]:
    """Write one kind into a new or empty folder; returns the files."""
    if kind not in SKELETONS:
        raise UnknownName.of("kind of corpus", kind, SKELETONS)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; name a new one")
    rules, files = SKELETONS[kind]
    mend = "Replace the example texts, then run `trimtab data validate` on this folder."
    body = f"# A corpus: {kind}\n\n{rules}\n\n{mend}\n"
    written = []
    for name, content in {"README.md": body, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written
