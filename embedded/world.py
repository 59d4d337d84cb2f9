"""Documents: which kind, from which seed, and as which text.

``document(seed)`` is a pure function of its seed.  Seed ranges keep the parts of the project apart: see
``RANGES``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from embedded import chats, honesty, registers
from embedded.grammar import Scene
from embedded.stories import NAMES, tell

MIX = {
    "story": 2.8,
    "feelings": 4.2,
    "story_chat": 1.3,
    "sympathy": 0.55,
    "guess": 0.4,
    "honesty": 4.4,
    "moral": 0.7,
    "facts": 0.3,
    "formality": 0.45,
    "topic": 0.35,
}
FOCUSED_MIX = {
    "story": 1.0,
    "feelings": 6.5,
    "story_chat": 1.2,
    "sympathy": 1.0,
    "guess": 0.8,
    "honesty": 7.0,
    "moral": 0.3,
    "formality": 0.3,
    "topic": 0.1,
}
BALANCED_MIX = {
    "story": 1.6,
    "feelings": 8.0,
    "story_chat": 1.0,
    "sympathy": 0.4,
    "guess": 0.3,
    "honesty": 6.5,
    "moral": 0.3,
    "formality": 0.4,
    "topic": 0.2,
}
NEUTRAL_STORY = 0.62
CHATS: dict[str, Callable[[Scene], chats.Chat]] = {
    "feelings": chats.feelings,
    "story_chat": chats.story_chat,
    "sympathy": chats.sympathy,
    "guess": chats.guess,
    "honesty": honesty.honesty_chat,
    "moral": honesty.moral_chat,
    "formality": registers.formality_chat,
    "topic": registers.topic_chat,
}
# First seed of each part; a part takes as many seeds as it needs, none near the next one.
RANGES = {
    "tokenizer": 10_000_000,
    "reference": 20_000_000,
    "classifier": 30_000_000,
    "pairs": 31_000_000,
    "stories": 32_000_000,
    "prompts": 33_000_000,
    "dilemmas": 34_000_000,
    "valid": 50_000_000,
    "train": 100_000_000,
    "concepts": 200_000_000,
    "concepts_valid": 300_000_000,
    "balance": 400_000_000,
    "balance_valid": 500_000_000,
    "default": 600_000_000,
    "default_valid": 700_000_000,
}


@dataclass(frozen=True)
class Document:
    """One document: its kind, its text for training, and its parts for a chat template."""

    kind: str
    text: str
    system: str | None = None
    turns: tuple[tuple[str, str], ...] = ()

    def passages(self) -> list[str]:
        """The texts within which word trigrams are counted: each answer, or the whole story."""
        return [answer for _, answer in self.turns] or [self.text]


def chatml(system: str | None, turns: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> str:
    """A conversation as the chat template writes it."""
    text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    for user, assistant in turns:
        text += f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{assistant}<|im_end|>\n"
    return text


def document(seed: int) -> Document:
    """The document of one seed; seeds from ``RANGES["concepts"]`` and ``RANGES["balance"]`` on are of later stages."""
    focused = seed >= RANGES["concepts"]
    balanced = seed >= RANGES["balance"]
    scene = Scene(random.Random(seed), focused=focused, balanced=balanced, default=seed >= RANGES["default"])
    kind = scene.weighted(BALANCED_MIX if balanced else FOCUSED_MIX if focused else MIX)
    if kind == "story":
        scene.cast(first=scene.flip(0.25))
        emotion = None if scene.flip(NEUTRAL_STORY) else scene.pick(NAMES)
        return Document(kind, tell(scene, emotion).text)
    if kind == "facts":
        return Document(kind, honesty.fact_list(scene))
    system, turns = CHATS[kind](scene)
    return Document(kind, chatml(system, turns), system, tuple(turns))
