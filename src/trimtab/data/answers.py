"""Questions with two answers, one that matches a behaviour and one that does not: CAA's A/B files (arXiv
2312.06681) and Anthropic's evaluations (arXiv 2212.09251), as a JSON list or JSON lines.

Each question makes a pair, the question followed by either answer, read at the answer's last token. An answer
"(A)" is written as "(A": the bracket that closes it is the same for every answer, and some tokenizers would
glue it to the letter. As messages the answer is the assistant's turn; as bare text it follows "Answer:".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.data.contrast import Contrast, Item
from trimtab.data.options import Options, warn
from trimtab.data.reading import first_record, records_of
from trimtab.errors import InputError

OPTIONS = frozenset({"chat"})
MATCHING, OTHER = "answer_matching_behavior", "answer_not_matching_behavior"
#: File names that say what a file is for; the concept is the name of their folder.
GENERIC = ("generate_dataset", "test_dataset_ab", "test_dataset_open_ended")
#: From this share on, one answer stands for the behaviour, and the direction would be that answer's.
ONE_ANSWER = 0.8


def claims(path: Path) -> bool:
    """A file whose records have a question and an answer that matches, or (to refuse it) a question alone."""
    found = set(first_record(path))
    return MATCHING in found or ("question" in found and found <= {"question", "id"})


def load(path: Path, options: Options) -> list[Contrast]:
    """One paired contrast, named after the file, or its folder where the file's name says only what it is for."""
    asked, notes = questions_of(path)
    chat = options.chat is not False
    rows = [(q, m, o) for q, (m, o) in asked.items()]
    concept = path.parent.name if path.stem in GENERIC and path.parent.name else path.stem
    _check_balance(concept, [m for _, m, _ in rows])
    return [
        Contrast(
            concept,
            tuple(_item(q, m, chat) for q, m, _ in rows),
            tuple(_item(q, o, chat) for q, _, o in rows),
            paired=True,
            pooling="last_content" if chat else "last",
            source=str(path),
            notes=notes,
        )
    ]


def questions_of(path: Path) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """question -> (answer that matches, answer that does not), without repeats and contradictions; notes."""
    found: dict[str, tuple[str, str]] = {}
    repeated, both = 0, set()
    for where, row in records_of(path):
        question, answers = _read(row, where)
        if found.setdefault(question, answers) != answers:
            both.add(question)
        elif found[question] is not answers:
            repeated += 1
    notes = [f"{repeated} repeated questions are read once"] if repeated else []
    if both:
        notes.append(f"{len(both)} questions that match both answers are left out, e.g. {min(both)[:60]!r}")
    return {q: a for q, a in found.items() if q not in both}, tuple(notes)


def _read(row: Any, where: str) -> tuple[str, tuple[str, str]]:
    if not isinstance(row, Mapping) or not isinstance(row.get("question"), str):
        raise InputError(f"{where} needs a question and the keys {MATCHING} and {OTHER}")
    if MATCHING not in row and OTHER not in row:
        raise InputError(
            f"{where} is an open-ended question, without answers: such files have no negatives and serve as "
            f"prompts (trimtab generate), not for extraction; take the A/B file of the same behaviour"
        )
    for key in (MATCHING, OTHER):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise InputError(f"{where} is one-sided: {key!r} is missing or is not text")
    matching, other = row[MATCHING].strip(), row[OTHER].strip()
    if matching == other:
        raise InputError(f"{where}: both answers are {matching!r}")
    if not row["question"].strip():
        raise InputError(f"{where}: the question is blank")
    return row["question"].strip(), (matching, other)


def _item(question: str, answer: str, chat: bool) -> Item:
    read = answer.removesuffix(")") if answer.startswith("(") else answer
    if chat:
        return ({"role": "user", "content": question}, {"role": "assistant", "content": read})
    return f"{question}\n\nAnswer: {read}"


def _check_balance(concept: str, matching: list[str]) -> None:
    if len(matching) < 5:
        return
    answer, n = Counter(matching).most_common(1)[0]
    if n / len(matching) >= ONE_ANSWER:
        warn(
            f"{n} of {len(matching)} questions of {concept!r} match with the answer {answer!r}: the direction "
            "would be that answer's; swap the choices of half of the questions"
        )
