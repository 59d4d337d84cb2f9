"""Dilemmas with values on both actions: DailyDilemmas (arXiv 2410.02683) in its published schema, or one's own.

A row is one action of a dilemma: `dilemma_idx` (or `idx`), `dilemma_situation`, `action_type` (to_do or not_to_do),
`action`, and the values that the action serves in `values_aggregated` (or `values_names`), a list or a list written as
text. A second table, `values.csv` with `value, WVS, MFT, Virtue, Emotion, Maslow`, groups values by theory, so that a
target may be `honesty` or `Virtue/Truthfulness`.

Also read: questions whose honest answer is known, {"question", "honest": "Yes" or "No", "split"}; each is a dilemma of
one asked action whose value is honesty.
"""

from __future__ import annotations

import ast
import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.data.reading import records_of, text_of
from trimtab.errors import FormatError, InputError, MissingDependency, UnknownName

TO_DO, NOT_TO_DO = "to_do", "not_to_do"
THEORIES = ("WVS", "MFT", "Virtue", "Emotion", "Maslow")
_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
_NEEDED = ("dilemma_situation", "action_type", "action")


@dataclass(frozen=True)
class Action:
    """One action, and the values it serves, once per occurrence. An action without text is not asked."""

    kind: str
    text: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Dilemma:
    """A situation and its actions. `question` is the whole question where the file has written it out."""

    id: str
    situation: str
    actions: tuple[Action, ...]
    question: str | None = None
    topic: str | None = None
    split: str | None = None

    @property
    def asked(self) -> tuple[Action, ...]:
        """Actions that the model is asked about."""
        return tuple(a for a in self.actions if a.text)

    def label(self, value: str) -> int:
        """+1 where the value speaks for acting, −1 where it speaks against, 0 where neither or both alike.

        Counts every occurrence: on the action to_do as +1, on the other as −1; what is kept is the sign of the sum.
        """
        net = sum((1 if a.kind == TO_DO else -1) * a.values.count(value) for a in self.actions)
        return (net > 0) - (net < 0)


def load_dilemmas(path: Path, values: Path | None = None, split: str | None = None) -> list[Dilemma]:
    """Dilemmas of a file, or of a folder that holds one; `values` is the table of theories (default: `values.csv`
    beside the file). A value of a theory becomes the value `Theory/name` beside the value itself."""
    file = _file(path)
    rows = list(_rows(file))
    if rows and {"question", "honest"} <= set(rows[0][1]):
        found = [_question(row, where) for where, row in rows]
    else:
        found = _dilemmas(rows, file)
    if split is not None:
        have = sorted({d.split for d in found if d.split})
        if split not in have:
            raise UnknownName.of("split", split, have)
        found = [d for d in found if d.split == split]
    table = values or (file.parent / "values.csv" if (file.parent / "values.csv").is_file() else None)
    return found if table is None else _with_theories(found, theories(table))


def values_of(dilemmas: Iterable[Dilemma]) -> dict[str, int]:
    """Every value with the number of dilemmas on which it takes a side, most first."""
    counts: dict[str, int] = {}
    for dilemma in dilemmas:
        for value in dict.fromkeys(v for a in dilemma.actions for v in a.values):
            counts[value] = counts.get(value, 0) + (dilemma.label(value) != 0)
    return dict(sorted(counts.items(), key=lambda kv: (-kv[1], kv[0])))


def theories(path: Path) -> dict[str, tuple[str, ...]]:
    """value -> ("Virtue/Truthfulness", …) of a table with `value` and one column per theory."""
    found = {}
    for where, row in _rows(path):
        if "value" not in row:
            raise FormatError(
                f"{where}: a table of values has a column 'value' and columns {', '.join(THEORIES)}"
            )
        named = {k.lower(): v for k, v in row.items() if isinstance(k, str)}
        cells = ((t, str(named.get(t.lower()) or "").strip()) for t in THEORIES)
        found[_name(row["value"])] = tuple(f"{t}/{c}" for t, c in cells if c and c.lower() != "nan")
    return found


# --- reading


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise FormatError(f"no such file or folder: {path}")
    candidates = [
        p
        for p in sorted(path.rglob("*"))
        if p.suffix in _SUFFIXES and p.is_file() and set(_NEEDED) <= set(_head(p))
    ]
    if not candidates:
        raise FormatError(f"{path} holds no table of dilemmas (one with {', '.join(_NEEDED)}, and values)")
    if len(candidates) > 1:
        names = ", ".join(str(c.relative_to(path)) for c in candidates)
        raise InputError(f"{path} holds {len(candidates)} tables of dilemmas; name one: {names}")
    return candidates[0]


def _head(path: Path) -> Sequence[str]:
    """Column names of a file; none where it is something else."""
    try:
        return list(next(iter(_rows(path)))[1])
    except (InputError, StopIteration, MissingDependency):
        return ()


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix in (".csv", ".tsv"):
        delimiter = "\t" if path.suffix == ".tsv" else ","
        reader = csv.DictReader(io.StringIO(text_of(path), newline=""), delimiter=delimiter)
        yield from ((f"{path} line {reader.line_num}", row) for row in reader)
    elif path.suffix == ".parquet":
        yield from ((f"{path} row {i}", row) for i, row in enumerate(_parquet(path)))
    else:
        for where, row in records_of(path):
            if not isinstance(row, Mapping):
                raise FormatError(f"{where} is not an object")
            yield where, row


def _parquet(path: Path) -> list[Mapping[str, Any]]:
    try:
        from pyarrow import parquet  # type: ignore[import-not-found]
    except ImportError:
        raise MissingDependency.of("pyarrow", "datasets", f"reading {path.name}") from None
    return parquet.read_table(path).to_pylist()


def _dilemmas(rows: Sequence[tuple[str, Mapping[str, Any]]], file: Path) -> list[Dilemma]:
    """Action rows put together by dilemma, in order of first appearance."""
    if not rows:
        raise FormatError(f"{file} holds no dilemmas")
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for where, row in rows:
        missing = [k for k in _NEEDED if not isinstance(row.get(k), str) or not row[k].strip()]
        if missing:
            raise FormatError(f"{where} lacks {', '.join(missing)}; a row is one action of a dilemma")
        if row["action_type"] not in (TO_DO, NOT_TO_DO):
            raise FormatError(f"{where}: action_type is {TO_DO} or {NOT_TO_DO}, got {row['action_type']!r}")
        key = row.get("dilemma_idx", row.get("idx"))
        if key is None:
            raise FormatError(f"{where} lacks dilemma_idx, which says which dilemma an action belongs to")
        groups.setdefault(str(key), []).append((where, row))
    found = []
    for key, members in groups.items():
        kinds = [r["action_type"] for _, r in members]
        if len(set(kinds)) < len(kinds):
            raise FormatError(f"{members[0][0]}: dilemma {key} has two rows of one action_type")
        actions = tuple(
            Action(r["action_type"], r["action"].strip(), _values(r, where)) for where, r in members
        )
        first = members[0][1]
        topic, split = (None if first.get(k) is None else str(first[k]) for k in ("topic_group", "split"))
        found.append(Dilemma(key, first["dilemma_situation"].strip(), actions, topic=topic, split=split))
    return found


def _values(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    raw = next((row[k] for k in ("values_aggregated", "values_names") if row.get(k) is not None), None)
    if isinstance(raw, str):
        try:
            raw = ast.literal_eval(raw)
        except (ValueError, SyntaxError):
            raise FormatError(f"{where}: values_aggregated is no list: {raw[:60]!r}") from None
    if not isinstance(raw, list | tuple) or not all(isinstance(v, str) for v in raw):
        raise FormatError(f"{where} lacks values_aggregated, the list of values that its action serves")
    return tuple(_name(v) for v in raw)


def _name(value: Any) -> str:
    return str(value).strip().lower()


def _question(row: Mapping[str, Any], where: str) -> Dilemma:
    question, honest = row.get("question"), row.get("honest")
    if not isinstance(question, str) or honest not in ("Yes", "No"):
        raise FormatError(f'{where} needs a question and "honest": "Yes" or "No"')
    acting = honest == "Yes"
    actions = (
        Action(TO_DO, question, ("honesty",) if acting else ()),
        Action(NOT_TO_DO, "", () if acting else ("honesty",)),
    )
    return Dilemma(
        where.rpartition(" ")[2], str(row.get("situation", "")), actions, question, split=row.get("split")
    )


def _with_theories(dilemmas: Sequence[Dilemma], table: Mapping[str, tuple[str, ...]]) -> list[Dilemma]:
    def widened(a: Action) -> Action:
        return Action(a.kind, a.text, (*a.values, *(t for v in a.values for t in table.get(v, ()))))

    return [
        Dilemma(d.id, d.situation, tuple(map(widened, d.actions)), d.question, d.topic, d.split)
        for d in dilemmas
    ]
