"""Questions of a data set: lines of a text file, or records with a question, a prompt or messages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.data.contrast import check_messages
from trimtab.data.reading import records_of, text_of
from trimtab.errors import InputError

_KEYS = ("question", "prompt", "text")


@dataclass(frozen=True)
class Question:
    """One question; `id` is its own, or a hash of its messages."""

    id: str
    messages: tuple[Mapping[str, str], ...]

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1]["content"]


def load_questions(path: Path) -> list[Question]:
    """From .txt (one a line) or JSON lines or a JSON list of texts, {"question" | "prompt" | "text"} or {"messages"}.

    Equal questions are asked once.
    """
    if path.suffix == ".txt":
        rows: list[tuple[str, Any]] = [
            (f"{path} line {i}", line) for i, line in enumerate(text_of(path).split("\n"), 1) if line.strip()
        ]
    else:
        rows = list(records_of(path))
    found = [_question(row, where) for where, row in rows]
    distinct: dict[Any, Question] = {}
    for q in found:
        distinct.setdefault(tuple((m["role"], m["content"]) for m in q.messages), q)
    kept = list(distinct.values())
    if not kept:
        raise InputError(f"{path} holds no questions")
    if len({q.id for q in kept}) < len(kept):
        raise InputError(f"{path}: two questions have one id")
    return kept


def _question(row: Any, where: str) -> Question:
    given = None
    if isinstance(row, str):
        turns: Any = [{"role": "user", "content": row.strip()}]
    elif isinstance(row, Mapping) and "messages" in row:
        turns, given = row["messages"], row.get("id")
    elif isinstance(row, Mapping) and any(isinstance(row.get(k), str) for k in _KEYS):
        text = next(row[k] for k in _KEYS if isinstance(row.get(k), str))
        turns, given = [{"role": "user", "content": text.strip()}], row.get("id")
    else:
        raise InputError(f'{where} needs "question", "prompt" or "messages"')
    if not isinstance(turns, list) or not turns:
        raise InputError(f"{where}: messages are a list with at least one entry")
    check_messages(turns, where)
    if turns[-1]["role"] != "user":
        raise InputError(f"{where}: the last message is the user's, whom the model then answers")
    if not turns[-1]["content"].strip():
        raise InputError(f"{where}: the question is blank")
    text = "\0".join(f"{m['role']}:{m['content']}" for m in turns)
    name = str(given) if given is not None else hashlib.sha256(text.encode()).hexdigest()[:12]
    return Question(name, tuple({"role": m["role"], "content": m["content"]} for m in turns))
