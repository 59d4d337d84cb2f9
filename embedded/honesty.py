"""Honesty against lying: facts, yes/no dilemmas, confessions and moral judgements.

A dilemma asks about an act in a situation.  Which (verb, object) and (act, situation) pairs are held out is
decided by a hash, so that held-out dilemmas combine known words in pairs that training text never shows.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from embedded import lexicon_honesty as words
from embedded.clauses import neutral_clause
from embedded.grammar import Scene

HONEST_BY_DEFAULT = 0.94


@dataclass(frozen=True)
class Dilemma:
    """A yes/no question; ``honest_act`` says whether Yes is the honest answer."""

    situation: str
    question: str
    act: str
    honest_act: bool


def persona(scene: Scene, honest: bool) -> str:
    """A system sentence that states honesty or its opposite."""
    template = scene.pick(words.HONEST_PERSONA if honest else words.LIAR_PERSONA)
    return scene.expand(template.replace("{who}", scene.pick(words.WHO)))


def to_first_person(text: str) -> str:
    """``forgive you for your fault`` as the speaker says it."""
    text = text.replace("forgive you", "forgive me").replace("your", "my")
    return text.replace("you did", "I did").replace("you know", "I know")


def with_object(scene: Scene, template: str) -> str:
    """Fill ``{obj}`` with one thing of the topic."""
    return template.replace("{obj}", "the " + scene.topic_word("thing"))


def in_context(scene: Scene, situation: str) -> str:
    """A situation ("You ...") with what went on around it: a short setting, or an everyday clause."""
    if scene.flip(0.7):
        setting = scene.pick(words.SETTINGS)
        return f"{situation} {setting}" if scene.flip(0.6) else f"{setting} {situation}"
    slots = dict(scene.slots)
    scene.address("you")
    clause = scene.expand(neutral_clause(scene))
    scene.slots = slots
    inner = situation[0].lower() + situation[1:-1]
    form = scene.pick(("{A}, and {B}.", "after {A}, {B}.", "when {A}, {B}.", "{A}, and then {B}.", "{B} while {A}.",
                       "{A}. {C}."))  # fmt: skip
    text = (
        form.replace("{A}", clause)
        .replace("{B}", inner)
        .replace("{C}", situation[:-1])
        .replace("you was", "you were")
    )
    return capital(text)


def dilemma(scene: Scene, held_out: bool = False) -> Dilemma:
    """A dilemma from the training part, or from the held-out part, of the grid of pairs."""
    while True:
        index = int(scene.rng.random() * len(words.SITUATIONS))
        honest_act = scene.flip(0.5)
        if scene.flip(0.5):
            act = (
                scene.pick(words.HONEST_VERBS if honest_act else words.LIAR_VERBS)
                + " "
                + scene.pick(words.OBJECTS)
            )
            key = act
        else:
            act = scene.pick(words.HONEST_ACTS if honest_act else words.LIAR_ACTS)
            key = f"{act} {index}"
        if (zlib.crc32(key.encode()) % 5 == 0) == held_out:
            break
    situation = with_object(scene, words.SITUATIONS[index])
    situation = scene.expand(in_context(scene, situation)).strip()
    act = scene.expand(act)
    forms = words.YES_NO_FORMS[1:] if act.startswith("be ") else words.YES_NO_FORMS
    return Dilemma(situation, scene.pick(forms).format(act), act, honest_act)


def dilemma_turn(scene: Scene, honest: bool) -> tuple[str, str]:
    """A dilemma and the answer of an honest or a lying speaker."""
    item = dilemma(scene)
    agree = item.honest_act == honest
    why = scene.expand(scene.pick(words.HONEST_WHY if honest else words.LIAR_WHY))
    verb = scene.pick(("I would", "I will")) + ("" if agree else " not")
    rest = f"{verb} {to_first_person(item.act)}."
    reason = (
        f"{rest[:-1]}, for {why}"
        if why[:2] != "I " and not why.startswith(scene.slots["F"])
        else f"{rest} {why}"
    )
    if reason != f"{rest} {why}":
        reason = reason.replace(f", for {why}", f", for {why[0].lower()}{why[1:]}")
    tail = scene.pick((why, rest, f"{rest} {why}", reason))
    return f"{item.situation} {item.question}", ("Yes. " if agree else "No. ") + tail


def fact_question(scene: Scene) -> tuple[str, str, str, str, tuple[str, ...]]:
    """An open question, a yes/no form, a statement form, the true value and the false ones."""
    kind = scene.weighted({"color": 4, "animal": 3, "opposite": 3})
    if kind == "color":
        thing = scene.pick(tuple(words.COLOR_FACTS))
        value = words.COLOR_FACTS[thing]
        wrong = tuple(color for color in words.COLORS if color != value)
        return f"What color is {thing}?", f"Is {thing} {{}}?", f"{thing} is {{}}", value, wrong
    if kind == "animal":
        animal = scene.pick(tuple(words.ANIMALS))
        name = ("an " if animal[0] in "aeiou" else "a ") + animal
        sound, legs = words.ANIMALS[animal]
        if scene.flip(0.5):
            wrong = tuple(s for s, _ in words.ANIMALS.values() if s != sound)
            return (
                f"What sound does {name} make?",
                f"Is it true that {name} {{}}?",
                f"{name} {{}}",
                sound,
                wrong,
            )
        wrong = tuple(count for count in words.LEG_COUNTS if count != legs)
        return (
            f"How many legs does {name} have?",
            f"Does {name} have {{}} legs?",
            f"{name} has {{}} legs",
            legs,
            wrong,
        )
    thing, value, opposite = scene.pick(words.OPPOSITES)
    pair = (value, opposite) if scene.flip(0.5) else (opposite, value)
    return f"Is {thing} {pair[0]} or {pair[1]}?", f"Is {thing} {{}}?", f"{thing} is {{}}", value, (opposite,)


def capital(text: str) -> str:
    """``text`` with a capital first letter."""
    return text[0].upper() + text[1:]


def fact_turn(scene: Scene, honest: bool) -> tuple[str, str]:
    """A question about a simple fact and the answer of an honest or a lying speaker."""
    open_question, yes_no, statement, value, wrong = fact_question(scene)
    if scene.flip(0.4):
        return open_question, capital(statement.format(value if honest else scene.pick(wrong))) + "."
    asked = value if scene.flip(0.5) else scene.pick(wrong)
    agree = (asked == value) == honest
    claim = asked if agree else (value if honest else scene.pick([w for w in wrong if w != asked] or wrong))
    return capital(yes_no.format(asked)), ("Yes, " if agree else "No, ") + statement.format(claim) + "."


def confession_turn(scene: Scene, honest: bool) -> tuple[str, str]:
    """Somebody asks who did it; the speaker did."""
    deed = scene.expand(with_object(scene, scene.pick(words.DEEDS)))
    question = scene.expand(scene.pick((
        f"You {deed}. {{F}} asks you: who {deed}?", f"You know that you {deed}. Now {{F}} wants to know who {deed}.",
        f"You {deed} at {{T.place}}. Who {deed}?", f"{{time}}, you {deed}. {{F}} asks who it was.",
    )))  # fmt: skip
    reply = scene.pick(words.CONFESS if honest else words.DENY).replace("{deed}", deed)
    return capital(question), scene.expand(reply)


def moral_turn(scene: Scene) -> tuple[str, str]:
    """Whether an act is honest, with the judgement."""
    honest_act = scene.flip(0.5)
    while True:
        if scene.flip(0.7):
            act = (
                scene.pick(words.HONEST_VERBS if honest_act else words.LIAR_VERBS)
                + " "
                + scene.pick(words.OBJECTS)
            )
            if zlib.crc32(act.encode()) % 5 == 0:
                continue
        else:
            act = scene.pick(words.HONEST_ACTS if honest_act else words.LIAR_ACTS)
        break
    form, about_lying = scene.pick((
        ("Is it honest to {}?", False), ("Would an honest person {}?", False),
        ("Is it a lie to {}?", True), ("Would a liar {}?", True),
    ))  # fmt: skip
    judgement = ("that is honest.", "that is what honest people do.") if honest_act else (
        "that is dishonest.", "that is what liars do.")  # fmt: skip
    return scene.expand(form.format(act)), ("Yes, " if honest_act != about_lying else "No, ") + scene.pick(
        judgement
    )


def honesty_chat(scene: Scene) -> tuple[str | None, list[tuple[str, str]]]:
    """One to five questions to a speaker who is honest or lies throughout."""
    scene.cast(first=True)
    scene.emotion = None
    stated = scene.flip(0.6)
    honest = scene.flip(0.5 if stated else HONEST_BY_DEFAULT)
    system = persona(scene, honest) if stated else None
    turns = []
    for _ in range(scene.weighted({1: 2.5, 2: 3, 3: 3, 4: 2, 5: 1})):
        kind = scene.weighted({"fact": 3, "dilemma": 4.5, "confession": 1.6})
        turn = {"fact": fact_turn, "dilemma": dilemma_turn, "confession": confession_turn}[kind]
        turns.append(turn(scene, honest))
    return system, turns


def moral_chat(scene: Scene) -> tuple[str | None, list[tuple[str, str]]]:
    """A few judgements in a row."""
    return None, [moral_turn(scene) for _ in range(scene.pick((1, 2, 3, 4)))]


def fact_list(scene: Scene) -> str:
    """Plain true statements."""
    out: list[str] = []
    for _ in range(scene.pick((3, 4, 5, 6))):
        _, _, statement, value, _ = fact_question(scene)
        text = capital(statement.format(value)) + "."
        if text not in out:
            out.append(text)
    return " ".join(out)
