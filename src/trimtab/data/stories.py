"""Folders of texts, one file per concept: `stories/<concept>.txt`, `paired/<scenario>/<concept>.txt` with
`baseline.txt`, `direct/<concept>.txt`, alone or together in one folder.

Texts in a file are separated by lines `---` where it has any, else by blank lines. A file `_<name>.txt` holds
neutrals that all concepts share, and `baseline.txt` a scenario without any concept; neither is ever a concept.
The negatives of a concept are the texts of all other concepts, the baselines and the neutrals. Texts of one
scenario share a group, so that a split never puts them on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimtab.data.contrast import Contrast
from trimtab.data.options import Options, warn
from trimtab.data.reading import is_blank, text_of
from trimtab.errors import InputError

OPTIONS: frozenset[str] = frozenset()
KINDS = ("stories", "paired", "direct")
BASELINE = "baseline"
#: A pool of fewer concepts leaves the negatives one family: what they share is subtracted too.
FEW_CONCEPTS = 8
#: A file of at least so many lines without a separator was probably meant as one text per line.
MANY_LINES = 5


@dataclass(frozen=True)
class Story:
    """One text; `concept` is None for a neutral or a baseline."""

    text: str
    concept: str | None
    group: str


def claims(path: Path) -> bool:
    """A folder with stories/, paired/ or direct/, or one of these itself."""
    return path.is_dir() and bool(_files(path))


def load(path: Path, options: Options) -> list[Contrast]:
    """One unpaired contrast per concept, in alphabetical order."""
    files = _files(path)
    blank = [f for f in files if is_blank(f)]
    notes = list(options.skip_empty([str(f.relative_to(path)) for f in blank]))
    stories = _distinct([s for f in files if f not in blank for s in _read(f, path, notes)], notes)
    concepts = sorted({s.concept for s in stories if s.concept is not None})
    neutrals = any(s.concept is None for s in stories)
    if not concepts:
        raise InputError(f"{path} has no concept: every text is a neutral (_*.txt), a {BASELINE} or empty")
    if len(concepts) == 1 and not neutrals:
        raise InputError(
            f"{path} is one-sided: {concepts[0]!r} is its only concept, and there is no neutral; add another "
            f"concept's file, _neutral.txt, or paired/<scenario>/{BASELINE}.txt"
        )
    if len(concepts) < FEW_CONCEPTS and not neutrals:
        warn(
            f"{path} has {len(concepts)} concepts and no neutrals: each is told only from the others, and what "
            f"they share is lost; add neutral texts (_neutral.txt) or reach {FEW_CONCEPTS} concepts"
        )
    found = [_contrast(concept, stories, path) for concept in concepts]
    return [found[0].noted(notes), *found[1:]]


def texts_of(path: Path) -> list[str]:
    """The texts of one file."""
    lines = text_of(path).splitlines()
    if any(line.strip() == "---" for line in lines):
        parts = re.split(r"(?m)^[ \t]*---[ \t]*$", "\n".join(lines))
    else:
        parts = re.split(r"\n[ \t]*\n", "\n".join(lines))
    return [p.strip() for p in parts if p.strip()]


def _files(path: Path) -> list[Path]:
    named = [path / kind for kind in KINDS if (path / kind).is_dir()]
    places = named or [path]
    found = {f for place in places for pattern in ("*.txt", "*/*.txt") for f in place.glob(pattern)}
    return sorted(f for f in found if f.is_file() and not f.name.startswith("."))


def _read(file: Path, root: Path, notes: list[str]) -> Iterator[Story]:
    name = str(file.relative_to(root))
    texts = texts_of(file)
    lines = sum(bool(line.strip()) for line in texts[0].splitlines()) if len(texts) == 1 else 0
    if lines >= MANY_LINES:
        notes.append(f"{name} is read as one text of {lines} lines; separate texts by a blank line or by ---")
    shared = file.stem.startswith("_") or file.stem == BASELINE
    # A file two levels down belongs to a scenario: paired/<scenario>/<concept>.txt, or the folder paired itself.
    above = file.parent
    scenario = above != root and not (above.parent == root and above.name in KINDS)
    for i, text in enumerate(texts, start=1):
        group = f"scenario {above.name}" if scenario else f"{name} {i}"
        yield Story(text, None if shared else file.stem, group)


def _distinct(stories: list[Story], notes: list[str]) -> list[Story]:
    kept: dict[tuple[str | None, str], Story] = {}
    for story in stories:
        kept.setdefault((story.concept, story.text), story)
    if len(kept) < len(stories):
        notes.append(f"{len(stories) - len(kept)} repeated texts are read once")
    return list(kept.values())


def _contrast(concept: str, stories: list[Story], path: Path) -> Contrast:
    positive = [s for s in stories if s.concept == concept]
    negative = list({s.text: s for s in stories if s.concept != concept}.values())
    return Contrast(
        concept,
        tuple(s.text for s in positive),
        tuple(s.text for s in negative),
        groups=tuple(s.group for s in positive),
        negative_groups=tuple(s.group for s in negative),
        source=str(path),
    )
