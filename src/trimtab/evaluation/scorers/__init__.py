"""Scorers: what an answer is worth. One file per scorer, one lazy line here.

A scorer of *rows* (`Scorer.open`, `values(rows, concept)`) turns the rows of a run into numbers without a model:
`trimtab sweep`, `calibrate` and `score` take it by name. A scorer of *texts* (`TextScorer.score(answers)`) marks any
answers, with the reason where there is no mark. A *choice* scorer also asks questions with
options (`load(path)`, `asked(engine, item)`). `trimtab eval NAME` has those that need a model, an endpoint or a corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trimtab.errors import UnknownName

if TYPE_CHECKING:
    from trimtab.evaluation.scorers.scorer import Scorer

#: name -> "module:class"; the module is imported when the scorer is asked for.
SCORERS: dict[str, str] = {
    "ab_choice": "trimtab.evaluation.scorers.ab_choice:ABChoice",
    "classifier": "trimtab.evaluation.scorers.classifier:Classifier",
    "judge": "trimtab.evaluation.scorers.judge:Judge",
    "logprob": "trimtab.evaluation.scorers.logprob:Logprob",
    "multiple_choice": "trimtab.evaluation.scorers.multiple_choice:MultipleChoice",
    "perplexity": "trimtab.evaluation.scorers.perplexity:Perplexity",
    "projection": "trimtab.evaluation.scorers.projection:Projection",
    "repetition": "trimtab.evaluation.scorers.repetition:Repetition",
}


def scorer_class(name: str) -> Any:
    """The class of a registered scorer; imports its module."""
    if name not in SCORERS:
        raise UnknownName.of("scorer", name, SCORERS)
    module, _, attribute = SCORERS[name].partition(":")
    return getattr(import_module(module), attribute)


def open_scorer(
    name: str, concepts: Sequence[str], settings: Mapping[str, str] | None = None, seed: int = 0
) -> Scorer:
    """A scorer of rows by its registered name; one that needs more than rows says which verb has it."""
    return scorer_class(name).open(concepts, settings or {}, seed)
