"""Extract concept vectors: texts to an engine, evidence to a method, directions to one file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np

from trimtab import data as sources
from trimtab.activations import check_pooling
from trimtab.data.contrast import Contrast
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.base import Engine, Progress
from trimtab.engines.collect import Comparison
from trimtab.errors import InputError, UnknownName
from trimtab.evidence import Evidence
from trimtab.extraction import DEFAULT, make, method_class
from trimtab.extraction.knobs import parse_knobs
from trimtab.extraction.method import Method
from trimtab.heads import head_part, head_slice
from trimtab.objectives import Separation
from trimtab.recipes.fitting import described, fit_all, origin_of
from trimtab.recipes.modules import sites_of_modules
from trimtab.recipes.neutral import NeutralStates, measure
from trimtab.recipes.reading import Reading, read, token_prefixes
from trimtab.recipes.separation import reading_calibration, separations
from trimtab.sites import STREAMS, LayerSpec, ModelInfo, Site, resolve_layers

ROLE_POOLINGS = ("mean_system", "mean_user", "mean_assistant")
Data = str | os.PathLike[str] | Contrast | Sequence[Contrast]


def check(
    contrasts: Sequence[Contrast],
    method: str | Method = DEFAULT,
    streams: Sequence[str] = ("resid_post",),
    pooling: str | None = None,
    seed: int = 0,
) -> Method:
    """Everything that can be refused before a model loads; returns the method that will be used."""
    if not contrasts:
        raise InputError("no contrasts given: there is nothing to extract")
    names = [c.concept for c in contrasts]
    if len(set(names)) != len(names):
        raise InputError(f"concepts must be distinct, got {names}")
    if not streams:
        raise InputError("name at least one stream")
    for stream in streams:
        if stream not in STREAMS:
            raise UnknownName.of("stream", stream, STREAMS)
    if pooling is not None:
        check_pooling(pooling)
    chosen = choose_method(method, seed)
    chosen.check_installed()
    for contrast in contrasts:
        chosen.check_pairs(contrast.paired, contrast.concept)
        chosen.check_scores(contrast.row_scores, contrast.paired, contrast.concept)
        if pooling in ROLE_POOLINGS and not contrast.messages:
            raise InputError(
                f"pooling {pooling!r} reads one role's turns, and the data of {contrast.concept!r} are bare texts: "
                "use mean_all or last, or write messages"
            )
    return chosen


def extract(
    engine: Engine,
    data: Data,
    method: str | Method = DEFAULT,
    layers: LayerSpec = "all",
    streams: Sequence[str] = ("resid_post",),
    pooling: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    modules: str | None = None,
    head: int | None = None,
) -> ConceptVectors:
    """One direction per concept, layer and stream, with what is needed to steer and to read with it.

    `data` is a path (see `trimtab.data.load`) or contrasts. `pooling` None reads each contrast where its
    layout says. `modules`, a regular expression over the model's module names, chooses the sites instead of
    `streams`; `head` keeps one attention head of `head_out`. Typical norms, and the mean and std that z-scores
    need, are measured per token (`recipes.neutral`), and the layer at which reading separates best is stored
    (`recipes.separation`). `seed` matters only to methods that draw. `progress(done, total)` counts distinct texts.
    """
    return extract_full(
        engine, data, method, layers, streams, pooling, seed, progress, modules=modules, head=head
    ).vectors


@dataclasses.dataclass(frozen=True, eq=False)
class Extraction:
    """An extraction with what it was made from, so that a report needs no second pass over the texts.

    `evidence` has one dict per contrast; beside the sites of the file it may hold others that were asked for.
    """

    vectors: ConceptVectors
    method: Method
    contrasts: tuple[Contrast, ...]
    readings: tuple[Reading, ...]
    evidence: tuple[Mapping[Site, Evidence], ...]
    neutral: NeutralStates


def extract_full(
    engine: Engine,
    data: Data,
    method: str | Method = DEFAULT,
    layers: LayerSpec = "all",
    streams: Sequence[str] = ("resid_post",),
    pooling: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    modules: str | None = None,
    head: int | None = None,
    needs: frozenset[str] = frozenset(),
    beside: Sequence[str] = (),
) -> Extraction:
    """`extract`, keeping the evidence: `needs` are collected beside the method's own, and the streams `beside` at
    every layer read that has them."""
    contrasts = _contrasts(engine, data)
    chosen = check(contrasts, method, streams, pooling, seed)
    sites = _sites(engine, layers, streams, modules, head)
    readings, evidence = gather(
        engine, contrasts, chosen.wanted | needs, sites, pooling, progress, beside, chosen.objective
    )
    own = [{s: e[s] for s in sites} for e in evidence]
    directions = fit_all(chosen, contrasts, own)
    if head is not None:
        directions = [head_part(d, head, engine.info.n_heads) for d in directions]
    rows = {s: np.stack([d.unit for d in directions if d.site == s]) for s in sites}
    neutral = measure(engine, rows)
    measured = list(described(directions, contrasts, neutral))
    origin = origin_of(engine.info, chosen, readings, directions, neutral)
    vectors = ConceptVectors.from_directions(measured, typical_norms=neutral.typical_norms, origin=origin)
    if chosen.learns:
        vectors = with_read_site(vectors, measured, readings, own)
    return Extraction(vectors, chosen, tuple(contrasts), tuple(readings), tuple(evidence), neutral)


def gather(
    engine: Engine,
    contrasts: Sequence[Contrast],
    needs: frozenset[str],
    sites: Sequence[Site],
    pooling: str | None = None,
    progress: Progress | None = None,
    beside: Sequence[str] = (),
    objective: Separation | None = None,
) -> tuple[list[Reading], list[dict[Site, Evidence]]]:
    """Evidence of every contrast in one pass over the texts, at `sites` and at the streams `beside` of their layers
    (where a layer has them)."""
    extra = {Site(s.layer, b) for s in sites for b in beside} & engine.info.widths.keys()
    readings = [read(engine, c, pooling) for c in contrasts]
    return readings, _collect(engine, readings, sorted({*sites, *extra}), needs, progress, objective)


def with_read_site(
    vectors: ConceptVectors,
    directions: Sequence[Direction],
    readings: Sequence[Reading],
    evidence: Sequence[Mapping[Site, Evidence]],
) -> ConceptVectors:
    """The file with the layer at which reading separates best in its calibration, and how well each site does in its
    origin."""
    named = {r.contrast.concept: part for r, part in zip(readings, evidence, strict=True)}
    found = separations(directions, named)
    parameters = {**vectors.origin.parameters, "read_separation": {s.key: v for s, v in found.items()}}
    return dataclasses.replace(
        vectors,
        origin=dataclasses.replace(vectors.origin, parameters=parameters),
        calibration={**vectors.calibration, **reading_calibration(found)},
    )


def _sites(
    engine: Engine, layers: LayerSpec, streams: Sequence[str], modules: str | None, head: int | None
) -> list[Site]:
    """The sites to read, by streams or by module names; a head that they do not have is refused."""
    info = engine.info
    sites = (
        choose_sites(info, layers, streams) if modules is None else sites_of_modules(engine, modules, layers)
    )
    if head is not None:
        for site in sites:
            head_slice(site, info.width(site), head, info.n_heads)
    return sites


def choose_sites(info: ModelInfo, layers: LayerSpec, streams: Sequence[str]) -> list[Site]:
    """The sites to read; "all" takes the layers that have the stream, an explicit layer without it is
    refused.
    """
    sites = []
    for stream in streams:
        found = [Site(n, stream) for n in resolve_layers(layers, info.n_layers)]
        if layers == "all":
            found = [s for s in found if s in info.widths] or found[:1]
        for site in found:
            info.width(site)
        sites += found
    return sorted(set(sites))


def _contrasts(engine: Engine, data: Data) -> list[Contrast]:
    if isinstance(data, Contrast):
        return [data]
    if isinstance(data, (str, os.PathLike)):
        messages = engine.info.template_hash is not None
        chat = messages if sources.chat_follows_model(data) else None
        return sources.load(data, chat=chat, prefixes=token_prefixes(engine))
    return list(data)


def choose_method(method: str | Method, seed: int = 0, settings: Sequence[str] = ()) -> Method:
    """A method by our name or the field's, with `NAME=VALUE` settings of its knobs; one that draws and is not
    told a seed takes `seed`.
    """
    if isinstance(method, Method):
        return method
    cls = method_class(method)
    knobs = parse_knobs(cls, settings)
    if any(f.name == "seed" for f in dataclasses.fields(cls)):  # type: ignore[arg-type]
        knobs.setdefault("seed", seed)
    return make(method, **knobs)


def _collect(
    engine: Engine,
    readings: Sequence[Reading],
    sites: Sequence[Site],
    needs: frozenset[str],
    progress: Progress | None,
    objective: Separation | None = None,
) -> list[dict[Site, Evidence]]:
    """Evidence per reading; readings of one pooling share a pass, so that equal texts run once."""
    found: dict[int, dict[Site, Evidence]] = {}
    for pooling in dict.fromkeys(r.pooling for r in readings):
        chosen = [(i, r) for i, r in enumerate(readings) if r.pooling == pooling]
        prompts, comparisons = [], []
        for _, reading in chosen:
            start, middle = len(prompts), len(prompts) + len(reading.positive)
            prompts += [*reading.positive, *reading.negative]
            comparisons.append(
                Comparison(
                    tuple(range(start, middle)),
                    tuple(range(middle, len(prompts))),
                    reading.contrast.paired,
                    reading.contrast.row_groups,
                    reading.contrast.row_scores,
                )
            )
        parts = engine.collect(prompts, comparisons, sites, needs, pooling, progress, objective)
        found |= {i: part for (i, _), part in zip(chosen, parts, strict=True)}
    return [found[i] for i in range(len(readings))]
