"""Reading: the same vectors, used the other way round, score every token of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.demo.materials import Messages, Story
from trimtab.demo.sampling import encode
from trimtab.demo.settings import DemoSettings
from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine
from trimtab.evaluation.statistics import auc
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.recipes import transcripts
from trimtab.sites import Site
from trimtab.strips.strip import Strip


@dataclass(frozen=True, eq=False)
class Reader:
    """Coordinates along the vectors at one site, as z-scores over the tokens of other stories."""

    engine: Engine
    readout: Readout
    site: Site
    mean: np.ndarray
    std: np.ndarray

    @property
    def concepts(self) -> tuple[str, ...]:
        """Columns of every reading."""
        return self.readout.concepts

    def z(self, prompts: Sequence[Prompt]) -> list[np.ndarray]:
        """z-scores [T, concepts] of each prompt, read by the unsteered model."""
        return [
            (r - self.mean) / self.std for r in coordinates(self.engine, self.readout, self.site, prompts)
        ]

    def answers(self, chats: Sequence[Messages], texts: Sequence[str]) -> list[Strip]:
        """Read given answers in their chats; only the answers' own tokens are returned."""
        prompts = [
            self.engine.encode([*chat, {"role": "assistant", "content": text}], generation_prompt=False)
            for chat, text in zip(chats, texts, strict=True)
        ]
        strips = []
        for prompt, z in zip(prompts, self.z(prompts), strict=True):
            start, end = prompt.role_ranges("assistant")[-1]
            pieces = pieces_of(self.engine, prompt)[start:end]
            strips.append(Strip(tuple(pieces), z[start:end]))
        return strips


@dataclass(frozen=True, eq=False)
class Readings:
    """How well segment means tell each emotion from the others on held-out stories, and the stories that
    are shown.
    """

    auc: dict[str, float]
    segments: int
    stories: int
    site: Site
    strips: tuple[Strip, ...]
    reader: Reader


def coordinates(engine: Engine, readout: Readout, site: Site, prompts: Sequence[Prompt]) -> list[np.ndarray]:
    """Raw readings [T, concepts] of each prompt."""
    return [readout.apply(site, c[site]) for c in engine.capture(list(prompts), [site])]


def pieces_of(engine: Engine, prompt: Prompt) -> list[str]:
    """The text that each token adds, special ones aside."""
    return transcripts.pieces_of(engine, prompt.tokens, special=False)


def study(
    engine: Engine, vectors: ConceptVectors, stories: Sequence[Story], settings: DemoSettings
) -> Readings:
    """Read the stories; show some whose emotion switches, calibrate z on the others, score all segments."""
    site = Site(settings.read_layer)
    readout = Readout.from_vectors(vectors, sites=[site])
    stories = list(stories)[: settings.stories]
    shown = [i for i, s in enumerate(stories) if len(set(s.emotions)) > 1][: settings.shown_stories]
    prompts = [encode(engine, s.text) for s in stories]
    raw = coordinates(engine, readout, site, prompts)
    pieces = [pieces_of(engine, p) for p in prompts]
    truths = [truth_of(s, p) for s, p in zip(stories, pieces, strict=True)]
    rest = np.concatenate([r[1:] for i, r in enumerate(raw) if i not in shown or len(raw) <= len(shown)])
    reader = Reader(engine, readout, site, rest.mean(0), rest.std(0) + 1e-9)
    means, names = segment_means(raw, truths)
    scores = {
        c: auc(means[names == c, k], means[names != c, k])
        for k, c in enumerate(readout.concepts)
        if 0 < np.sum(names == c) < len(names)
    }
    strips = tuple(Strip(tuple(pieces[i]), (raw[i] - reader.mean) / reader.std, truths[i]) for i in shown)
    return Readings(scores, len(names), len(stories), site, strips, reader)


def truth_of(story: Story, pieces: Sequence[str]) -> tuple[str, ...]:
    """The emotion of the segment that holds each token's last character."""
    found, at = [], 0
    offset = story.text.find("".join(pieces).strip()[:1] or " ")
    for piece in pieces:
        at += len(piece)
        last = max(0, at - 1 + max(0, offset))
        found.append(next((e for e, a, b in story.segments if a <= last < b), story.segments[-1][0]))
    return tuple(found)


def segment_means(
    raw: Sequence[np.ndarray], truths: Sequence[tuple[str, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean reading of each segment [segments, concepts] and its emotion; the first token of a text is a sink."""
    means, names = [], []
    for rows, truth in zip(raw, truths, strict=True):
        start = 0
        for i in range(1, len(truth) + 1):
            if i == len(truth) or truth[i] != truth[start]:
                kept = rows[max(start, 1) : i]
                if len(kept):
                    means.append(kept.mean(0))
                    names.append(truth[start])
                start = i
    return np.stack(means), np.array(names)
