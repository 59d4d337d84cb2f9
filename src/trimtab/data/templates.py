"""The persona template x suffix recipe (vgel/repeng's notebooks, after RepE, arXiv 2310.01405).

    template: "Act as if you're extremely {act}."   # exactly one placeholder, of any name
    concepts:                                       # or: concept, positive, negative at the top
      happy: {positive: [happy, joyful], negative: [sad, gloomy]}
                                                    # or a .jsonl of {"id", "pos", "neg"} beside this file
    suffixes: openings.json                         # a list, a JSON list or a .jsonl of {"text"} beside this file
    truncate: words                                 # every prefix of each suffix by words, or by the model's
                                                    # tokens; none (default): as they are
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
from trimtab.data.options import Options, Prefixes
from trimtab.data.reading import first_character, json_of, mapping_of, records_of
from trimtab.data.words import word_prefixes
from trimtab.errors import InputError, UnknownName

KEYS = ("template", "concept", "positive", "negative", "concepts", "suffixes", "truncate", "chat")
OPTIONS = frozenset({"chat"})
TRUNCATIONS = ("none", "words", "tokens")


def claims(path: Path) -> bool:
    """YAML, or a JSON object; a JSON list is another layout."""
    if not path.is_file():
        return False
    return path.suffix in (".yaml", ".yml") or (path.suffix == ".json" and first_character(path) == "{")


def load(path: Path, options: Options) -> list[Contrast]:
    """One contrast per concept of the recipe; `options.chat` overrules the recipe's own."""
    recipe = mapping_of(path)
    for key in recipe:
        if key not in KEYS:
            raise UnknownName.of("key", key, KEYS, f"It stands in {path}.")
    for key in ("template", "suffixes"):
        if key not in recipe:
            raise InputError(f"{path} lacks {key!r}; a recipe has template, suffixes, positive and negative")
    suffixes = recipe["suffixes"]
    if isinstance(suffixes, str):
        suffixes = _suffix_file(path.parent / suffixes)
    concepts = recipe.get("concepts") or {recipe.get("concept", path.stem): recipe}
    if isinstance(concepts, str):
        concepts = _concept_file(path.parent / concepts)
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
            prefixes=options.prefixes,
            chat=bool(recipe.get("chat", False)) if options.chat is None else options.chat,
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
    prefixes: Prefixes | None = None,
    chat: bool = False,
    source: str | None = None,
) -> Contrast:
    """The recipe as pairs, suffix by suffix; pairs that share a suffix's text share a group. `prefixes` cuts a
    suffix by a tokenizer's tokens, which `truncate="tokens"` needs (`trimtab.recipes.token_prefixes`).
    """
    field = _placeholder(template)
    if len(positive) != len(negative):
        raise InputError(
            f"{source or concept}: {len(positive)} positive and {len(negative)} negative words are not pairs"
        )
    endings, notes = _endings(suffixes, truncate, prefixes)
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


def _endings(
    suffixes: Sequence[str], truncate: str, prefixes: Prefixes | None
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """(ending, group) without blanks and repeats; the group is the whole suffix it was cut from."""
    cut = _cutter(truncate, prefixes)
    kept: dict[str, str] = {}
    for suffix in (s.strip() for s in suffixes):
        for ending in [*(e.strip() for e in cut(suffix)), suffix]:
            if ending:
                kept.setdefault(ending, suffix)
    blank = sum(not s.strip() for s in suffixes)
    notes = (f"{blank} blank suffixes left out",) if blank else ()
    return list(kept.items()), notes


def _cutter(truncate: str, prefixes: Prefixes | None) -> Prefixes:
    if truncate not in TRUNCATIONS:
        raise UnknownName.of("truncation", truncate, TRUNCATIONS)
    if truncate == "none":
        return lambda _: ()
    if truncate == "words":
        return word_prefixes
    if prefixes is None:
        raise InputError(
            "truncate: tokens needs the model's tokenizer, and none is at hand before the model loads (a hub "
            "id, or an engine of its own); use a model folder with tokenizer.json, or truncate: words"
        )
    return prefixes


def _suffix_file(file: Path) -> Any:
    """A JSON list of texts, or JSON lines with `text` (or question, or prompt)."""
    if file.suffix == ".json":
        return json_of(file)
    return [_field(row, ("text", "question", "prompt"), where) for where, row in records_of(file)]


def _concept_file(file: Path) -> dict[str, dict[str, str]]:
    """Persona pairs, one per line: {"id", "pos", "neg"}, of which a missing id is the pos."""
    found: dict[str, dict[str, str]] = {}
    for where, row in records_of(file):
        positive, negative = (_field(row, (side,), where) for side in ("pos", "neg"))
        name = str(row.get("id") or positive)
        if name in found:
            raise InputError(f"{where}: the concept {name!r} stands there twice")
        found[name] = {"positive": positive, "negative": negative}
    return found


def _field(row: Any, names: Sequence[str], where: str) -> str:
    value = next((row[n] for n in names if row.get(n)), None) if isinstance(row, Mapping) else None
    if not isinstance(value, str):
        raise InputError(f"{where} needs the key {' or '.join(names)}, a text")
    return value


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
