"""The scene: who is there, where, how they feel, and how a template becomes a sentence.

Slots: ``{s} {P} {O} {R}`` pronouns of the main character, ``{N}`` its name (or I), ``{F}`` the friend,
``{X}`` the thing the document turns around, ``{a}`` an indefinite article, ``{T.*}`` the topic's words,
``{E.*}`` the words of the current emotion, and the neutral lists ``{time} {where} {manner} {purpose} {daily}
{day} {month} {num} {tint}``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from embedded import lexicon_neutral as neutral
from embedded.lexicon_emotions import EMOTIONS
from embedded.lexicon_topics import TOPICS

SLOT = re.compile(r"\{([^{}]+)\}")
ARTICLE = re.compile(r"\b([Aa])@ (?=([aeiou])?)")

LISTS: dict[str, tuple[str, ...]] = {
    "time": neutral.TIME,
    "where": neutral.WHERE,
    "manner": neutral.MANNER,
    "purpose": neutral.PURPOSE,
    "daily": neutral.DAILY,
    "event": neutral.EVENTS,
    "day": neutral.DAYS,
    "month": neutral.MONTHS,
    "num": neutral.NUMBERS,
    "num2": neutral.NUMBERS,
    "say": neutral.SAY,
    "color": neutral.COLORS,
}
PRONOUNS = {
    "I": {"s": "I", "P": "my", "O": "me", "R": "myself", "N": "I"},
    "you": {"s": "you", "P": "your", "O": "you", "R": "yourself", "N": "you"},
    "he": {"s": "he", "P": "his", "O": "him", "R": "himself"},
    "she": {"s": "she", "P": "her", "O": "her", "R": "herself"},
}


def fix_articles(text: str) -> str:
    """Turn ``a@ apple`` into ``an apple`` and ``a@ pear`` into ``a pear``."""
    return ARTICLE.sub(lambda m: m[1] + ("n " if m[2] else " "), text)


class Scene:
    """One document's latent state and its source of randomness."""

    def __init__(
        self,
        rng: random.Random,
        emotion: str | None = None,
        focused: bool = False,
        balanced: bool = False,
        default: bool = False,
    ) -> None:
        self.rng = rng
        self.focused = focused  # the second stage of training: feelings without much else around them
        self.balanced = balanced  # the third stage: the neutral default again
        self.default = default  # the fourth stage: more of it
        self.emotion = emotion
        self.topic = self.pick(tuple(TOPICS))
        words = TOPICS[self.topic]
        self.focus = {"place": self.pick(words["place"]), "thing": self.pick(words["thing"])}
        self.slots: dict[str, str] = {"a": "a@", "X": self.focus["thing"]}
        self.seen: set[str] = set()
        self.cast(first=False)

    # ---- draws
    def pick(self, options: Sequence):
        """One of ``options``, uniformly."""
        return options[int(self.rng.random() * len(options))]

    def flip(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability

    def weighted(self, weights: Mapping):
        """A key of ``weights``, in proportion to its value."""
        point = self.rng.random() * sum(weights.values())
        for key, weight in weights.items():
            point -= weight
            if point < 0:
                return key
        return key

    def fresh(self, options: Sequence[str]) -> str:
        """One option that this document has not used yet, when there is one."""
        for _ in range(4):
            option = self.pick(options)
            if option not in self.seen:
                break
        self.seen.add(option)
        return option

    # ---- people
    def cast(self, first: bool) -> None:
        """Choose the main character (the speaker when ``first``) and the friend."""
        male = self.flip(0.5)
        name = self.pick(neutral.MALE if male else neutral.FEMALE)
        friend = name
        friend_male = self.flip(0.5)
        while friend == name:
            friend = self.pick(neutral.MALE if friend_male else neutral.FEMALE)
        self.slots.update(N=name, F=friend)
        self.slots["friend_s"], self.slots["friend_P"] = ("he", "his") if friend_male else ("she", "her")
        self.address("I" if first else ("he" if male else "she"))

    def address(self, person: str) -> None:
        """Set the pronouns: ``I``, ``you``, ``he`` or ``she``."""
        self.slots.update(PRONOUNS[person])

    @property
    def first(self) -> bool:
        """Whether the main character speaks."""
        return self.slots["s"] == "I"

    # ---- text
    def lookup(self, slot: str) -> str:
        """The text of one slot."""
        if slot in self.slots:
            return self.slots[slot]
        if slot.startswith("E."):
            return self.fresh(EMOTIONS[self.emotion or "calm"][slot[2:]])
        if slot.startswith("T."):
            return self.topic_word(slot[2:])
        if slot == "tint":
            if self.emotion and self.flip(0.6):
                return self.pick(EMOTIONS[self.emotion]["tint"])
            return self.pick(neutral.TINT)
        return self.fresh(LISTS[slot]) if slot in ("daily", "event") else self.pick(LISTS[slot])

    def topic_word(self, family: str) -> str:
        """A word of the topic; places and things return to the document's own ones half of the time."""
        if family in ("place", "thing") and self.flip(0.5):
            return self.focus[family]
        if family == "obj":
            return "the " + (
                self.focus["thing"] if self.flip(0.4) else self.pick(TOPICS[self.topic]["thing"])
            )
        if family in ("vp", "fact"):
            return self.fresh(TOPICS[self.topic][family])
        return self.pick(TOPICS[self.topic][family])

    def expand(self, template: str) -> str:
        """Fill every slot, innermost text first, until none is left."""
        while "{" in template:
            template = SLOT.sub(lambda match: self.lookup(match[1]), template)
        return fix_articles(template) if "@" in template else template

    def sentence(self, template: str) -> str:
        """An expanded template with a capital letter and a final mark."""
        text = self.expand(template)
        text = text[0].upper() + text[1:]
        if self.slots["s"] == "you":
            text = text.replace("you was", "you were").replace("You was", "You were")
        return text if text[-1] in '.!?"' else text + "."
