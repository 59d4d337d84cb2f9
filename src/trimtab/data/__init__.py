"""Sources of contrast. A layout is one module here and one line in `LAYOUTS`; nothing in this room needs a
model.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.data.layouts import LAYOUTS, module_of, parts
from trimtab.errors import FormatError, InputError, UnknownName

if TYPE_CHECKING:
    from trimtab.data.contrast import Contrast
    from trimtab.data.options import Options, Prefixes

__all__ = ["LAYOUTS", "chat_follows_model", "load", "takes"]


def load(
    path: str | os.PathLike[str],
    *,
    negatives: str | os.PathLike[str] | None = None,
    concept: str | Sequence[str] | None = None,
    layout: str | None = None,
    chat: bool | None = None,
    questions: int | None = None,
    prefixes: Prefixes | None = None,
    strict: bool = False,
    min_positives: int = 1,
    against: str | None = None,
) -> list[Contrast]:
    """Read a file or a folder into one `Contrast` per concept, checked.

    `negatives` is a second file, for layouts of one concept per file. `concept` picks one concept of a corpus
    that names several (or some of them, in the order given), or names the only one. `layout` skips the sniffing.
    `chat` writes messages (True) or bare text (False) where a layout can do both, and `questions` takes only the
    first so many questions. `prefixes` gives all token prefixes of a text, for recipes that truncate by tokens.
    `strict` refuses empty files, which are otherwise skipped, named and counted in the notes; a concept with fewer
    than `min_positives` positive texts is refused. `against` chooses the negatives of judged responses, "neg" or
    "default".
    """
    from trimtab.data.options import Options

    path = _existing(path)
    other = None if negatives is None else _existing_file(negatives)
    options = Options(other, chat, questions, prefixes, strict, min_positives, against)
    found = _read(path, layout, options)
    if not found:
        raise InputError(f"{path} is empty: it holds no texts")
    chosen = _chosen(found, concept, path)
    for contrast in chosen:
        if len(contrast.positive) < min_positives:
            raise InputError(
                f"{contrast.source or path}: {contrast.concept!r} has {len(contrast.positive)} positive texts, "
                f"and --min-positives asks for {min_positives}; write more or lower it"
            )
    return chosen


def takes(path: str | os.PathLike[str], layout: str | None = None) -> frozenset[str]:
    """Which of `negatives`, `chat` and `questions` the layout of this path understands."""
    return module_of(parts(_existing(path), layout)[0]).OPTIONS


def chat_follows_model(path: str | os.PathLike[str], layout: str | None = None) -> bool:
    """Whether this corpus is best written as messages where the model has a chat template, and bare where it has
    none. A recipe takes `chat` too, and says itself which it means.
    """
    return parts(_existing(path), layout)[0] in ("answers", "instructions")


def _read(path: Path, layout: str | None, options: Options) -> list[Contrast]:
    name, places = parts(path, layout)
    module = module_of(name)
    for option in sorted(options.given - module.OPTIONS):
        if option == "negatives":
            raise InputError(f"{path} ({name}) brings its own negatives; leave --negatives out")
        raise InputError(f"{path} is in the layout {name!r}, which takes no --{option}; leave it out")
    places, notes = _filled(places, path, options)
    found = [c for place in places for c in module.load(place, options)]
    named: dict[str, Contrast] = {}
    for contrast in found:
        if (first := named.setdefault(contrast.concept, contrast)) is not contrast:
            raise InputError(
                f"{path} names the concept {contrast.concept!r} twice: in {first.source} and in "
                f"{contrast.source}; rename one, or name one of them as the corpus"
            )
    return [found[0].noted(notes), *found[1:]] if found and notes else found


def _filled(places: list[Path], path: Path, options: Options) -> tuple[list[Path], tuple[str, ...]]:
    """The files of a folder that are not empty; a lone file is the layout's own business."""
    from trimtab.data.reading import is_blank

    if places == [path]:
        return places, ()
    blank = [p for p in places if is_blank(p)]
    return [p for p in places if p not in blank], options.skip_empty(
        [str(p.relative_to(path)) for p in blank]
    )


def _chosen(found: list[Contrast], concept: str | Sequence[str] | None, path: Path) -> list[Contrast]:
    wanted = [concept] if isinstance(concept, str) else list(dict.fromkeys(concept or ()))
    if not wanted:
        return found
    named = {c.concept: c for c in found}
    if len(found) == len(wanted) == 1:
        return [named.get(wanted[0]) or found[0].renamed(wanted[0])]
    for name in wanted:
        if name not in named:
            raise UnknownName.of("concept", name, list(named), f"It stands in {path}.")
    return [named[name] for name in wanted]


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.exists():
        raise FormatError(f"no such file: {path}")
    return path


def _existing_file(path: str | os.PathLike[str]) -> Path:
    path = _existing(path)
    if path.is_dir():
        raise FormatError(f"{path} is a folder; --negatives takes one file")
    return path
