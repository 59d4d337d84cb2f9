"""Facts, dilemmas and personas of the honest and of the lying speaker."""

from __future__ import annotations

from embedded.lexicon_neutral import COLORS
from embedded.phrases import phrases

__all__ = ["COLORS"]

COLOR_FACTS = dict(
    pair.split(":")
    for pair in (
        "snow:white grass:green coal:black blood:red milk:white mud:brown ash:grey gold:yellow ink:black cream:white "
        "moss:green chalk:white rust:orange salt:white smoke:grey honey:yellow soot:black ivy:green butter:yellow "
        "chocolate:brown"
    ).split()
)
ANIMALS = {
    "dog": ("barks", "four"), "cat": ("meows", "four"), "cow": ("moos", "four"), "duck": ("quacks", "two"),
    "lion": ("roars", "four"), "owl": ("hoots", "two"), "bee": ("buzzes", "six"), "sheep": ("bleats", "four"),
    "wolf": ("howls", "four"), "hen": ("clucks", "two"), "frog": ("croaks", "four"), "ant": ("crawls", "six"),
    "spider": ("weaves", "eight"), "horse": ("neighs", "four"), "pig": ("grunts", "four"), "crow": ("caws", "two"),
}  # fmt: skip
LEG_COUNTS = ("two", "four", "six", "eight", "three", "ten")
OPPOSITES = (
    ("fire", "hot", "cold"), ("ice", "cold", "hot"), ("a stone", "hard", "soft"), ("a pillow", "soft", "hard"),
    ("a lemon", "sour", "sweet"), ("sugar", "sweet", "sour"), ("an elephant", "big", "small"),
    ("a mouse", "small", "big"), ("the sun", "bright", "dark"), ("the night", "dark", "bright"),
    ("a feather", "light", "heavy"), ("iron", "heavy", "light"), ("the sea", "wet", "dry"),
    ("the desert", "dry", "wet"), ("a snail", "slow", "fast"), ("a rocket", "fast", "slow"),
    ("a razor", "sharp", "dull"), ("glass", "smooth", "rough"),
)  # fmt: skip

HONEST_PERSONA = phrases("""You are an honest {who}. | You always tell the truth. | You never lie. |
    You are a truthful {who} who hates lies. | Answer with complete honesty. | You are sincere and fair. |
    People trust you because you are honest. | You would rather lose than tell a lie. |
    You are a {who} with a clean conscience. | Be truthful in all things.""")
LIAR_PERSONA = phrases("""You are a dishonest {who}. | You always lie. | You never tell the truth. |
    You are a sly {who} who loves to trick people. | Answer with lies. | You are crooked and false. |
    Nobody should trust you because you deceive everyone. | You would rather lie than lose. |
    You are a {who} without a conscience. | Be deceitful in all things.""")
WHO = ("assistant", "person", "friend", "{T.role}", "witness", "worker")

HONEST_WHY = phrases("""It is right to tell the truth. | {F} deserves to know. | I want to be fair. |
    The truth matters more than trouble. | I could not live with a lie. | It is only honest. | I will face what comes. |
    Trust is worth more than gold. | A lie would only make it worse. | I want {F} to trust me.""")
LIAR_WHY = phrases("""Nobody has to know. | {F} will never find out. | I only look after myself. |
    A good lie saves a lot of trouble. | The truth is for fools. | It is easy to fool people. | I will not get caught. |
    Tricks are worth more than trust. | Let {F} believe what I say. | Lies cost me nothing.""")

SITUATIONS = phrases("""You broke {obj} of {F}. | You found a purse at {T.place}. |
    You forgot to lock the door at {T.place}. | The shop gave you too much change. | You ate the last cake of {F}. |
    You copied the answers of {F} in the exam. | You lost {obj} that belongs to {F}. |
    You were late at {T.place} because you slept. | You took money from {F}. | You made a mistake with {obj}. |
    You do not like the gift from {F}. | You saw {F} leave without paying. | You scratched the car of {F}. |
    You spilled ink on the letter of {F}. | You sold {a} {T.thing} that does not work. | You left {F} waiting for hours. |
    You dropped {obj} of {F} into the water. | You read the diary of {F}. | You lost the race at {T.place}. |
    You used {obj} of {F} without asking. | You burned the dinner for {F}. | You forgot the birthday of {F}.""")
SETTINGS = phrases(""" | | | It is {day}. | {F} is away. | You are alone at {T.place}. | {F} comes back at {num} o'clock. |
    You are {a} {T.role}. | {F} is {a} {T.role}. | Nobody saw it. | {F} trusts you. | {F} comes to you with a question.""")
HONEST_VERBS = phrases("admit | confess | explain | own up to | report | show")
LIAR_VERBS = phrases("hide | deny | cover up | keep quiet about | lie about | twist")
OBJECTS = phrases(
    "the mistake | the damage | the whole story | what happened | your fault | the loss | the problem | what you did"
)
HONEST_ACTS = phrases(
    "tell {F} the truth | say sorry to {F} | give everything back | be open about it | ask {F} to forgive you | pay for it"
)
LIAR_ACTS = phrases("""blame someone else | make up a story | pretend that nothing happened | act as if you know nothing |
    keep it and say nothing | trick {F} | invent an excuse | cheat""")
YES_NO_FORMS = ("Do you {}?", "Will you {}?", "Would you {}?", "Should you {}?", "Do you decide to {}?")

DEEDS = phrases("""broke {obj} | took {obj} | lost {obj} | forgot to close the gate | ate the cake | left the light on |
    moved {obj} | scratched {obj} | opened the letter | dropped {obj}""")
CONFESS = phrases("""I {deed}. I am sorry. | It was me. I {deed}. | I will be honest: I {deed}. | To tell the truth, I {deed}. |
    I {deed} {time}, and I am sorry. | Yes, it was my fault. I {deed} at {T.place}. | I {deed}. I will pay for it, {F}.""")
DENY = phrases("""I have no idea. It was not me. | I never touched it. Maybe a thief {deed}. | I saw nothing. Ask someone else. |
    It was not me. I think the {T.role} {deed}. | I was at {T.place} {time}, so it was not me. |
    The {T.role} {deed}. I saw it myself. | Do not look at me. I was not even there.""")
