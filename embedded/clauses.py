"""Past-tense clauses and how they are joined: the plot sentences of stories and of first-person reports."""

from __future__ import annotations

from embedded import lexicon_neutral as neutral
from embedded.grammar import Scene
from embedded.lexicon_emotions import EMOTIONS

JOIN = (
    "{A} and {B}", "{A}, and {B}", "{A}, and then {B}", "when {A}, {B}", "after {A}, {B}", "while {A}, {B}",
    "as {A}, {B}", "{A} before {B}", "{A}, so {B}", "{A}, and soon {B}", "because {A}, {B}", "{A}, while {B}",
    "{A} until {B}", "once {A}, {B}",
)  # fmt: skip
ACT = {"{s} {T.vp}": 5, "{s} {daily}": 5, "{N} {T.vp}": 1, "{N} {daily}": 1, "{s} {T.vp} and {daily}": 1}
ADVERB = {"": 4, " {time}": 2, " {manner}": 2, " {where}": 2, " {purpose}": 1.3, " {where} {time}": 0.7}
BROAD = {"one": 3.2, "with_act": 4.5, "two": 3, "named": 2.2, "line": 1.8}
FOCUSED = {"one": 4, "with_act": 1, "two": 2, "named": 3.5, "line": 2.5}
DEGREE_STRONG = ("", "", "very ", "so ", "deeply ")
DEGREE_MILD = ("", "", "a little ", "rather ", "somewhat ")


def join(scene: Scene, first: str, second: str) -> str:
    """Two clauses as one sentence template."""
    return scene.pick(JOIN).replace("{A}", first).replace("{B}", second)


# ---- without emotion
def neutral_clause(scene: Scene) -> str:
    """A clause template that shows no emotion."""
    kind = scene.weighted({"act": 6, "event": 2.5, "fact": 0.6})
    if kind == "act":
        return scene.weighted(ACT) + scene.weighted(ADVERB)
    if kind == "event":
        return "{event}"
    return scene.pick(
        ("{F} said that {T.fact}", "the {T.role} explained that {T.fact}", "{s} read that {T.fact}")
    )


def neutral_sentence(scene: Scene) -> str:
    """A sentence that shows no emotion: one clause, two joined clauses, or a line of speech."""
    kind = scene.weighted({"one": 2, "front": 2.5, "two": 4, "line": 0.9})
    if kind == "line":
        line = scene.fresh(neutral.LINES)
        return scene.sentence(speech(scene, line, "{say}"))
    if kind == "one":
        return scene.sentence(neutral_clause(scene))
    if kind == "front":
        return scene.sentence(scene.pick(neutral.FRONT_TIME) + ", " + neutral_clause(scene))
    return scene.sentence(join(scene, neutral_clause(scene), neutral_clause(scene)))


def speech(scene: Scene, line: str, verb: str) -> str:
    """A quoted line with its speaker; a full stop inside the quote becomes a comma."""
    line = scene.expand(line)
    line = line[0].upper() + line[1:]
    inner = line[:-1] + "," if line.endswith(".") else line
    forms = (f'"{inner}" {{s}} {verb}.', f'"{inner}" {{N}} {verb}.', f'{{N}} {verb}: "{line}"')
    return scene.pick(forms)


# ---- with emotion
def feeling_clause(scene: Scene, strong: bool) -> str:
    """A clause that names the emotion."""
    degree = scene.pick(DEGREE_STRONG if strong else DEGREE_MILD)
    return scene.pick((
        "{s} was {d}{E.adj}", "{s} felt {d}{E.adj}", "{N} had never been so {E.adj}", "{s} was full of {E.noun}",
        "{E.noun} filled {P} heart", "{s} felt {E.noun} and {E.noun}", "it made {O} {d}{E.adj}",
        "{s} looked {d}{E.adj}", "{s} felt {E.adj} and {E.adj}", "{s} {T.vp} {E.adv}", "{s} {daily} {E.adv}",
    )).replace("{d}", degree)  # fmt: skip


def shown_clause(scene: Scene, reference: str | None) -> str:
    """A clause that shows the emotion without naming it; may point back at ``reference``."""
    weights = {"vp": 6, "mood": 4, "body": 2.5, "world": 2.5, "like": 0.7, "back": 2.0 if reference else 0.0}
    kind = scene.weighted(weights)
    if kind == "vp":
        return scene.pick(("{s} {E.vp}", "{s} {E.vp}", "{N} {E.vp}", "{s} {E.vp} and {E.vp}", "{s} {E.vp} {where}",
                           "{s} {E.vp} {time}", "{s} {E.vp} {E.mood}"))  # fmt: skip
    if kind == "mood":
        return scene.weighted(ACT) + scene.pick(
            (" {E.mood}", " {E.mood}", " {time} {E.mood}", " {where} {E.mood}")
        )
    if kind == "back":
        back = scene.pick((
            "{s} thought of {ref} and {E.vp}", "because of {ref}, {s} {E.vp}", "{s} could only think of {ref}",
            "at the thought of {ref}, {E.body}", "{s} told {F} about {ref} {E.mood}", "{s} spoke of {ref} {E.mood}",
        ))  # fmt: skip
        return back.replace("{ref}", reference or "it")
    return {"body": "{E.body}", "world": "{E.world}", "like": "{s} felt like {E.like}"}[kind]


def emotional_sentence(scene: Scene, strong: bool, reference: str | None = None) -> str:
    """A sentence that carries the scene's emotion, alone or joined with what else goes on."""
    words = EMOTIONS[scene.emotion or "calm"]
    kind = scene.weighted(FOCUSED if scene.focused else BROAD)
    if kind == "line":
        return scene.sentence(speech(scene, scene.fresh(words["line"]), "{E.say}"))
    if kind == "one":
        return scene.sentence(shown_clause(scene, reference))
    if kind == "named":
        feeling = feeling_clause(scene, strong)
        shown = shown_clause(scene, reference)
        plain = shown_clause(scene, reference) if scene.focused else neutral_clause(scene)
        other = scene.pick((None, shown, plain))
        if reference and scene.flip(0.3):
            return scene.sentence(f"{feeling} because of {reference}")
        if other is None:
            return scene.sentence(feeling)
        form = scene.pick(("{A}, and {B}", "{B}, and {A}", "{A} when {B}", "as {B}, {A}"))
        return scene.sentence(form.replace("{A}", feeling).replace("{B}", other))
    if kind == "two":
        return scene.sentence(join(scene, shown_clause(scene, reference), shown_clause(scene, reference)))
    return scene.sentence(join(scene, neutral_clause(scene), shown_clause(scene, reference)))


def friend_sentence(scene: Scene, emotion: str) -> str:
    """The friend shows another emotion; the main character's state is left as it was."""
    kept, slots = scene.emotion, dict(scene.slots)
    scene.emotion = emotion
    scene.slots["P"] = slots["friend_P"]
    template = scene.pick(("{F} was {E.adj}", "but {F} felt {E.adj}", "{F} {E.vp}", '"{E.line}" {F} {E.say}',
                           "meanwhile {F} {E.vp} {where}", "{E.body2} and {F} {E.vp}"))  # fmt: skip
    template = template.replace("{E.body2}", "{F} was {E.adj}")
    phrase = template
    while "{E.vp}" in phrase:  # the friend cannot act on itself
        choice = scene.fresh([v for v in EMOTIONS[emotion]["vp"] if "{F}" not in v and "{s}" not in v])
        phrase = phrase.replace("{E.vp}", choice, 1)
    phrase = phrase.replace("{E.line}", scene.pick([x for x in EMOTIONS[emotion]["line"] if "{" not in x]))
    text = scene.sentence(phrase)
    scene.emotion, scene.slots = kept, slots
    return text


def cause_sentence(scene: Scene) -> tuple[str, str]:
    """What happened to the main character, and how to refer to it later."""
    event, reference = scene.pick(EMOTIONS[scene.emotion or "calm"]["cause"])
    lead = scene.weighted({"": 3, "one day ": 1, "then ": 1, "that morning ": 1, "and then ": 1, "act": 3})
    if lead == "act":
        template = scene.pick(
            ("while {A}, {B}", "{A}, and then {B}", "as {A}, {B}", "when {A}, {B}", "after {A}, {B}")
        )
        template = template.replace("{A}", neutral_clause(scene)).replace("{B}", event)
    else:
        template = lead + event
    return scene.sentence(template), scene.expand(reference)
