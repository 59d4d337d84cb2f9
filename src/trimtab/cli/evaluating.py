"""Flags and checks that the verbs of evaluation share: items, scores, sampling, vector files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trimtab.errors import InputError

from . import steering
from .models import Glance

if TYPE_CHECKING:
    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Engine
    from trimtab.evaluation.items import Item
    from trimtab.evaluation.scorers.scorer import Scorer


def item_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--items`, `--split` and `--limit-items`."""
    for option in (
        click.option("--limit-items", type=int, default=None, help="Most prompts to use."),
        click.option("--split", default=None, help="Keep the rows of --items whose split is this."),
        click.option(
            "--items", default=None, metavar="FILE.jsonl",
            help="Prompts: rows of messages or prompt [default: the model's own, else neutral questions].",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def score_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--score` and `--score-set`."""
    for option in (
        click.option("--score-set", multiple=True, metavar="KEY=VALUE", help="Set a knob of the score."),
        click.option(
            "--score",
            default=None,
            help="classifier, logprob, projection or repetition [default: see docs/evaluation.md].",
        ),
    ):
        function = option(function)
    return function


#: `--continue-to`, which is no part of what a run is: the same command with it goes on in the same folder.
continue_option = click.option(
    "--continue-to", type=int, default=None, metavar="N",
    help="Go on with replies that the token limit has cut, up to N tokens in all.",
)  # fmt: skip


def read_given_items(items: str | None, split: str | None, limit: int | None) -> list[Item] | None:
    """The items of a file; None where the model's own are to be used. Checked before a model loads."""
    from trimtab.evaluation.items import read_items

    if limit is not None and limit < 1:
        raise InputError(f"--limit-items is at least 1, got {limit}")
    if items is None:
        if split is not None:
            raise InputError("--split chooses among the rows of --items FILE; give that too")
        return None
    return read_items(items, split=split, limit=limit)


def settings_of(pairs: Sequence[str], flag: str) -> dict[str, str]:
    """KEY=VALUE pairs as a dictionary."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{flag} takes KEY=VALUE, got {pair!r}")
        found[key] = value
    return found


def choose_score(
    name: str | None,
    pairs: Sequence[str],
    model: str,
    concepts: Sequence[str],
    items: Sequence[Item] | None,
    seed: int,
) -> Scorer:
    """The score asked for; else what fits: `logprob` where items carry continuations, `classifier` for emotions of the
    embedded model, `projection` for everything else."""
    from trimtab.evaluation.scorers import open_scorer
    from trimtab.evaluation.scorers.classifier import read_labelled

    settings = settings_of(pairs, "--score-set")
    if name is None:
        name = "projection"
        if items and all(i.continuations for i in items):
            name = "logprob"
        elif {"labelled", "corpus"} & set(settings):
            name = "classifier"
        elif model == "embedded":
            from trimtab import embedded

            labels = set(read_labelled(embedded.data("classifier.jsonl"))[1])
            name = "classifier" if set(concepts) <= labels else name
    return open_scorer(name, concepts, settings, seed)


def load_vectors(reference: str, seen: Glance, model: str) -> tuple[Path, ConceptVectors]:
    """A vector file (all its concepts, or FILE:concept) that fits the model, and where it lies."""
    from . import library

    vectors = steering.load_reference(reference)
    steering.check_fit(reference, vectors, seen, model)
    path = library.locate(reference) or library.locate(reference.rpartition(":")[0])
    assert path is not None
    return path, vectors


def with_norms(engine: Engine, vectors: ConceptVectors, note: Callable[[str], None]) -> ConceptVectors:
    """Measure the typical norms that the file lacks: a dose is a share of them."""
    from dataclasses import replace

    from trimtab.recipes import typical_norms

    missing = [s for s in vectors.sites if s not in vectors.typical_norms]
    if not missing:
        return vectors
    note(f"measuring typical norms at {len(missing)} sites on the neutral texts")
    return replace(vectors, typical_norms={**vectors.typical_norms, **typical_norms(engine, missing)})
