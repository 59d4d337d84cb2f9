"""`Contrast`: one concept's texts against others, checked without a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trimtab.activations import check_pooling
from trimtab.errors import InputError

#: Bare text, or messages: ({"role": "user", "content": "…"}, …).
Item = str | tuple[Mapping[str, str], ...]
SIDES = ("positive", "negative")
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Contrast:
    """One concept: texts that show it (`positive`) and texts that do not (`negative`).

    `paired` sides line up row by row, and `groups` (one per pair) tell which pairs must stay together when
    data are split. Sides that are not paired may name a group for every text (`groups` for the positives,
    `negative_groups` for the negatives): texts of one scenario share a group. `pooling` is the read position
    this layout asks for (None: see `read_pooling`); `scores` and
    `negative_scores` are a judge's marks, one per text (None where a text has none), for methods that select by
    them; `notes` say what the loader decided on the reader's behalf.
    """

    concept: str
    positive: tuple[Item, ...]
    negative: tuple[Item, ...]
    paired: bool = False
    groups: tuple[str, ...] = ()
    pooling: str | None = None
    source: str | None = None
    notes: tuple[str, ...] = ()
    negative_groups: tuple[str, ...] = ()
    scores: tuple[float | None, ...] = ()
    negative_scores: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        for side in SIDES:
            object.__setattr__(self, side, tuple(getattr(self, side)))
        object.__setattr__(self, "groups", tuple(self.groups))
        for name in ("negative_groups", "scores", "negative_scores"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.concept.strip():
            raise InputError(f"{self._where}: a concept needs a name; give one with --concept")
        if self.pooling is not None:
            check_pooling(self.pooling)
        self._check_sides()
        self._check_scores()
        self._check_items()
        self._check_overlap()

    @property
    def _where(self) -> str:
        return self.source or f"the data of {self.concept!r}"

    def _check_sides(self) -> None:
        if not self.positive and not self.negative:
            raise InputError(
                f"{self._where} holds no texts for {self.concept!r}; a contrast needs both sides"
            )
        for side, texts in ((s, getattr(self, s)) for s in SIDES):
            if not texts:
                raise InputError(
                    f"{self._where} is one-sided: {self.concept!r} has no {side} texts; "
                    "a direction needs both sides (see --negatives)"
                )
        if not self.paired:
            self._check_groups()
            return
        if self.negative_groups:
            raise InputError(f"{self._where}: pairs have one group each; leave negative_groups out")
        if len(self.positive) != len(self.negative):
            raise InputError(
                f"{self._where}: {len(self.positive)} positive and {len(self.negative)} negative texts of "
                f"{self.concept!r} are not pairs"
            )
        if not self.groups:
            object.__setattr__(self, "groups", tuple(str(i) for i in range(len(self.positive))))
        if len(self.groups) != len(self.positive):
            raise InputError(f"{self._where}: {len(self.groups)} groups for {len(self.positive)} pairs")

    def _check_groups(self) -> None:
        if not self.groups and not self.negative_groups:
            return
        found = len(self.groups), len(self.negative_groups)
        if found != (len(self.positive), len(self.negative)):
            raise InputError(
                f"{self._where}: {found[0]} and {found[1]} groups for {len(self.positive)} positive and "
                f"{len(self.negative)} negative texts of {self.concept!r}; name one for every text, or none"
            )

    def _check_scores(self) -> None:
        found = len(self.scores), len(self.negative_scores)
        if any(found) and found != (len(self.positive), len(self.negative)):
            raise InputError(
                f"{self._where}: {found[0]} and {found[1]} scores for {len(self.positive)} positive and "
                f"{len(self.negative)} negative texts of {self.concept!r}; give one for every text, or none"
            )

    def _check_items(self) -> None:
        kinds = set()
        for side in SIDES:
            for i, item in enumerate(getattr(self, side)):
                where = f"{self._where}: {side} text {i + 1} of {self.concept!r}"
                kinds.add(isinstance(item, str))
                if isinstance(item, str):
                    if not item.strip():
                        raise InputError(f"{where} is blank; remove it or fill it in")
                else:
                    check_messages(item, where)
        if len(kinds) > 1:
            raise InputError(
                f"{self._where}: {self.concept!r} mixes bare texts and messages; they are read at different "
                "positions, so write all of them one way"
            )

    def _check_overlap(self) -> None:
        positive = {key_of(i) for i in self.positive}
        both = [i for i in self.negative if key_of(i) in positive]
        if both:
            raise InputError(
                f"{self._where}: {len(both)} texts of {self.concept!r} stand on both sides, e.g. "
                f"{shown(both[0])}; "
                "remove them from one"
            )

    @property
    def messages(self) -> bool:
        """Whether the items are messages rather than bare texts."""
        return not isinstance(self.positive[0], str)

    @property
    def answers(self) -> bool:
        """Whether the text that is read stands in an assistant turn (every item ends with one)."""
        return self.messages and all(_ends_with_assistant(i) for i in (*self.positive, *self.negative))

    @property
    def read_pooling(self) -> str:
        """`pooling`, else: bare text `mean_all` (its first token dropped), answers `mean_assistant`, and
        messages that wait for an answer `prompt_last`.
        """
        return self.pooling or default_pooling(self)

    @property
    def row_groups(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """The group of every positive and of every negative text; None where nothing must stay together."""
        if not self.groups:
            return None
        return self.groups, self.groups if self.paired else self.negative_groups

    @property
    def row_scores(self) -> tuple[tuple[float | None, ...], tuple[float | None, ...]] | None:
        """The judge's mark of every positive and of every negative text; None where nothing was judged."""
        return (self.scores, self.negative_scores) if self.scores else None

    @property
    def counts(self) -> dict[str, int]:
        """How many texts each side has."""
        return {s: len(getattr(self, s)) for s in SIDES}

    @property
    def hash(self) -> str:
        """Hash of everything that changes a result: concept, texts, pairing."""
        sides = [[key_of(i) for i in getattr(self, s)] for s in SIDES]
        groups = list(self.groups) if self.paired or not self.groups else [self.groups, self.negative_groups]
        scored = [[self.scores, self.negative_scores]] if self.scores else []
        text = json.dumps([self.concept, sides, self.paired, groups, *scored])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def renamed(self, concept: str) -> Contrast:
        """The same texts under another name."""
        return replace(self, concept=concept)

    def noted(self, notes: Sequence[str]) -> Contrast:
        """The same texts with more notes, first."""
        return replace(self, notes=(*notes, *self.notes))


def default_pooling(contrast: Contrast) -> str:
    """What is read where neither the caller nor the layout says."""
    if not contrast.messages:
        return "mean_all"
    return "mean_assistant" if contrast.answers else "prompt_last"


def key_of(item: Item) -> str:
    """A text that is equal for equal items."""
    return item if isinstance(item, str) else json.dumps([[m["role"], m["content"]] for m in item])


def shown(item: Item) -> str:
    """A short quotation for a message."""
    text = item if isinstance(item, str) else item[-1]["content"]
    return repr(text if len(text) <= 60 else text[:57] + "…")


def as_item(value: Any, where: str) -> Item:
    """Text, `{"messages": […]}` or a list of messages; anything else is refused by name."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and set(value) == {"messages"}:
        value = value["messages"]
    if isinstance(value, Sequence) and all(isinstance(m, Mapping) for m in value):
        check_messages(value, where)
        return tuple({"role": m["role"], "content": m["content"]} for m in value)
    raise InputError(f'{where} must be text or {{"messages": […]}}, got {type(value).__name__}')


def check_messages(messages: Sequence[Any], where: str) -> None:
    """Refuse messages that no chat template could render."""
    if not messages:
        raise InputError(f"{where} has no messages")
    for m in messages:
        if not isinstance(m, Mapping) or set(m) != {"role", "content"}:
            raise InputError(f'{where}: a message is {{"role": …, "content": …}}, got {m!r}')
        if m["role"] not in ROLES:
            raise InputError(f"{where}: role {m['role']!r} is not one of {', '.join(ROLES)}")
        if not isinstance(m["content"], str):
            raise InputError(f"{where}: the content of {m['role']!r} is not text")
    if not messages[-1]["content"].strip():
        raise InputError(f"{where}: the last message is blank")


def _ends_with_assistant(item: Item) -> bool:
    return not isinstance(item, str) and item[-1]["role"] == "assistant"
