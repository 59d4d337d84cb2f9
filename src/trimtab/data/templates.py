"""The persona template x suffix recipe (vgel/repeng's notebooks, after RepE, arXiv 2310.01405).

    template: "Act as if you're extremely {act}."   # exactly one placeholder, of any name
    concepts:                                       # or: concept, positive, negative at the top
      happy: {positive: [happy, joyful], negative: [sad, gloomy]}
    suffixes: openings.json                         # a list, or a JSON list beside this file
    truncate: words                                 # every prefix of each suffix; none (default): as they are
    chat: false                                     # true: template in the user turn, suffix in the answer

Row (i, j) pairs "template(positive j) suffix i" with "template(negative j) suffix i": the two differ in one
word, and what the model makes of it is read at the last token of the suffix.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.data.contrast import Contrast, Item
from trimtab.data.reading import first_character, json_of, mapping_of
from trimtab.errors import InputError, UnknownName

KEYS = ("template", "concept", "positive", "negative", "concepts", "suffixes", "truncate", "chat")
TRUNCATIONS = ("none", "words")


def claims(path: Path) -> bool:
    """YAML, or a JSON object; a JSON list is another layout."""
    return path.suffix in (".yaml", ".yml") or (path.suffix == ".json" and first_character(path) == "{")


def load(path: Path, negatives: Path | None = None) -> list[Contrast]:
    """One contrast per concept of the recipe."""
    if negatives is not None:
        raise InputError(f"{path} is a recipe with its own negatives; leave --negatives out")
    recipe = mapping_of(path)
    for key in recipe:
        if key not in KEYS:
            raise UnknownName.of("key", key, KEYS, f"It stands in {path}.")
    for key in ("template", "suffixes"):
        if key not in recipe:
            raise InputError(f"{path} lacks {key!r}; a recipe has template, suffixes, positive and negative")
    suffixes = recipe["suffixes"]
    if isinstance(suffixes, str):
        suffixes = json_of(path.parent / suffixes)
    concepts = recipe.get("concepts") or {recipe.get("concept", path.stem): recipe}
    if not isinstance(concepts, Mapping):
        raise InputError(f"{path}: 'concepts' maps a name to its positive and negative words")
    return [
        persona_pairs(
            recipe["template"],
            _words(words, "positive", path),
            _words(words, "negative", path),
            _texts(suffixes, f"{path}: 'suffixes'"),
            concept=str(name),
            truncate=str(recipe.get("truncate", "none")),
            chat=bool(recipe.get("chat", False)),
            source=str(path),
        )
        for name, words in concepts.items()
    ]


def persona_pairs(
    template: str,
    positive: Sequence[str],
    negative: Sequence[str],
    suffixes: Sequence[str],
    *,
    concept: str,
    truncate: str = "none",
    chat: bool = False,
    source: str | None = None,
) -> Contrast:
    """The recipe as pairs, suffix by suffix; pairs that share a suffix's text share a group."""
    field = _placeholder(template)
    if len(positive) != len(negative):
        raise InputError(
            f"{source or concept}: {len(positive)} positive and {len(negative)} negative words are not pairs"
        )
    endings, notes = _endings(suffixes, truncate)
    if not endings:
        raise InputError(f"{source or concept}: the recipe has no suffixes that are not blank")

    def item(word: str, ending: str) -> Item:
        opening = template.replace("{" + field + "}", word).strip()
        if chat:
            return ({"role": "user", "content": opening}, {"role": "assistant", "content": ending})
        return f"{opening} {ending}"

    rows = [(p, n, e, g) for e, g in endings for p, n in zip(positive, negative, strict=True)]
    return Contrast(
        concept,
        tuple(item(p, e) for p, _, e, _ in rows),
        tuple(item(n, e) for _, n, e, _ in rows),
        paired=True,
        groups=tuple(g for *_, g in rows),
        pooling="last_content" if chat else "last",
        source=source,
        notes=notes,
    )


def _endings(suffixes: Sequence[str], truncate: str) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """(ending, group) without blanks and repeats; the group is the whole suffix it was cut from."""
    if truncate not in TRUNCATIONS:
        raise UnknownName.of("truncation", truncate, TRUNCATIONS)
    kept: dict[str, str] = {}
    for suffix in (s.strip() for s in suffixes):
        words = suffix.split()
        cuts = [" ".join(words[:n]) for n in range(1, len(words))] if truncate == "words" else []
        for ending in [*cuts, suffix]:
            if ending:
                kept.setdefault(ending, suffix)
    blank = sum(not s.strip() for s in suffixes)
    notes = (f"{blank} blank suffixes left out",) if blank else ()
    return list(kept.items()), notes


def _placeholder(template: Any) -> str:
    if not isinstance(template, str):
        raise InputError(f"a template is text with one placeholder, got {type(template).__name__}")
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise InputError(f"template {template!r}: {error}") from error
    if len(set(names)) != 1 or not names[0].isidentifier():
        raise InputError(
            f"template {template!r} needs exactly one placeholder, such as {{persona}} or {{act}}"
        )
    return names[0]


def _words(holder: Any, side: str, path: Path) -> list[str]:
    if not isinstance(holder, Mapping) or not holder.get(side):
        raise InputError(f"{path} is one-sided: no {side!r} words; a recipe needs positive and negative")
    value = holder[side]
    return _texts([value] if isinstance(value, str) else value, f"{path}: {side!r}")


def _texts(value: Any, where: str) -> list[str]:
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or not all(isinstance(v, str) for v in value)
    ):
        raise InputError(f"{where} must be a list of texts")
    return list(value)
