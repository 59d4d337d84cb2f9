"""What `trimtab sweep` measures with: vectors and their baseline, fluency, readout, words of the prompt baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError, UnknownName
from trimtab.extraction import DEFAULT

if TYPE_CHECKING:
    from trimtab.data.contrast import Contrast
    from trimtab.directions import ConceptVectors
    from trimtab.engines.base import Engine
    from trimtab.sites import Site

    from .frame import Desk
    from .models import Glance


def read_corpus(desk: Desk, data: str, concepts: Sequence[str], seen: Glance, every: bool) -> list[Contrast]:
    """The corpus's contrasts, or those of some concepts; `every` refuses a corpus that lacks one of them, which is else
    warned of."""
    from trimtab import data as sources

    chat = seen.chat_template if sources.chat_follows_model(data) else None
    found = sources.load(data, chat=chat, prefixes=seen.token_prefixes())
    kept = [c for c in found if not concepts or c.concept in concepts]
    missing = [c for c in concepts if c not in {k.concept for k in kept}]
    if missing and (every or not kept):
        raise UnknownName.of("concept", missing[0], [c.concept for c in found], f"It stands in {data}.")
    if missing:
        desk.warn(f"{data} has no {', '.join(missing)}: no mean difference stands beside")
    return kept


def extracted(
    desk: Desk,
    runner: Engine,
    contrasts: Sequence[Contrast],
    names: Sequence[str],
    sites: list[Site],
    pooling: str | None,
) -> tuple[dict[str, ConceptVectors], ConceptVectors]:
    """A file per method and the mean differences, which are the baseline of every method; one pass over the texts."""
    from trimtab import recipes
    from trimtab.recipes.several import extract_several

    methods = [recipes.choose_method(m, desk.seed) for m in dict.fromkeys([*names, DEFAULT])]
    with desk.progress("extract", sum(n for c in contrasts for n in c.counts.values())) as bar:
        files = extract_several(runner, contrasts, methods, sites, pooling, lambda *_: bar.advance(1))
    return {m: files[m] for m in names}, files[DEFAULT]


def fluency(runner: Engine, model: str, score: Any, run: Any) -> Any:
    """Nats of neutral text where nothing is generated, trigrams for the embedded model, else the plain model's loss."""
    from trimtab import embedded
    from trimtab.evaluation.coherence import Reference
    from trimtab.evaluation.fluency import NeutralNll, PlainLoss, Trigrams

    if score.needs == "continuations":
        return NeutralNll(runner, run)
    if model == "embedded":
        return Trigrams(Reference.load(embedded.data("trigrams.npz")))
    return PlainLoss()


def readout(files: dict[str, ConceptVectors]) -> Any:
    """The deepest residual site of the first file: what reaches it has been through the blocks after the push."""
    from trimtab.readouts import Readout

    vectors = next(iter(files.values()))
    deepest = max((s for s in vectors.sites if s.stream == "resid_post"), default=None)
    if deepest is None:
        raise InputError(
            "the score 'projection' reads resid_post, and the file has no rows there; use --score"
        )
    return Readout.from_vectors(vectors, [deepest])


def personas(model: str) -> dict[str, str]:
    """The embedded model's words in front of a prompt, by concept."""
    from trimtab import embedded

    if model != "embedded":
        return {}
    return json.loads(Path(embedded.data("personas.json")).read_text(encoding="utf-8"))


def prompt_words(model: str, concepts: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """What the prompt baseline says of each concept: the words of `--prefix`, the model's own, or "You are CONCEPT."; a
    concept that a merge calls FILE.CONCEPT keeps its own name there."""
    from trimtab.evaluation.conditions import PREFIX

    for name in given:
        if name not in concepts:
            raise UnknownName.of("concept of --prefix", name, concepts)
    own, short = personas(model), {c: c.rpartition(".")[2] for c in concepts}
    return {c: given.get(c) or own.get(short[c]) or PREFIX.format(concept=short[c]) for c in concepts}
