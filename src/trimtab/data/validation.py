"""`validate` and `stats`: what a corpus is and what may be wrong with it, before any model loads."""

from __future__ import annotations

import os
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab import data as sources
from trimtab.data.checks import Finding, alike, check_concept, samples_for
from trimtab.data.contrast import Contrast
from trimtab.data.layouts import parts
from trimtab.data.options import CorpusWarning
from trimtab.data.words import plain, prefix_nodes, sides, word_prefixes
from trimtab.errors import InputError

#: Layouts that put an instruction or the concept's own word into every text, on purpose.
BY_DESIGN = ("template", "instructions")


def validate(path: str | os.PathLike[str], *, layout: str | None = None, **options: Any) -> list[Finding]:
    """Findings, worst first. What keeps the corpus from loading is an error; what may mislead a direction is a
    warning; the rest are notes. `options` are those of `trimtab.data.load`. No tokenizer is needed: recipes that cut by
    tokens are cut by words.
    """
    findings: list[Finding] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CorpusWarning)
        try:
            contrasts = sources.load(path, layout=layout, prefixes=word_prefixes, **options)
        except InputError as error:
            return [Finding("error", "load", str(error))]
        finally:
            findings += [Finding("warning", "load", str(w.message)) for w in caught]
    for note in dict.fromkeys(n for c in contrasts for n in c.notes):
        empty = "empty file" in note
        findings.append(Finding("warning" if empty else "note", "empty" if empty else "load", note))
    name = parts(Path(path), layout)[0]
    for contrast in contrasts:
        findings += check_concept(contrast, name in BY_DESIGN, samples_for(len(contrasts)))
    # The sides of a question differ by a letter: nothing is left to compare between behaviours.
    compared = contrasts if name != "answers" else []
    for one, other, cosine in alike(compared):
        findings.append(
            Finding(
                "warning",
                "alike",
                f"{one!r} and {other!r} use the same words (cosine {cosine:.2f}); merge them",
            )
        )
    return sorted(findings, key=lambda f: ("error", "warning", "note").index(f.severity))


def stats(path: str | os.PathLike[str], *, layout: str | None = None, **options: Any) -> dict[str, Any]:
    """Counts, words and shares, per concept and for the whole corpus."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorpusWarning)
        contrasts = sources.load(path, layout=layout, prefixes=word_prefixes, **options)
    texts = [plain(i) for c in contrasts for i in (*c.positive, *c.negative)]
    words, nodes = prefix_nodes(texts)
    return {
        "path": str(path),
        "layout": parts(Path(path), layout)[0],
        "concepts": {c.concept: _counted(c) for c in contrasts},
        "texts": len(texts),
        "distinct_texts": len(set(texts)),
        "words": words,
        "prefix_tree_words": nodes,
        "shared_by_prefix": 1 - nodes / max(words, 1),
    }


def _counted(contrast: Contrast) -> dict[str, Any]:
    positive, negative = sides(contrast)
    groups = set(contrast.groups) | set(contrast.negative_groups)
    return {
        **contrast.counts,
        "paired": contrast.paired,
        "pooling": contrast.read_pooling,
        "groups": len(groups),
        "words": {"positive": _median(positive), "negative": _median(negative)},
        "unique": len({*positive, *negative}) / (len(positive) + len(negative)),
        "scored": sum(s is not None for s in (*contrast.scores, *contrast.negative_scores)),
    }


def _median(texts: Sequence[str]) -> float:
    return float(statistics.median(len(t.split()) for t in texts))
