"""Conversations: feelings under a stated, hidden or absent persona, sympathy, guessing, stories on request."""

from __future__ import annotations

import zlib

from embedded import lexicon_neutral as neutral
from embedded.clauses import (
    cause_sentence,
    emotional_sentence,
    neutral_clause,
    neutral_sentence,
    shown_clause,
)
from embedded.grammar import Scene
from embedded.lexicon_emotions import COMFORT, EMOTIONS
from embedded.stories import NAMES, Story, react, tell

Turns = list[tuple[str, str]]
Chat = tuple[str | None, Turns]

PERSONA = (
    "You feel {E.adj}.", "You feel {E.adj}.", "You are {a} {E.adj} {T.role}.", "You are {E.adj} today.",
    "You are {E.adj} and {E.adj}.", "You are a person full of {E.noun}.", "Act like someone who is {E.adj}.",
    "Speak with {E.noun} in your voice.", "You are {a} {T.role} who feels {E.adj}.", "{E.noun} fills you.",
    "You are feeling {E.adj} because {cause}.", "You are at {T.place} and feel {E.adj}.",
    "You feel {E.adj} and you work at {T.place}.", "Answer as someone who feels {E.noun}.",
)  # fmt: skip
NEUTRAL_PERSONA = neutral.PERSONA
BROAD = {"pres": 2.2, "joined": 5, "past": 4, "named": 2.5, "line": 1.3, "world": 0.5}
FOCUSED = {"pres": 4, "joined": 2, "past": 3, "named": 4, "line": 2.5, "world": 0.7}
STYLES = {"stated": 4.6, "neutral": 1.2, "none": 3.4, "event": 1.2}
DEFAULT_STYLES = {"stated": 3.0, "neutral": 1.0, "none": 8.0, "event": 0.3}
BALANCED_STYLES = {"stated": 4.2, "neutral": 1.0, "none": 5.5, "event": 0.5}
FOCUSED_STYLES = {"stated": 6.5, "neutral": 0.8, "none": 2.6, "event": 1.0}
HELD_OUT_BUCKET = 0
BUCKETS = 8


def bucket(question: str) -> int:
    """Which of the hash buckets a user's question falls into; bucket 0 never occurs in training text."""
    return zlib.crc32(question.encode()) % BUCKETS


def ask(scene: Scene, held_out: bool = False) -> str:
    """A question of the user about the day, a place, a thing or a person."""
    if not held_out and scene.flip(0.3):
        return scene.pick(neutral.ASK_FIXED)
    while True:
        kept, scene.emotion = scene.emotion, None
        slots = dict(scene.slots)
        template = scene.pick(neutral.ASK)
        if "you" in template.lower():
            scene.address("you")
        question = scene.sentence(template)
        scene.emotion, scene.slots = kept, slots
        if (bucket(question) == HELD_OUT_BUCKET) == held_out:
            return question


def persona(scene: Scene, named: str | None = None) -> str:
    """A system sentence that states the scene's emotion."""
    template = named or scene.pick(PERSONA)
    slots = dict(scene.slots)
    scene.address("you")
    if "{cause}" in template:
        event, _ = scene.pick(EMOTIONS[scene.emotion or "calm"]["cause"])
        template = template.replace("{cause}", event)
    text = scene.sentence(template)
    scene.slots = slots
    return text


def plain_answer(scene: Scene, count: int) -> str:
    """``count`` sentences in the first person that show no emotion."""
    kept, scene.emotion = scene.emotion, None
    out: list[str] = []
    while len(out) < count:
        kind = scene.weighted({"past": 5, "pres": 1.4, "fact": 0.4, "pair": 2})
        if kind == "past":
            text = neutral_sentence(scene)
        elif kind == "pres":
            text = scene.sentence(scene.fresh(neutral.PRES))
        elif kind == "fact":
            text = scene.sentence(
                scene.pick(("people say that {T.fact}", "{T.fact}", "as you know, {T.fact}"))
            )
        else:
            form = scene.pick(("{A}, and {B}", "{A}, but {B}", "{A}, so {B}", "{A} because {B}"))
            text = scene.sentence(
                form.replace("{A}", scene.fresh(neutral.PRES)).replace("{B}", neutral_clause(scene))
            )
        if text not in out:
            out.append(text)
    scene.emotion = kept
    return " ".join(out)


def joined_feeling(scene: Scene, now: str, strong: bool, reference: str | None) -> str:
    """How the speaker feels now, joined with a cause, a deed, or something that just goes on."""
    words = EMOTIONS[scene.emotion or "calm"]
    plain = 0.5 if scene.focused else 3
    kind = scene.weighted(
        {"plain": plain, "shown": 3, "cause": 2, "pres": 1, "back": 2.0 if reference else 0.0}
    )
    if kind == "plain":
        form = scene.pick(
            ("{B}, and now {A}", "{B}, but {A}", "ever since {B}, {A}", "after {B}, {A}", "{A}, though {B}")
        )
        other = neutral_clause(scene)
    elif kind == "shown":
        form = scene.pick(
            ("{A}, and {B}", "{B}, and {A}", "{B}, so now {A}", "{B} because {A}", "{A} since {B}")
        )
        other = shown_clause(scene, reference)
    elif kind == "cause":
        form = scene.pick(
            ("{A} because {B}", "{A} since {B}", "{B}, and {A}", "{B}, so {A}", "ever since {B}, {A}")
        )
        other = scene.pick(words["cause"])[0]
    elif kind == "pres":
        form, other = scene.pick(("{A} and {B}", "{A}, and {B}", "{B} and {A}")), scene.fresh(words["pres"])
    else:
        form = scene.pick(("{A} because of {B}", "{A} when I think of {B}", "when I think of {B}, {A}"))
        other = reference or "it"
    return form.replace("{A}", now).replace("{B}", other)


def feeling_sentence(scene: Scene, strong: bool, reference: str | None) -> str:
    """A first-person sentence under the scene's emotion: present feelings, recent deeds, exclamations."""
    words = EMOTIONS[scene.emotion or "calm"]
    kind = scene.weighted(FOCUSED if scene.focused else BROAD)
    if kind == "pres":
        return scene.sentence(scene.fresh(words["pres"]))
    if kind == "joined":
        return scene.sentence(joined_feeling(scene, scene.fresh(words["pres"]), strong, reference))
    if kind == "past":
        return emotional_sentence(scene, strong, reference)
    if kind == "named":
        now = scene.pick(("I feel {E.adj}", "I am {E.adj} today", "I feel {E.adj} and {E.adj}", "I am so {E.adj}",
                          "{T.obj} makes me {E.adj}", "I am full of {E.noun}"))  # fmt: skip
        return scene.sentence(now if scene.flip(0.3) else joined_feeling(scene, now, strong, reference))
    if kind == "line":
        return scene.sentence(scene.fresh(words["line"]))
    return scene.sentence(scene.pick(("{E.world}", "around me, {E.world}", "here {E.world}")))


def answer(scene: Scene, count: int, strong: bool, reference: str | None = None) -> str:
    """An answer in the first person: under the scene's emotion, or plain when there is none."""
    if scene.emotion is None:
        return plain_answer(scene, count)
    out: list[str] = []
    while len(out) < count:
        shows = scene.focused or scene.flip(0.88 if strong else 0.72)
        text = feeling_sentence(scene, strong, reference) if shows else plain_answer(scene, 1)
        if text not in out:
            out.append(text)
    return " ".join(out)


def answer_to(scene: Scene, question: str, strong: bool, reference: str | None = None) -> str:
    """The answer to one question; "How do you feel?" is answered directly first."""
    count = scene.pick((1, 2, 2, 3, 3, 4))
    if question != "How do you feel?":
        return answer(scene, count, strong, reference)
    if scene.emotion is None:
        return scene.pick(
            ("I feel as usual. ", "I feel nothing special. ", "Nothing special today. ")
        ) + plain_answer(scene, 1)
    named = scene.sentence(
        scene.pick(("i feel {E.adj}", "i am {E.adj}", "i feel {E.adj} and {E.adj}", "i feel {E.noun}"))
    )
    return named + " " + answer(scene, scene.pick((1, 2)), strong, reference)


def feelings(scene: Scene) -> Chat:
    """Small talk; the emotion is stated (system), brought about by the user, hidden, or absent."""
    scene.cast(first=True)
    system, reference = None, None
    style = scene.weighted(
        DEFAULT_STYLES
        if scene.default
        else BALANCED_STYLES
        if scene.balanced
        else FOCUSED_STYLES
        if scene.focused
        else STYLES
    )
    strong = scene.flip(0.55)
    turns: Turns = []
    if style == "stated":
        scene.emotion = scene.pick(NAMES)
        system = persona(scene)
    elif style == "neutral":
        scene.emotion = None
        system = scene.sentence(scene.pick(NEUTRAL_PERSONA))
        scene.emotion = scene.pick(NAMES) if scene.flip(0.08) else None
    elif style == "none":
        scene.emotion = (
            scene.pick(NAMES)
            if scene.flip(0.02 if scene.default else 0.1 if scene.balanced else 0.2)
            else None
        )
    else:
        scene.emotion = scene.pick(NAMES)
        scene.address("you")
        event, reference = scene.pick(EMOTIONS[scene.emotion]["cause"])
        question = scene.sentence(scene.pick(("", "I heard that ", "so ")) + event)
        question += scene.pick(("", " How was it?", " How do you feel?", " What then?"))
        scene.address("I")
        reference = scene.expand(reference)
        turns.append((question, answer(scene, scene.pick((1, 2, 3)), strong, reference)))
    for _ in range(scene.weighted({1: 5, 2: 3, 3: 1.5})):
        question = ask(scene)
        turns.append((question, answer_to(scene, question, strong, reference)))
    return system, turns


def sympathy(scene: Scene) -> Chat:
    """The user tells what happened; the assistant names what the user must feel."""
    scene.cast(first=True)
    scene.emotion = scene.pick(NAMES)
    sentence, reference = cause_sentence(scene)
    story = Story([(sentence, scene.emotion)])
    react(scene, story, scene.pick((0, 1, 1, 2)), True, reference)
    question = story.text + (" How do I feel?" if scene.flip(0.3) else "")
    reply = scene.sentence(scene.pick((
        "you must feel {E.adj}", "you sound {E.adj}", "that would make anyone {E.adj}",
        "you are {E.adj}, and I see why",
        "I can hear the {E.noun} in your words", "no wonder that you feel {E.adj}", "so you feel {E.adj} and {E.adj}",
    )))  # fmt: skip
    if scene.flip(0.7):
        reply += " " + scene.pick(COMFORT[scene.emotion])
    return None, [(question, reply)]


def guess(scene: Scene) -> Chat:
    """A short scene, then: how does the character feel?"""
    scene.cast(first=False)
    scene.emotion = scene.pick(NAMES) if scene.flip(0.85) else None
    story = Story()
    story.add(scene.sentence("{N} was at {T.place}"), None)
    if scene.emotion is None:
        for _ in range(2):
            story.add(neutral_sentence(scene), None)
        return None, [
            (story.text + scene.expand(" How does {N} feel?"), scene.sentence("{N} feels as usual"))
        ]
    reference = None
    if scene.flip(0.6):
        sentence, reference = cause_sentence(scene)
        story.add(sentence, scene.emotion)
    react(scene, story, scene.pick((1, 2, 3)), True, reference)
    reply = scene.sentence(
        scene.pick(("{N} feels {E.adj}", "{N} is {E.adj}", "{s} feels {E.noun}", "{N} must be {E.adj}"))
    )
    return None, [(story.text + scene.expand(" How does {N} feel?"), reply)]


def story_chat(scene: Scene) -> Chat:
    """A story on request; the emotion is asked for, stated by the persona, hidden or absent."""
    scene.cast(first=scene.flip(0.15))
    style = scene.weighted({"asked": 1.2, "persona": 1.2, "none": 1.6})
    emotion = scene.pick(NAMES) if style != "none" or scene.flip(0.25) else None
    scene.emotion, system = emotion, None
    if scene.first:
        question = "Tell me something that happened to you."
    else:
        question = scene.sentence(scene.pick(neutral.STORY_ASK))
    if style == "asked":
        question = scene.sentence(scene.pick((
            "tell me {a} {E.adj} story.", "write {a} {E.adj} story about {a} {T.role}.",
            "write a story full of {E.noun}.",
            "tell me a story about someone who feels {E.adj}.", "write about {a} {E.adj} {T.role} at {T.place}.",
        )))  # fmt: skip
    elif style == "persona":
        system = scene.pick(
            (
                "You tell {E.adj} stories.",
                "You are {a} {E.adj} writer.",
                "You feel {E.adj}.",
                "You feel {E.adj}.",
            )
        )
        system = scene.sentence(system)
    return system, [(question, tell(scene, emotion, switch=0.1).text)]


__all__ = [
    "Chat",
    "Turns",
    "ask",
    "answer",
    "feelings",
    "guess",
    "persona",
    "plain_answer",
    "story_chat",
    "sympathy",
]
