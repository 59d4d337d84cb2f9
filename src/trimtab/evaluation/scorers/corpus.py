"""A corpus as labelled texts with groups: what a classifier is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtab.data import load
from trimtab.data.contrast import Contrast, Item
from trimtab.errors import InputError

#: From this share of texts on both sides there is nothing to learn from them.
MOST_SHARED = 0.5


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
    """Texts, whether each is positive, and its group: texts that share the corpus's group, or their question, or are
    equal, are never parted."""
    found = load(path, layout=layout, concept=concept)
    if len(found) != 1:
        names = ", ".join(c.concept for c in found)
        raise InputError(f"{path} holds {len(found)} concepts; name one with --concept: {names}")
    texts: list[str] = []
    labels: list[bool] = []
    groups: list[str] = []
    questions: list[str | None] = []
    for positive, side in ((True, found[0].positive), (False, found[0].negative)):
        texts += [text_of(i) for i in side]
        labels += [positive] * len(side)
        groups += side_groups(found[0], positive)
        questions += [question_of(i) for i in side]
    both = {t for t, p in zip(texts, labels) if p} & {t for t, p in zip(texts, labels) if not p}
    shared = sum(t in both for t in texts) / len(texts)
    if shared > MOST_SHARED:
        raise InputError(
            f"{shared:.0%} of the replies of {found[0].concept!r} stand on both sides of {path} (only their prompts "
            "differ); a classifier reads replies: give a corpus whose texts themselves differ"
        )
    return texts, labels, joined(groups, [q or t for q, t in zip(questions, texts)])


def joined(*keys: Sequence[str]) -> list[str]:
    """One group per row, such that rows which share any of their keys share it (connected components)."""
    parent: dict[tuple[int, str], tuple[int, str]] = {}

    def root(node: tuple[int, str]) -> tuple[int, str]:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    rows = [[(k, name) for k, name in enumerate(row)] for row in zip(*keys, strict=True)]
    for first, *others in rows:
        for other in others:
            parent[root(other)] = root(first)
    return [f"{k}:{name}" for k, name in (root(row[0]) for row in rows)]


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
