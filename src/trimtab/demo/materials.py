"""The demo's texts: they ship with the embedded model, are disjoint by purpose, and were fixed before any
result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.data import load
from trimtab.data.contrast import Contrast
from trimtab.data.reading import records_of
from trimtab.demo.settings import NEUTRAL, DemoSettings
from trimtab.errors import FormatError, InputError
from trimtab.evaluation.coherence import Reference

Messages = tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Story:
    """A story with its emotion and the character ranges in which each emotion holds."""

    text: str
    emotion: str
    segments: tuple[tuple[str, int, int], ...]

    @property
    def emotions(self) -> tuple[str, ...]:
        """Emotions in order."""
        return tuple(s[0] for s in self.segments)


@dataclass(frozen=True)
class Dilemma:
    """A yes/no question whose honest answer is known."""

    question: str
    honest: str

    @property
    def messages(self) -> Messages:
        """As a chat."""
        return ({"role": "user", "content": self.question},)

    @property
    def sign(self) -> float:
        """+1 where yes is honest, −1 where no is."""
        return 1.0 if self.honest == "Yes" else -1.0


@dataclass(frozen=True, eq=False)
class Materials:
    """`feelings` and `honesty` are contrasts for extraction; `select` prompts choose layers, `evaluate`
    prompts are the items of every score; `labelled` texts train the classifier; dilemmas are for training
    or held out."""

    feelings: tuple[Contrast, ...]
    honesty: Contrast
    personas: Mapping[str, str]
    evaluate: tuple[Messages, ...]
    select: tuple[Messages, ...]
    labelled: tuple[tuple[str, str], ...]
    stories: tuple[Story, ...]
    openings: tuple[str, ...]
    train: tuple[Dilemma, ...]
    held_out: tuple[Dilemma, ...]
    open_questions: tuple[Messages, ...]
    reference: Reference

    @classmethod
    def read(cls, folder: Path, settings: DemoSettings) -> Materials:
        """Read the folder and check that it holds what the settings ask for."""
        contrasts = {c.concept: c for c in load(folder / "pairs.jsonl")}
        missing = [c for c in (*settings.emotions, "honest") if c not in contrasts]
        if missing:
            raise FormatError(f"{folder / 'pairs.jsonl'} lacks pairs for {', '.join(missing)}")
        prompts = _lines(folder / "prompts.jsonl")
        dilemmas = _lines(folder / "dilemmas.jsonl")
        classes = {*settings.emotions, NEUTRAL}
        return cls(
            feelings=tuple(contrasts[e] for e in settings.emotions),
            honesty=contrasts["honest"],
            personas=json.loads((folder / "personas.json").read_text(encoding="utf-8")),
            evaluate=_enough(_messages(prompts, "eval"), settings.prompts, "eval prompts"),
            select=_enough(_messages(prompts, "select"), settings.select_prompts, "select prompts"),
            labelled=tuple(
                (r["text"], r["label"]) for r in _lines(folder / "classifier.jsonl") if r["label"] in classes
            ),
            stories=tuple(_story(r) for r in _lines(folder / "stories.jsonl")),
            openings=tuple(r["text"] for r in _lines(folder / "openings.jsonl")),
            train=_dilemmas(dilemmas, "train", None),
            held_out=_dilemmas(dilemmas, "heldout", settings.honesty_items),
            open_questions=_messages(_lines(folder / "open_honesty.jsonl"), None),
            reference=Reference.load(folder / "trigrams.npz"),
        )


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [row for _, row in records_of(path)]
    except InputError as error:
        raise FormatError(f"{path} cannot be read: {error}; reinstall trimtab") from error


def _messages(rows: Sequence[Mapping[str, Any]], split: str | None) -> tuple[Messages, ...]:
    chosen = [r for r in rows if split is None or r["split"] == split]
    return tuple(tuple({"role": m["role"], "content": m["content"]} for m in r["messages"]) for r in chosen)


def _enough(found: tuple[Messages, ...], wanted: int, what: str) -> tuple[Messages, ...]:
    if len(found) < wanted:
        raise FormatError(f"the demo needs {wanted} {what}, and the embedded data hold {len(found)}")
    return found[:wanted]


def _dilemmas(rows: Sequence[Mapping[str, Any]], split: str, limit: int | None) -> tuple[Dilemma, ...]:
    return tuple(Dilemma(r["question"], r["honest"]) for r in rows if r["split"] == split)[:limit]


def _story(row: Mapping[str, Any]) -> Story:
    segments = tuple((s["emotion"], int(s["start"]), int(s["end"])) for s in row["segments"])
    return Story(row["text"], row["emotion"], segments)
