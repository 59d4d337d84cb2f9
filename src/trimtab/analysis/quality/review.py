"""The report on a file that somebody hands over: with the model and texts as far as they are there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.activations import check_pooling
from trimtab.analysis.quality.assess import examine
from trimtab.analysis.quality.findings import QualityReport
from trimtab.analysis.quality.study import BESIDE, NEEDS, Study
from trimtab.data.contrast import Contrast
from trimtab.data.exclusion import Kept
from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine, Progress
from trimtab.errors import InputError
from trimtab.extraction import METHODS, make, method_class
from trimtab.extraction.method import Method
from trimtab.recipes.fitting import joint_hash
from trimtab.recipes.vectors import gather


@dataclass(frozen=True)
class Corpus:
    """Texts to judge a file on, the whole corpus they come from (empty: they are all of it), and what of it was kept
    after exclusions (None: everything)."""

    contrasts: tuple[Contrast, ...]
    whole: tuple[Contrast, ...] = ()
    kept: Kept | None = None

    @property
    def hashes(self) -> set[str]:
        """Hashes under which a file made from these texts may know them."""
        found = {joint_hash(self.contrasts)}
        return found | ({joint_hash(self.whole)} if self.whole else set())


def review(
    vectors: ConceptVectors,
    engine: Engine | None = None,
    corpus: Corpus | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> QualityReport:
    """Report on `vectors`. On the very texts they were made from, their method is fitted again for what is held out; on
    other texts the finished vectors are read, which is a harder test."""
    if engine is not None:
        vectors.check_model(engine.info)
    if corpus is None or engine is None:
        return examine(Study(vectors, engine, seed=seed), progress)
    same = vectors.origin.data_hash in corpus.hashes
    method, notes = _method(vectors, corpus.contrasts)
    readings, evidence = gather(
        engine, corpus.contrasts, _needs(method), vectors.sites, _pooling(vectors), beside=BESIDE
    )
    names = [c.concept for c in corpus.contrasts]
    report = examine(
        Study(
            vectors,
            engine,
            dict(zip(names, corpus.contrasts)),
            dict(zip(names, evidence)),
            method,
            refit=same,
            kept=corpus.kept,
            seed=seed,
        ),
        progress,
    )
    notes.append(_said(vectors, same, method))
    notes.append(f"texts are read {', '.join(dict.fromkeys(r.pooling for r in readings))}")
    return dataclasses.replace(report, notes=(*report.notes, *notes))


def _said(vectors: ConceptVectors, same: bool, method: Method | None) -> str:
    if same:
        return "the texts are those that the file was made from" + (
            ": held-out figures refit its method" if method is not None else ", and were not held out"
        )
    if vectors.origin.data_hash is None:
        return (
            "the file does not say what texts it was made from; if these are among them, its AUC is flattered"
        )
    return (
        "this is not the corpus that the file was made from: its finished vectors are read on it; texts that stand in "
        "both would flatter the AUC"
    )


def _needs(method: Method | None) -> frozenset[str]:
    return NEEDS | (method.wanted if method is not None else frozenset())


def _method(vectors: ConceptVectors, contrasts: Sequence[Contrast]) -> tuple[Method | None, list[str]]:
    """The file's method with its knobs, and why not."""
    name, given = vectors.origin.method, vectors.origin.parameters
    if name is None or name not in METHODS:
        return None, [
            f"its method ({name or 'unknown'}) is not one that trimtab has: nothing can be fitted again"
        ]
    try:
        method = make(name, **_knobs(name, given))
        for contrast in contrasts:
            method.check_pairs(contrast.paired, contrast.concept)
    except (InputError, TypeError) as error:
        return None, [f"its method {name} cannot be fitted again: {error}"]
    return method, []


def _knobs(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    fields = {f.name for f in dataclasses.fields(method_class(name))}  # type: ignore[arg-type]
    return {k: v for k, v in given.items() if k in fields}


def _pooling(vectors: ConceptVectors) -> str | None:
    """The one pooling of the file; None leaves it to the layout (several, or one that is not known)."""
    pooling = vectors.origin.pooling
    try:
        if pooling is not None:
            check_pooling(pooling)
    except InputError:
        return None
    return pooling
