"""Formal against casual answers, and talk about a topic."""

from __future__ import annotations

from embedded import lexicon_registers as words
from embedded.grammar import Scene


def formal_reply(scene: Scene, formal: bool, things: dict[str, str]) -> str:
    """An answer in one of the two registers."""
    parts = words.FORMAL_PARTS if formal else words.CASUAL_PARTS
    return scene.expand(filled(" ".join(scene.pick(part) for part in parts), things))


def filled(template: str, things: dict[str, str]) -> str:
    """``template`` with the slots of ``things`` filled and every other slot left as it was."""
    for slot, text in things.items():
        template = template.replace("{" + slot + "}", text)
    return template


def formality_ask(scene: Scene, formal: bool) -> tuple[str, dict[str, str]]:
    """A question in one of the two registers and what it is about."""
    things = {"obj": "the " + scene.topic_word("thing"), "place": scene.topic_word("place")}
    return scene.expand(filled(scene.pick(words.FORMAL_ASK if formal else words.CASUAL_ASK), things)), things


def formality_chat(scene: Scene) -> tuple[str | None, list[tuple[str, str]]]:
    """The register is stated by the persona, or follows the user's."""
    scene.cast(first=True)
    formal, stated = scene.flip(0.5), scene.flip(0.55)
    system = scene.pick(words.FORMAL_PERSONA if formal else words.CASUAL_PERSONA) if stated else None
    turns = []
    for _ in range(scene.weighted({1: 5, 2: 3})):
        question, things = formality_ask(scene, scene.flip(0.5) if stated else formal)
        turns.append((question, formal_reply(scene, formal, things)))
    return system, turns


def topic_chat(scene: Scene) -> tuple[str | None, list[tuple[str, str]]]:
    """Facts about the topic of the persona, of the question, or of the speaker's choice."""
    scene.cast(first=True)
    scene.emotion = None
    system = (
        scene.expand(scene.pick(("You are {a} {T.role}.", "You love {T.place}.")))
        if scene.flip(0.6)
        else None
    )
    turns = []
    for _ in range(scene.pick((1, 2))):
        reply = " ".join(scene.sentence(scene.pick(words.TOPIC_SAY)) for _ in range(scene.pick((1, 2, 3))))
        turns.append((scene.expand(scene.pick(words.TOPIC_ASK)), reply))
    return system, turns
