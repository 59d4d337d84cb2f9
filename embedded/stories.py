"""Stories: a plot with a main character, causes, reactions, and now and then a change of heart."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedded import lexicon_neutral as neutral
from embedded.clauses import cause_sentence, emotional_sentence, friend_sentence, neutral_sentence
from embedded.grammar import Scene
from embedded.lexicon_emotions import EMOTIONS

NAMES = tuple(EMOTIONS)
TURNS = (
    "but then ",
    "suddenly ",
    "the next day everything changed: ",
    "later ",
    "but before the day was over, ",
)


@dataclass
class Story:
    """Sentences, each with the emotion it belongs to (``None``: neutral)."""

    sentences: list[tuple[str, str | None]] = field(default_factory=list)

    def add(self, sentence: str, emotion: str | None) -> None:
        """Append a sentence unless it is already there."""
        if all(sentence != other for other, _ in self.sentences):
            self.sentences.append((sentence, emotion))

    @property
    def text(self) -> str:
        """The whole story on one line."""
        return " ".join(sentence for sentence, _ in self.sentences)

    def segments(self) -> list[dict]:
        """Character spans of equal emotion; neutral is called ``"neutral"``."""
        spans: list[dict] = []
        position = 0
        for sentence, emotion in self.sentences:
            label, end = emotion or "neutral", position + len(sentence)
            if spans and spans[-1]["emotion"] == label:
                spans[-1]["end"] = end
            else:
                spans.append({"emotion": label, "start": position, "end": end})
            position = end + 1
        return spans


def react(scene: Scene, story: Story, count: int, strong: bool, reference: str | None) -> None:
    """``count`` sentences under the scene's emotion, most of them showing it."""
    for _ in range(count):
        if scene.focused or scene.flip(0.85 if strong else 0.65):
            story.add(emotional_sentence(scene, strong, reference), scene.emotion)
        else:
            kept, scene.emotion = scene.emotion, None
            sentence = neutral_sentence(scene)
            scene.emotion = kept
            story.add(sentence, kept)


def opening(scene: Scene, named: bool) -> str:
    """The first sentence; ``named`` gives the character its emotion at once."""
    if named and scene.emotion:
        forms = ("i was {E.adj} that day", "i felt {E.adj} when I came to {T.place}") if scene.first else (
            "once there was {a} {E.adj} {T.role} named {N}", "{N} was {a} {E.adj} {T.role}", "{N} was {E.adj}",
            "{N} went to {T.place} and felt {E.adj}",
        )  # fmt: skip
        return scene.sentence(scene.pick(forms))
    kept, scene.emotion = scene.emotion, None
    text = scene.sentence(scene.pick(neutral.OPEN_FIRST if scene.first else neutral.OPEN_THIRD))
    scene.emotion = kept
    return text


def neutral_part(scene: Scene, story: Story, count: int) -> None:
    """``count`` sentences that show nothing."""
    kept, scene.emotion = scene.emotion, None
    for _ in range(count):
        story.add(neutral_sentence(scene), None)
    scene.emotion = kept


def tell(scene: Scene, emotion: str | None, switch: float = 0.3, named: float = 0.25) -> Story:
    """A story about ``emotion`` (``None``: an uneventful one)."""
    scene.emotion = emotion
    story = Story()
    if emotion is None:
        story.add(opening(scene, False), None)
        neutral_part(scene, story, scene.pick((3, 4, 5, 6)))
        return story
    named_first = scene.flip(named)
    story.add(opening(scene, named_first), emotion if named_first else None)
    if not named_first:
        neutral_part(scene, story, scene.pick((0, 0, 1, 2)))
    strong, reference = scene.flip(0.6), None
    if scene.flip(0.7):
        sentence, reference = cause_sentence(scene)
        story.add(sentence, emotion)
    react(scene, story, scene.pick((2, 3, 4, 5)), strong, reference)
    if scene.flip(0.12):
        story.add(friend_sentence(scene, scene.pick([e for e in NAMES if e != emotion])), emotion)
    if scene.flip(switch):
        emotion = change(scene, story, emotion, strong)
    if scene.flip(0.5):
        story.add(scene.sentence(scene.pick(("", "", "in the end, ", "and ")) + "{E.end}"), emotion)
    return story


def change(scene: Scene, story: Story, emotion: str, strong: bool) -> str:
    """Something happens and the emotion turns into another one, which is returned."""
    new = scene.pick([e for e in NAMES if e != emotion])
    scene.emotion = new
    event, reference = scene.pick(EMOTIONS[new]["cause"])
    story.add(scene.sentence(scene.pick(TURNS) + event), new)
    react(scene, story, scene.pick((2, 3, 4)), strong, scene.expand(reference))
    return new
