"""Prompts for a model that brings none of its own: to choose on, and others to report on.

The embedded model has prompts of its world, split once and for all. Any other model gets the questions that ship with
the neutral texts, or the beginnings of those texts where it has no chat template; the two purposes never share one.
"""

from __future__ import annotations

from trimtab import embedded
from trimtab.data.neutral import neutral_questions, neutral_texts
from trimtab.engines.base import Engine
from trimtab.errors import InputError
from trimtab.evaluation.items import Item, read_items

#: What prompts are for: layers, doses and ranges are chosen on the first, and figures reported on the second.
PURPOSES = ("choose", "report")
_SPLITS = {"choose": "select", "report": "eval"}
#: Words that begin a neutral text, for a model that continues texts.
OPENING = 8


def default_items(engine: Engine, model: str, purpose: str, limit: int | None = None) -> list[Item]:
    """Items for `purpose`; `model` is the name by which the engine was loaded."""
    if purpose not in PURPOSES:
        raise InputError(f"prompts are to {' or to '.join(PURPOSES)}, got {purpose!r}")
    if model == "embedded":
        return read_items(embedded.data("prompts.jsonl"), split=_SPLITS[purpose], limit=limit)
    if engine.info.template_hash:
        found = [Item.of([{"role": "user", "content": q}]) for q in neutral_questions()]
    else:
        found = [Item.of(" ".join(t.split()[:OPENING])) for t in neutral_texts()]
    return found[PURPOSES.index(purpose) :: 2][:limit]
