"""Role and trait instruction files (the assistant axis, arXiv 2601.10387; persona vectors, arXiv 2507.21509).

    roles/instructions/poet.json     {"instruction": [{"pos": "You are a poet."}, …], "questions": […]}
    roles/instructions/default.json  {"instruction": [{"pos": ""}, {"pos": "You are an AI assistant."}]}
    traits/instructions/calm.json    {"instruction": [{"pos": "Stay calm.", "neg": "Be tense."}, …], "questions": […]}
    extraction_questions.jsonl       {"question": "…"}  shared by all files; beside them or up to two folders above

Every instruction meets every question: as messages the instruction is the system's and the question the user's,
as bare text they stand one above the other. A trait's rows are pairs (same question, same place in the list); a
role's negatives are the default instructions with the same questions, not paired. The shared questions come
before the file's own: all roles then share their negatives, which run once.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.data.contrast import Contrast, Item
from trimtab.data.options import Options
from trimtab.data.reading import first_character, is_blank, json_of, mapping_of, records_of
from trimtab.errors import FormatError, InputError

OPTIONS = frozenset({"chat", "questions"})
DEFAULT = "default"
SHARED = ("extraction_questions.jsonl", "questions.jsonl")
FOLDERS = ("instructions", "roles", "traits")
#: The published defaults name the model; the name is not known here.
PLACEHOLDER = "{model_name}"


def claims(path: Path) -> bool:
    """A JSON object with `instruction`, or a folder of such files (or with instructions/, roles/, traits/)."""
    return any(_is_instructions(f) for f in _files(path))


def load(path: Path, options: Options) -> list[Contrast]:
    """One contrast per role or trait, named after its file."""
    files = [f for f in _files(path) if f.stem != DEFAULT]
    blank = [f for f in files if is_blank(f)] if path.is_dir() else []
    notes = options.skip_empty([str(f.relative_to(path)) for f in blank])
    other = [f for f in files if f not in blank and not _is_instructions(f)]
    if other:
        raise FormatError(f"{other[0]} holds no 'instruction', unlike its neighbours; move it elsewhere")
    found = [_contrast(f, options) for f in files if f not in blank]
    if not found:
        raise InputError(f"{path} is empty: it holds no role and no trait beside {DEFAULT}.json")
    return [found[0].noted(notes), *found[1:]]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".json" else []
    here = [f for f in sorted(path.glob("*.json")) if not f.name.startswith((".", "_"))]
    return here or [f for name in FOLDERS if (path / name).is_dir() for f in _files(path / name)]


def _is_instructions(file: Path) -> bool:
    if first_character(file) != "{":
        return False
    try:
        return "instruction" in json_of(file)
    except InputError:  # a damaged file: whoever reads it says where
        return False


def _contrast(file: Path, options: Options) -> Contrast:
    content = mapping_of(file)
    positive, dropped = _texts(content["instruction"], "pos", file)
    questions, notes = _questions(content, file, options.questions)
    chat = options.chat is not False
    if any("neg" in row for row in content["instruction"]):
        negative, _ = _texts(content["instruction"], "neg", file)
        if len(negative) != len(positive):
            raise InputError(
                f"{file}: {len(positive)} pos and {len(negative)} neg instructions are not pairs"
            )
        paired = True
    else:
        negative, lost = _defaults(file)
        if lost:
            notes.append(f"{lost} instructions of {DEFAULT}.json that name {PLACEHOLDER} are left out")
        paired = False
    if dropped:
        notes.append(f"{dropped} instructions of {file.name} that name {PLACEHOLDER} are left out")
    rows = [(i, q) for q in questions for i in range(len(positive))]
    others = rows if paired else [(i, q) for q in questions for i in range(len(negative))]
    return Contrast(
        file.stem,
        tuple(_item(positive[i], q, chat) for i, q in rows),
        tuple(_item(negative[i], q, chat) for i, q in others),
        paired=paired,
        groups=tuple(q for _, q in rows),
        negative_groups=() if paired else tuple(q for _, q in others),
        source=str(file),
        notes=tuple(notes),
    )


def _texts(rows: Any, side: str, file: Path) -> tuple[list[str], int]:
    """Instructions of one side, and how many were left out because they name the model."""
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise InputError(f"{file}: 'instruction' must be a list of {{\"pos\": …}}")
    texts = []
    for i, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping) or not isinstance(row.get(side), str):
            raise InputError(f"{file}: instruction {i} is one-sided: {side!r} is missing or is not text")
        if not row[side].strip() and file.stem != DEFAULT:
            raise InputError(f"{file}: instruction {i} has a blank {side!r}")
        texts.append(row[side].strip())
    kept = [t for t in texts if PLACEHOLDER not in t]
    return kept, len(texts) - len(kept)


def _defaults(file: Path) -> tuple[list[str], int]:
    default = file.with_name(f"{DEFAULT}.json")
    if not default.exists():
        raise InputError(
            f"{file} is one-sided: its instructions have no 'neg' (a role), and there is no {DEFAULT}.json "
            "beside it to serve as negatives"
        )
    content = mapping_of(default)
    if "instruction" not in content:
        raise FormatError(f"{default} needs the key 'instruction'")
    return _texts(content["instruction"], "pos", default)


def _questions(content: Mapping[str, Any], file: Path, limit: int | None) -> tuple[list[str], list[str]]:
    shared = next((f for d in list(file.parents)[:3] for n in SHARED if (f := d / n).is_file()), None)
    if shared is not None:
        rows = [_question(row, where) for where, row in records_of(shared)]
    else:
        rows = content.get("questions") or []
        if not isinstance(rows, list) or not all(isinstance(r, str) for r in rows):
            raise InputError(f"{file}: 'questions' must be a list of texts")
    questions = list(dict.fromkeys(q.strip() for q in rows if q.strip()))
    if not questions:
        raise InputError(f"{file} has no questions, and there is no {SHARED[0]} beside or above it")
    notes = []
    if limit is not None and limit < len(questions):
        notes.append(f"the first {limit} of {len(questions)} questions of {(shared or file).name} are asked")
    return list(itertools.islice(questions, limit)), notes


def _question(row: Any, where: str) -> str:
    if not isinstance(row, Mapping) or not isinstance(row.get("question"), str):
        raise InputError(f'{where}: a question is {{"question": …}}')
    return row["question"]


def _item(instruction: str, question: str, chat: bool) -> Item:
    if not chat:
        return f"{instruction}\n\n{question}" if instruction else question
    user = {"role": "user", "content": question}
    return ({"role": "system", "content": instruction}, user) if instruction else (user,)
