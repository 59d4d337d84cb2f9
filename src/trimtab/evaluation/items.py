"""Items: the prompts that an evaluation resamples, each under a stable name.

A file of items is JSONL. A row has "messages" (a chat) or "prompt" (bare text), and may have

    id              its name; else a hash of the prompt, so that order and additions change nothing
    continuations   {label: [text, …]}, for scores that read how likely given texts become
    split           what `read_items(split=…)` keeps
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.data.reading import records_of
from trimtab.engines.base import Engine
from trimtab.engines.requests import Message
from trimtab.engines.surface import check_messages
from trimtab.errors import FormatError, InputError
from trimtab.prompts import Prompt
from trimtab.records import unit_key


@dataclass(frozen=True, eq=False)
class Item:
    """One prompt: text, or a tuple of messages. `continuations` maps a label (a concept) to texts that follow it."""

    id: str
    prompt: str | tuple[Message, ...]
    continuations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        prompt: str | Sequence[Message],
        id: str | None = None,
        continuations: Mapping[str, Sequence[str]] | None = None,
    ) -> Item:
        """An item; without an `id` its name is a hash of the prompt and the continuations."""
        what = prompt if isinstance(prompt, str) else tuple(dict(m) for m in check_messages(prompt))
        if not what:
            raise InputError("an item's prompt is empty")
        after = {k: tuple(v) for k, v in (continuations or {}).items()}
        if any(not texts or not all(texts) for texts in after.values()):
            raise InputError(f"every label of an item's continuations needs texts, got {after}")
        return cls(id or unit_key([what, after])[:12], what, after)

    @property
    def question(self) -> str:
        """The text, or the last turn."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[-1]["content"]

    def encode(self, engine: Engine, system: str | None = None) -> Prompt:
        """The prompt's tokens. `system` is a system message in front of a chat, and plain words in front of text."""
        if isinstance(self.prompt, str):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # bare text on purpose: the file says so
                return engine.encode(self.prompt if system is None else f"{system} {self.prompt}", bare=True)
        turns = list(self.prompt)
        if system is not None and turns[0]["role"] == "system":
            turns[0] = {"role": "system", "content": f"{system}\n{turns[0]['content']}"}
        elif system is not None:
            turns = [{"role": "system", "content": system}, *turns]
        return engine.encode(turns)


def check_items(items: Sequence[Item]) -> list[Item]:
    """Refuse an empty list and names that stand twice: the item is what intervals resample."""
    if not items:
        raise InputError("an evaluation needs at least one item")
    names = [i.id for i in items]
    if len(set(names)) < len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise InputError(f"items need distinct ids; these stand twice: {', '.join(twice[:5])}")
    return list(items)


def read_items(
    path: str | os.PathLike[str], *, split: str | None = None, limit: int | None = None
) -> list[Item]:
    """Items of a JSONL file, in order; equal prompts are kept once."""
    file = Path(path)
    if not file.is_file():
        raise FormatError(f"no such file of items: {file}")
    found: dict[str, Item] = {}
    for where, row in records_of(file):
        try:
            if split is not None and row.get("split") != split:
                continue
            item = _item(row)
        except (ValueError, TypeError, AttributeError) as error:
            raise FormatError(f"{where} is not an item: {error}") from error
        found.setdefault(item.id, item)
        if limit is not None and len(found) == limit:
            break
    if not found:
        raise FormatError(f"{file} holds no items" + (f" of split {split!r}" if split else ""))
    return list(found.values())


def _item(row: Mapping[str, Any]) -> Item:
    given = [k for k in ("messages", "prompt") if row.get(k)]
    if len(given) != 1:
        raise InputError('a row has exactly one of "messages" and "prompt"')
    return Item.of(row[given[0]], row.get("id"), row.get("continuations"))
