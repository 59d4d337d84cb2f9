"""Read text files of data, with the file and the line in every complaint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trimtab.errors import FormatError, InputError

#: The append-only rows in a run folder.
SAMPLES = "samples.jsonl"


def text_of(path: Path) -> str:
    """A file's text; an empty, unreadable or binary file is an error in words."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    if not text.strip():
        raise InputError(f"{path} is empty: it holds no texts")
    return text


def json_of(path: Path) -> Any:
    """A whole JSON file."""
    return parse(text_of(path), path)


def parse(text: str, path: Path, line: int | None = None) -> Any:
    """JSON with the line in the error; `line` is that of a single-line record."""
    try:
        return json.loads(text)
    except ValueError as error:
        at = line if line is not None else getattr(error, "lineno", "?")
        message = getattr(error, "msg", str(error))
        column = getattr(error, "colno", "?")
        raise FormatError(f"{path} line {at}, column {column}: not JSON: {message}") from error


def mapping_of(path: Path) -> Mapping[str, Any]:
    """A JSON or YAML file that holds an object."""
    if path.suffix == ".json":
        found = json_of(path)
    else:
        import yaml

        try:
            found = yaml.safe_load(text_of(path))
        except yaml.YAMLError as error:
            raise FormatError(f"{path} is not YAML: {error}") from error
    if not isinstance(found, Mapping):
        raise FormatError(f"{path} must hold an object, not a {type(found).__name__}")
    return found


def first_character(path: Path) -> str:
    """The first character that is not a blank; "" where there is none or the file cannot be read as text."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            while chunk := stream.read(4096):
                if stripped := chunk.lstrip():
                    return stripped[0]
    except (OSError, UnicodeDecodeError):
        return ""
    return ""


def is_blank(path: Path) -> bool:
    """Whether a file has no character that is not a blank; one that cannot be read as text is not blank."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            return not any(line.strip() for line in stream)
    except (OSError, UnicodeDecodeError):
        return False


def records_of(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, record): the lines of a file of JSON lines, or the entries of a JSON list."""
    if path.suffix == ".json":
        rows = json_of(path)
        if not isinstance(rows, list):
            raise FormatError(f"{path} must hold a list, not a {type(rows).__name__}")
        yield from ((f"{path} entry {i}", row) for i, row in enumerate(rows, start=1))
        return
    yield from ((f"{path} line {number}", row) for number, row in numbered(path))


def numbered(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, record) of a file of JSON lines; blank lines are passed over, and counted."""
    # Not splitlines(): JSON text may hold U+2028 and its kin unescaped, and they end no line of the file.
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        if line.strip():
            yield number, parse(line, path, number)


def appended(path: Path) -> tuple[list[tuple[str, Any]], int]:
    """(where, record) of every whole line of an append-only file, and how many bytes the whole lines take.

    What follows the last line break is a record that a kill has torn: it is left out, and whoever appends next cuts the
    file there first. A broken line before it is an error.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}") from error
    whole = content.rfind(b"\n") + 1
    found = []
    for number, line in enumerate(content[:whole].split(b"\n"), start=1):
        if line.strip():
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise FormatError(f"{path} line {number} is not UTF-8 text: {error.reason}") from error
            found.append((f"{path} line {number}", parse(text, path, number)))
    return found, whole


def rows_of_run(folder: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """(where, record) of every finished unit of a run folder, in the order in which they were finished first. The last
    record of a unit counts: a reply that went on to a larger limit stands in the file twice."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for where, row in appended(folder / SAMPLES)[0]:
        if not isinstance(row, Mapping) or "key" not in row:
            raise FormatError(f"{where} is not a record of a run: it has no key")
        if "error" not in row:
            found[row["key"]] = where, row
    return list(found.values())


def first_record(path: Path) -> Mapping[str, Any]:
    """The first object of a file of JSON lines or of a JSON list, for recognising it; {} where there is none."""
    if path.suffix not in (".jsonl", ".ndjson", ".json") or not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig").lstrip()
        if path.suffix == ".json":
            text = text[1:].lstrip() if text.startswith("[") else ""
        found, _ = json.JSONDecoder().raw_decode(text)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}
