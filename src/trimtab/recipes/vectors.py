"""Extract concept vectors: texts to an engine, evidence to a method, directions to one file."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from trimtab import data as sources
from trimtab.activations import check_pooling
from trimtab.data.contrast import Contrast
from trimtab.data.neutral import neutral_hash
from trimtab.directions import ConceptVectors, Direction, Origin
from trimtab.engines.base import Engine, Progress
from trimtab.engines.collect import Comparison
from trimtab.errors import InputError, UnknownName
from trimtab.evidence import Evidence
from trimtab.extraction import DEFAULT, make, method_class
from trimtab.extraction.method import ExtractionWarning, Method
from trimtab.recipes.neutral import MEASURED_ON, NeutralStates, measure
from trimtab.recipes.reading import Reading, read
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
    chosen = _method(method, seed)
    for contrast in contrasts:
        chosen.check_pairs(contrast.paired, contrast.concept)
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
) -> ConceptVectors:
    """One direction per concept, layer and stream, with what is needed to steer and to read with it.

    `data` is a path (see `trimtab.data.load`) or contrasts. `pooling` None reads each contrast where its
    layout says. Typical norms, and the mean and std that z-scores need, are measured per token on the shipped
    neutral texts. `seed` matters only to methods that draw. `progress(done, total)` counts distinct texts.
    """
    contrasts = _contrasts(data)
    chosen = check(contrasts, method, streams, pooling, seed)
    sites = choose_sites(engine.info, layers, streams)
    readings = [read(engine, c, pooling) for c in contrasts]
    evidence = _collect(engine, readings, sites, chosen, progress)
    directions = _fit(chosen, contrasts, evidence)
    rows = {s: np.stack([d.unit for d in directions if d.site == s]) for s in sites}
    neutral = measure(engine, rows)
    described = list(_describe(directions, contrasts, neutral))
    origin = _origin(engine.info, chosen, readings, directions, neutral)
    return ConceptVectors.from_directions(described, typical_norms=neutral.typical_norms, origin=origin)


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


def _contrasts(data: Data) -> list[Contrast]:
    if isinstance(data, Contrast):
        return [data]
    if isinstance(data, (str, os.PathLike)):
        return sources.load(data)
    return list(data)


def _method(method: str | Method, seed: int) -> Method:
    if isinstance(method, Method):
        return method
    fields = {f.name for f in dataclasses.fields(method_class(method))}  # type: ignore[arg-type]
    return make(method, **({"seed": seed} if "seed" in fields else {}))


def _collect(
    engine: Engine,
    readings: Sequence[Reading],
    sites: Sequence[Site],
    method: Method,
    progress: Progress | None,
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
        parts = engine.collect(
            prompts, comparisons, sites, method.wanted, pooling, progress, method.objective
        )
        found |= {i: part for (i, _), part in zip(chosen, parts, strict=True)}
    return [found[i] for i in range(len(readings))]


def _fit(
    method: Method, contrasts: Sequence[Contrast], evidence: Sequence[Mapping[Site, Evidence]]
) -> list[Direction]:
    """Every concept at every site; a warning that several fits gave is given once, with where."""
    directions: list[Direction] = []
    said: dict[str, list[str]] = {}
    for contrast, sites in zip(contrasts, evidence, strict=True):
        for site, part in sites.items():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                directions.append(method.fit(part, contrast.concept))
            for w in caught:
                said.setdefault(str(w.message), []).append(f"{contrast.concept!r} at {site}")
    for message, places in said.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        warnings.warn(f"{message} ({places[0]}{more})", ExtractionWarning, stacklevel=3)
    return directions


def _describe(
    directions: Sequence[Direction], contrasts: Sequence[Contrast], neutral: NeutralStates
) -> Iterator[Direction]:
    order = {c.concept: i for i, c in enumerate(contrasts)}
    for d in directions:
        row = order[d.name]
        yield dataclasses.replace(
            d,
            mean=float(neutral.mean[d.site][row]),
            std=float(neutral.std[d.site][row]),
            typical_norm=neutral.typical_norms[d.site],
        )


def _origin(
    info: ModelInfo,
    method: Method,
    readings: Sequence[Reading],
    directions: Sequence[Direction],
    neutral: NeutralStates,
) -> Origin:
    accuracy: dict[str, dict[str, float]] = {}
    for d in directions:
        if "pair_accuracy" in d.provenance:
            accuracy.setdefault(d.name, {})[d.site.key] = float(d.provenance["pair_accuracy"])
    parameters = {
        **method.parameters,
        "paired": {r.contrast.concept: r.contrast.paired for r in readings},
        "mean_std_norms_of": f"{neutral.tokens} {MEASURED_ON} ({neutral.texts} texts)",
        **({"pair_accuracy": accuracy} if accuracy else {}),
    }
    return Origin(
        model=info.id,
        revision=info.revision,
        n_layers=info.n_layers,
        method=method.name,
        parameters=parameters,
        pooling=", ".join(dict.fromkeys(r.pooling for r in readings)),
        template_hash=info.template_hash if any(r.contrast.messages for r in readings) else None,
        data_hash=_joint_hash([r.contrast for r in readings]),
        neutral_hash=neutral_hash(),
        sign_source=directions[0].sign_source,
        counts={f"{r.contrast.concept}/{s}": n for r in readings for s, n in r.contrast.counts.items()},
        dtype=info.dtype,
    )


def _joint_hash(contrasts: Sequence[Contrast]) -> str:
    if len(contrasts) == 1:
        return contrasts[0].hash
    return hashlib.sha256("".join(c.hash for c in contrasts).encode()).hexdigest()[:32]
