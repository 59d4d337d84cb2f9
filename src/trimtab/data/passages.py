"""Texts to be read, as people have them: prose, lines of JSON, transcripts of chats."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.data.contrast import Item, check_messages
from trimtab.data.reading import json_of, numbered, text_of
from trimtab.errors import FormatError, InputError

#: Where records keep their text, and where their messages, in the order of preference.
TEXT_KEYS, MESSAGE_KEYS = ("text", "story", "content"), ("messages", "conversation", "transcript")
SUFFIXES = (".txt", ".md", ".jsonl", ".json")
EXPECTED = '{"text": …}, {"messages": […]} or {"conversation": […]}'


@dataclass(frozen=True)
class Passage:
    """A text or a chat under the name that messages and records use for it (`diary.txt`, `chats.jsonl:3`)."""

    name: str
    content: Item

    def __post_init__(self) -> None:
        if isinstance(self.content, str):
            if not self.content.strip():
                raise InputError(f"{self.name} is blank: there is nothing to read")
        else:
            check_messages(self.content, self.name)


def load_passages(path: Path, blocks: bool = False) -> list[Passage]:
    """The texts of a file, or of the known files in a folder, in the order of their names.

    A .txt or .md file is one text, or with `blocks` one per block between blank lines; .jsonl has one record a line;
    .json is a text, a record, or a list of either. A record holds text or messages; a `system_prompt` beside a
    conversation is put in front of it.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and p.is_file())
        if not files:
            raise FormatError(f"{path} holds no {', '.join(SUFFIXES)} file to read")
        return [passage for file in files for passage in load_passages(file, blocks)]
    if not path.exists():
        raise FormatError(f"no such file: {path}")
    found = list(_of_file(path, blocks))
    if not found:
        raise InputError(f"{path} is empty: it holds no texts")
    return found


def split_passages(text: str, name: str, blocks: bool = False) -> list[Passage]:
    """One text, or its blocks between blank lines, named `name:1`, `name:2`, …"""
    parts = [p.strip("\n") for p in re.split(r"\n(?:[ \t]*\n)+", text)] if blocks else [text.strip("\n")]
    parts = [p for p in parts if p.strip()]
    if not parts:
        raise InputError(f"{name} is blank: there is nothing to read")
    return [Passage(name if len(parts) == 1 else f"{name}:{i + 1}", p) for i, p in enumerate(parts)]


def _of_file(path: Path, blocks: bool) -> Iterator[Passage]:
    if path.suffix == ".jsonl":
        yield from (_of_record(record, f"{path.name}:{n}") for n, record in numbered(path))
    elif path.suffix == ".json":
        found = json_of(path)
        if isinstance(found, list) and not _is_chat(found):
            for n, record in enumerate(found, 1):
                yield _of_record(record, f"{path.name}:{n}")
        else:
            yield _of_record(found, path.name)
    else:
        yield from split_passages(text_of(path), path.name, blocks)


def _of_record(record: Any, where: str) -> Passage:
    if isinstance(record, str):
        return Passage(where, record)
    if _is_chat(record):
        return Passage(where, _turns(record))
    if not isinstance(record, Mapping):
        raise FormatError(f"{where} is a {type(record).__name__}, expected {EXPECTED}")
    for key in MESSAGE_KEYS:
        if _is_chat(record.get(key)):
            turns = _turns(record[key])
            system = record.get("system_prompt")
            if system and turns[0]["role"] != "system":
                turns = ({"role": "system", "content": system}, *turns)
            return Passage(where, turns)
    for key in TEXT_KEYS:
        if isinstance(record.get(key), str):
            return Passage(where, record[key])
    raise FormatError(f"{where} has the keys {sorted(map(str, record))}, expected {EXPECTED}")


def _turns(messages: list[Mapping[str, Any]]) -> tuple[Mapping[str, str], ...]:
    """Role and content alone: transcripts carry much else (ids, times, scores)."""
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)


def _is_chat(found: Any) -> bool:
    """A non-empty list of records that have a role."""
    return (
        isinstance(found, list)
        and bool(found)
        and all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in found)
    )
