"""Scorers: what an answer is worth. One file per scorer, one lazy line here.

Two kinds. *Text* scorers mark answers that are already written (`TextScorer.score(rows)`); *choice* scorers ask the
model itself under plans (`ChoiceScorer.measure(engine, items, plans)`). Neither ever gives a default mark: where there
is no number there is a reason.
"""

from __future__ import annotations

import importlib
from typing import Any

from trimtab.errors import UnknownName

#: name -> "module:class"
SCORERS: dict[str, str] = {
    "ab_choice": "trimtab.evaluation.scorers.ab_choice:ABChoice",
    "classifier": "trimtab.evaluation.scorers.classifier:GroupedClassifier",
    "judge": "trimtab.evaluation.scorers.judge:Judge",
    "multiple_choice": "trimtab.evaluation.scorers.multiple_choice:MultipleChoice",
    "perplexity": "trimtab.evaluation.scorers.perplexity:Perplexity",
    "repetition": "trimtab.evaluation.scorers.repetition:Repetition",
}


def scorer_class(name: str) -> Any:
    """The class of a registered scorer; imports its module."""
    if name not in SCORERS:
        raise UnknownName.of("scorer", name, SCORERS)
    module, _, attribute = SCORERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
