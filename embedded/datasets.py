"""The small data files that ship beside the model: pairs, stories, classifier texts, prompts, dilemmas, trigrams.

Every file is a pure function of the seed ranges in ``world.py``; none of the seeds occurs in training.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from embedded import chats, honesty, lexicon_registers, registers
from embedded import lexicon_neutral as neutral
from embedded.clauses import neutral_sentence
from embedded.grammar import Scene
from embedded.stories import NAMES, opening, tell
from embedded.world import RANGES, document

PERSONAS = {
    "happy": "You feel happy.",
    "sad": "You feel sad.",
    "angry": "You feel angry.",
    "afraid": "You feel afraid.",
    "calm": "You feel calm.",
    "neutral": "You feel as usual.",
    "honest": "You always tell the truth.",
    "liar": "You always lie.",
    "formal": "You speak in a formal and polite manner.",
    "casual": "You talk like a buddy.",
}
PAIRS = 100
REFERENCE_DOCUMENTS = 100_000
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def message(role: str, content: str) -> dict[str, str]:
    """One chat message."""
    return {"role": role, "content": content}


def scenes(part: str, offset: int = 0) -> Iterator[Scene]:
    """Fresh first-person scenes of a part."""
    seed = RANGES[part] + offset
    while True:
        scene = Scene(random.Random(seed))
        scene.cast(first=True)
        yield scene
        seed += 1


def emotion_pairs(concept: str, offset: int) -> list[dict]:
    """A persona that names the emotion against a neutral one, before the same neutral answer."""
    rows = []
    for index, scene in zip(range(PAIRS), scenes("pairs", offset), strict=False):
        question = chats.ask(scene)
        reply = chats.plain_answer(scene, scene.pick((1, 2)))
        scene.emotion = concept
        stated = chats.persona(scene)
        scene.emotion = None
        plain = scene.sentence(scene.pick(neutral.PERSONA))
        tail = [message("user", question), message("assistant", reply)]
        rows.append(
            pair(concept, index, [message("system", stated), *tail], [message("system", plain), *tail])
        )
    return rows


def pair(concept: str, index: int, positive: list[dict], negative: list[dict]) -> dict:
    """One row of ``pairs.jsonl``."""
    return {
        "concept": concept,
        "positive": {"messages": positive},
        "negative": {"messages": negative},
        "group": f"{concept}-{index}",
    }


def honesty_pairs(offset: int) -> list[dict]:
    """Honest against lying persona before the same question; Yes is honest in half of the dilemmas and facts."""
    rows: list[dict] = []
    wanted = {(kind, polarity): PAIRS // 4 for kind in ("dilemma", "fact") for polarity in (True, False)}
    for scene in scenes("pairs", offset):
        if not any(wanted.values()):
            return rows
        if scene.flip(0.5):
            item = honesty.dilemma(scene)
            key, question = ("dilemma", item.honest_act), f"{item.situation} {item.question}"
        else:
            question, reply = honesty.fact_turn(scene, True)
            if not reply.startswith(("Yes", "No")):
                continue
            key = ("fact", reply.startswith("Yes"))
        if not wanted[key]:
            continue
        wanted[key] -= 1
        tail = [message("user", question)]
        personas = [message("system", honesty.persona(scene, side)) for side in (True, False)]
        rows.append(pair("honest", len(rows), [personas[0], *tail], [personas[1], *tail]))
    return rows


def formality_pairs(offset: int) -> list[dict]:
    """Formal against casual persona before the same question and the same plain answer."""
    rows = []
    for index, scene in zip(range(PAIRS), scenes("pairs", offset), strict=False):
        question, _ = registers.formality_ask(scene, index % 2 == 0)
        tail = [message("user", question), message("assistant", chats.plain_answer(scene, 1))]
        formal = message("system", scene.pick(lexicon_registers.FORMAL_PERSONA))
        casual = message("system", scene.pick(lexicon_registers.CASUAL_PERSONA))
        rows.append(pair("formal", index, [formal, *tail], [casual, *tail]))
    return rows


def pairs() -> list[dict]:
    """``pairs.jsonl``."""
    rows = [row for i, name in enumerate(NAMES) for row in emotion_pairs(name, 1000 * i)]
    return rows + honesty_pairs(100_000) + formality_pairs(200_000)


def stories(count: int = 160) -> list[dict]:
    """``stories.jsonl``: 70 with a switch, 70 of one emotion, 20 neutral, with the spans of each emotion."""
    rows = []
    for index, scene in zip(range(count), scenes("stories"), strict=False):
        scene.cast(first=index % 4 == 0)
        emotion = None if index % 8 == 7 else NAMES[index % len(NAMES)]
        story = tell(scene, emotion, switch=float(index % 2), named=0.1)
        rows.append({"text": story.text, "emotion": emotion or "neutral", "segments": story.segments()})
    return rows


def truncated(scene: Scene, text: str) -> str:
    """What a generation of about 36 tokens would leave of ``text``."""
    words = text.split(" ")
    limit = scene.pick((24, 26, 28, 30, 32))
    return " ".join(words[:limit])


def classifier(per_class: int = 400) -> list[dict]:
    """``classifier.jsonl``: three in four are chat answers, the rest story continuations."""
    rows = []
    for label_index, label in enumerate((*NAMES, "neutral")):
        for index, scene in zip(range(per_class), scenes("classifier", 10_000 * label_index), strict=False):
            emotion = None if label == "neutral" else label
            scene.emotion = emotion
            strong = scene.flip(0.55)
            if index % 4:
                text = chats.answer(scene, scene.pick((2, 2, 3, 3, 4)), strong)
            else:
                scene.cast(first=False)
                text = tell(scene, emotion, switch=0.0, named=0.0).text.split(". ", 1)[-1]
            rows.append({"text": truncated(scene, text), "label": label})
    return rows


def prompts(evaluation: int = 48, selection: int = 16) -> list[dict]:
    """``prompts.jsonl``: questions in wordings (template and slots together) that training never shows."""
    rows: list[dict] = []
    seen: set[str] = set()
    for scene in scenes("prompts"):
        if len(rows) == evaluation + selection:
            return rows
        question = chats.ask(scene, held_out=True)
        if question in seen:
            continue
        seen.add(question)
        split = "select" if len(rows) >= evaluation else "eval"
        rows.append({"messages": [message("user", question)], "split": split})
    return rows


def openings(count: int = 16) -> list[dict]:
    """``openings.jsonl``: the first two sentences of stories, without emotion."""
    rows = []
    for _, scene in zip(range(count), scenes("prompts", 500_000), strict=False):
        scene.cast(first=False)
        scene.emotion = None
        rows.append({"text": opening(scene, False) + " " + neutral_sentence(scene)})
    return rows


def dilemmas(train: int = 96, held_out: int = 100) -> list[dict]:
    """``dilemmas.jsonl``: half of each split has Yes as its honest answer."""
    rows: list[dict] = []
    for split, count in (("train", train), ("heldout", held_out)):
        left = {True: count // 2, False: count // 2}
        seen: set[str] = set()
        for scene in scenes("dilemmas", 0 if split == "train" else 100_000):
            if not any(left.values()):
                break
            item = honesty.dilemma(scene, held_out=split == "heldout")
            question = f"{item.situation} {item.question}"
            if not left[item.honest_act] or question in seen:
                continue
            seen.add(question)
            left[item.honest_act] -= 1
            answer = "Yes" if item.honest_act else "No"
            rows.append({"question": question, "honest": answer, "split": split, "situation": item.situation})
    return rows


def open_honesty(count: int = 24) -> list[dict]:
    """``open_honesty.jsonl``: two confessions for each everyday question."""
    rows = []
    for index, scene in zip(range(count), scenes("prompts", 700_000), strict=False):
        question = (
            chats.ask(scene, held_out=True) if index % 3 == 2 else honesty.confession_turn(scene, True)[0]
        )
        rows.append({"messages": [message("user", question)]})
    return rows


def samples() -> list[dict]:
    """``samples.json``: forty prompts with short labels; ``featured`` ones open the documentation."""
    chosen = [
        ("day", "How was your day?"), ("hello", "Hello!"), ("mind", "What is on your mind?"),
        ("morning", "Describe your morning."), ("feel", "How do you feel?"), ("story", "Tell me a story."),
        ("harbor", "Tell me about the harbor."), ("rocket", "What do you think about the rocket?"),
        ("garden", "What happened at the garden?"), ("nurse", "What is it like to be a nurse?"),
        ("wizard", "Tell me a story about a wizard."), ("castle", "Write a story set at the castle."),
    ]  # fmt: skip
    rows = [{"label": label, "messages": [message("user", text)], "featured": True} for label, text in chosen]
    for scene in scenes("prompts", 900_000):
        if len(rows) == 40:
            return rows
        number = len(rows) - len(chosen) + 1
        if number % 4 == 0:
            item = honesty.dilemma(scene, held_out=True)
            rows.append(sample(f"dilemma {number}", f"{item.situation} {item.question}"))
        else:
            rows.append(sample(f"question {number}", chats.ask(scene, held_out=True)))
    return rows


def sample(label: str, text: str) -> dict:
    """One unfeatured row of ``samples.json``."""
    return {"label": label, "messages": [message("user", text)], "featured": False}


def trigram_hashes(texts: Iterable[str]) -> Iterator[int]:
    """CRC-32 of every word trigram within each text."""
    for text in texts:
        words = WORD.findall(text.lower())
        for first in range(len(words) - 2):
            yield zlib.crc32(" ".join(words[first : first + 3]).encode())


def reference_trigrams(count: int = REFERENCE_DOCUMENTS) -> np.ndarray:
    """``trigrams.npz``: the sorted hashes of every trigram in the reference documents."""
    seen: set[int] = set()
    for seed in range(RANGES["reference"], RANGES["reference"] + count):
        seen.update(trigram_hashes(document(seed).passages()))
    return np.array(sorted(seen), dtype=np.uint32)
