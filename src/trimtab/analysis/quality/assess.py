"""Join vectors, evidence and model into the report. What is absent is said where it is missing, never skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trimtab.analysis.quality.background import background
from trimtab.analysis.quality.findings import Norms, QualityReport, SiteQuality, Verdict
from trimtab.analysis.quality.halves import split_half
from trimtab.analysis.quality.heads import WRITTEN_TO, Heads, heads_of
from trimtab.analysis.quality.heldout import Scores, auc, cross_scores, fixed_scores, folds, held_out
from trimtab.analysis.quality.influence import influence
from trimtab.analysis.quality.model_side import ModelSide
from trimtab.analysis.quality.neurons import Neuron, nearest_neuron
from trimtab.analysis.quality.readers import PROJECTIONS, ReadBy, reading_layer
from trimtab.analysis.quality.redundancy import Redundancy, redundancy
from trimtab.analysis.quality.samples import Sample
from trimtab.analysis.quality.shortcuts import shortcuts
from trimtab.analysis.quality.spectrum import PERMUTATIONS, spectra
from trimtab.analysis.quality.study import NO_DATA, Parts, Study
from trimtab.analysis.quality.triage import triage
from trimtab.data.exclusion import Kept
from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine, Progress
from trimtab.errors import InputError, MissingDependency, Unsupported
from trimtab.extraction import make
from trimtab.extraction.method import Method
from trimtab.recipes.vectors import Extraction
from trimtab.sites import Site

#: Streams in which neurons' writing can be compared with a direction.
RESIDUAL = ("resid_pre", "o", "attn_out", "down", "mlp_out", "resid_post")


def assess(
    extraction: Extraction,
    engine: Engine | None = None,
    *,
    kept: Kept | None = None,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    progress: Progress | None = None,
) -> QualityReport:
    """Report on an extraction that kept `NEEDS` and `BESIDE`. `kept` numbers the examples as the whole corpus does."""
    names = [c.concept for c in extraction.contrasts]
    return examine(
        Study(
            extraction.vectors,
            engine,
            dict(zip(names, extraction.contrasts)),
            dict(zip(names, extraction.evidence)),
            extraction.method,
            kept=kept,
            seed=seed,
            permutations=permutations,
        ),
        progress,
    )


def examine(study: Study, progress: Progress | None = None) -> QualityReport:
    """Report on vectors with whatever else there is."""
    vectors = study.vectors
    model = ModelSide(study.engine, vectors.sites, study.seed)
    found: dict[tuple[str, Site], SiteQuality] = {}
    total = len(vectors.concepts) * len(vectors.sites)
    for site in vectors.sites:  # layer by layer, because of the matrices
        others = _redundancy(vectors, site)
        for concept in vectors.concepts:
            found[concept, site] = _row(study, model, others, concept, site)
            if progress is not None:
                progress(len(found), total)
    rows = [found[c, s] for c in vectors.concepts for s in vectors.sites]
    given = study.contrasts or {}
    said = {c: shortcuts(given[c]) for c in vectors.concepts if c in given}
    baseline = None if study.method is None or study.method.learns else study.method.name
    verdicts = [triage([r for r in rows if r.concept == c], said.get(c), baseline) for c in vectors.concepts]
    rows = [_judged(study, r) if _rests_on(r, verdicts) else r for r in rows]
    return QualityReport(
        model=vectors.origin.model,
        method=vectors.origin.method,
        vectors_hash=vectors.hash,
        concepts=vectors.concepts,
        rows=tuple(rows),
        verdicts=tuple(verdicts),
        shortcuts=said,
        notes=tuple(_notes(study, verdicts)),
        seed=study.seed,
        cosines={s.key: tuple(map(tuple, vectors.similarity(s).tolist())) for s in vectors.sites},
        n_layers=vectors.origin.n_layers,
    )


def _redundancy(vectors: ConceptVectors, site: Site) -> dict[str, Redundancy] | Exception:
    if len(vectors.concepts) < 2:
        return InputError("one concept has no others to be a mixture of")
    try:
        return dict(zip(vectors.concepts, redundancy(vectors.concepts, vectors.table(site).vectors)))
    except MissingDependency as error:
        return error


def _row(
    study: Study, model: ModelSide, others: dict[str, Redundancy] | Exception, concept: str, site: Site
) -> SiteQuality:
    direction = study.vectors.direction(concept, site)
    table = study.vectors.table(site)
    raw, typical = table.value("norms", study.vectors.index(concept)), direction.typical_norm
    parts, unit = Parts(), direction.unit.astype(np.float64)

    def others_of() -> Redundancy:
        if isinstance(others, Exception):
            raise others
        return others[concept]

    row = SiteQuality(
        concept=concept,
        site=site,
        norms=Norms(raw, typical, raw / typical if raw is not None and typical else None),
        redundancy=parts.get("redundancy", others_of),
        neuron=parts.get("neuron", lambda: _neuron(model, unit, site)),
        read_by=parts.get("read_by", lambda: _read_by(model, unit, site)),
        heads=parts.get("heads", lambda: _heads(study, model, unit, concept, site)),
        background=parts.get("background", lambda: background(unit, model.neutral(site))),
        missing=parts.missing,
    )
    return _from_texts(study, row, parts, unit)


def _from_texts(study: Study, row: SiteQuality, parts: Parts, unit: np.ndarray) -> SiteQuality:
    """The parts that rest on the rows of the evidence."""
    sample = parts.get("evidence", lambda: _sample(study, row.concept, row.site))
    if sample is None:
        reason = parts.missing.pop("evidence")
        for part in ("spectrum", "held_out", "split_half", "influence"):
            parts.missing[part] = reason
        return row
    pair = parts.get("spectrum", lambda: _spectra(sample, study))
    scores = parts.get("held_out", lambda: _scores(study, sample, unit))
    sites = len(study.vectors.sites)
    return replace(
        row,
        spectrum=pair and pair[0],
        spectrum_centred=pair and pair[1],
        held_out=scores and held_out(sample, scores, study.refits is not None, sites, study.seed),
        split_half=parts.get("split_half", lambda: split_half(sample, _method(study), study.seed)),
        influence=parts.get("influence", lambda: _influence(study, sample, row.concept, scores)),
    )


def _sample(study: Study, concept: str, site: Site) -> Sample:
    if study.evidence is None or concept not in study.evidence:
        raise InputError(NO_DATA if study.evidence is None else f"the data hold no texts of {concept!r}")
    return Sample.of(study.evidence[concept][site])


def _method(study: Study) -> Method:
    if study.method is None:
        raise InputError("how the vector was made is not known, so it cannot be fitted to parts of the data")
    return study.method


def _spectra(sample: Sample, study: Study) -> Any:
    if sample.positives < 3:
        raise InputError("a spectrum needs at least three positives")
    return spectra(sample, study.seed, study.permutations)


def _scores(study: Study, sample: Sample, unit: np.ndarray) -> Scores:
    if study.refits is None:
        return fixed_scores(sample, unit)
    return cross_scores(sample, study.refits, folds(sample, study.seed))


def _influence(study: Study, sample: Sample, concept: str, scores: Scores | None, judge: bool = False) -> Any:
    assert study.contrasts is not None
    kept = None if study.kept is None else study.kept[concept]
    return influence(sample, _method(study), study.contrasts[concept], scores, judge, kept)


def _neuron(model: ModelSide, unit: np.ndarray, site: Site) -> Neuron:
    if site.stream not in RESIDUAL:
        raise Unsupported(
            f"directions at {site.stream} do not live in the residual stream that neurons write to"
        )
    return nearest_neuron(unit, model.neurons(site.layer))


def _read_by(model: ModelSide, unit: np.ndarray, site: Site) -> ReadBy:
    if site.stream not in RESIDUAL:
        raise Unsupported(f"directions at {site.stream} do not live in the residual stream that MLPs read")
    info = model.engine.info
    layer = reading_layer(site, info.n_layers)
    there = [p for p in PROJECTIONS if Site(layer, p) in info.widths]
    if not there:
        raise Unsupported(f"layer {layer} of {info.id} has no gate or up projection that could be proved")
    found = {p: nearest_neuron(unit, model.readers(layer, p)) for p in there}
    return ReadBy(layer, found.get("gate"), found.get("up"))


def _heads(study: Study, model: ModelSide, unit: np.ndarray, concept: str, site: Site) -> Heads:
    if study.evidence is None or concept not in study.evidence:
        raise InputError(NO_DATA)
    count, place = model.heads(site.layer), Site(site.layer, "head_out")
    if place not in study.evidence[concept]:
        raise InputError(f"the evidence holds no {place}: collect it beside the vectors' own sites")
    output = model.output(site.layer) if site.stream in WRITTEN_TO else None
    return heads_of(unit, site, study.evidence[concept][place], count, output)


def _rests_on(row: SiteQuality, verdicts: Sequence[Verdict]) -> bool:
    return any(v.concept == row.concept and v.site == row.site for v in verdicts)


def _judged(study: Study, row: SiteQuality) -> SiteQuality:
    """The row of a verdict, with the held-out AUC computed again without each suspect example."""
    if row.influence is None or study.refits is None or study.evidence is None:
        return row
    sample = Sample.of(study.evidence[row.concept][row.site])
    scores = cross_scores(sample, study.refits, folds(sample, study.seed))
    return replace(row, influence=_influence(study, sample, row.concept, scores, judge=True))


def _notes(study: Study, verdicts: Sequence[Verdict]) -> list[str]:
    found = [_centring(study, v.concept, v.site) for v in verdicts if v.site is not None]
    return [n for n in found if n]


def _centring(study: Study, concept: str, site: Site) -> str | None:
    """Centred PCA against uncentred on this very data."""
    if study.refits is None or study.evidence is None or study.refits.name != "pca_diff":
        return None
    sample = Sample.of(study.evidence[concept][site])
    fold = folds(sample, study.seed)
    own, other = (
        auc(sample, cross_scores(sample, m, fold)) for m in (study.refits, make("pca_diff_uncentered"))
    )
    if other <= own:
        return None
    return (
        f"centring hurts on these data: {concept} at {site} has held-out AUC {own:.2f} by pca_diff and {other:.2f} by "
        "pca_diff_uncentered"
    )
