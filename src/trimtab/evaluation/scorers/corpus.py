"""A corpus as labelled texts with groups: what a classifier is fitted on."""

from __future__ import annotations

from pathlib import Path

from trimtab.data import load
from trimtab.data.contrast import Contrast, Item
from trimtab.errors import InputError


def text_of(item: Item) -> str:
    """The text itself, or the last message of a chat: the question would tell the sides apart by itself."""
    return item if isinstance(item, str) else item[-1]["content"]


def question_of(item: Item) -> str | None:
    """What a reply answers: everything before the last message, without system messages; None for bare text."""
    if isinstance(item, str):
        return None
    return "\n".join(m["content"] for m in item[:-1] if m["role"] != "system")


def labelled_texts(
    path: Path, layout: str | None = None, concept: str | None = None
) -> tuple[list[str], list[bool], list[str]]:
    """Texts, whether each is positive, and its group: the corpus's own, else its question, else its pair or itself."""
    found = load(path, layout=layout, concept=concept)
    if len(found) != 1:
        names = ", ".join(c.concept for c in found)
        raise InputError(f"{path} holds {len(found)} concepts; name one with --concept: {names}")
    texts: list[str] = []
    labels: list[bool] = []
    groups: list[str] = []
    for positive, side in ((True, found[0].positive), (False, found[0].negative)):
        names = side_groups(found[0], positive)
        texts += [text_of(i) for i in side]
        labels += [positive] * len(side)
        groups += names
    return texts, labels, groups


def side_groups(contrast: Contrast, positive: bool) -> list[str]:
    """The group of every text of one side."""
    side = contrast.positive if positive else contrast.negative
    named = contrast.row_groups
    if named is not None:
        return [str(g) for g in named[0 if positive else 1]]
    questions = [question_of(i) for i in side]
    if all(questions):
        return [str(q) for q in questions]
    if contrast.paired:
        return [f"pair {i}" for i in range(len(side))]
    return [text_of(i) for i in side]
