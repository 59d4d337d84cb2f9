"""One corpus, several methods: the texts run once, and every method fits from the same evidence."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from trimtab.data.contrast import Contrast
from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine, Progress
from trimtab.errors import InputError
from trimtab.extraction.method import Method
from trimtab.recipes.fitting import described, fit_all, origin_of
from trimtab.recipes.neutral import NeutralStates, measure, typical_norms
from trimtab.recipes.vectors import check, gather, with_read_site
from trimtab.sites import Site


def finite_sites(engine: Engine, sites: Sequence[Site]) -> tuple[dict[Site, float], dict[Site, str]]:
    """Typical norms of the sites whose states are finite on neutral text, and why the others are left out."""
    try:
        return typical_norms(engine, sites), {}
    except InputError:  # one bad site spoils the pass: ask each by itself
        pass
    norms: dict[Site, float] = {}
    out: dict[Site, str] = {}
    for site in sites:
        try:
            norms |= typical_norms(engine, [site])
        except InputError as error:
            out[site] = str(error)
    return norms, out


def extract_several(
    engine: Engine,
    contrasts: Sequence[Contrast],
    methods: Sequence[Method],
    sites: Sequence[Site],
    pooling: str | None = None,
    progress: Progress | None = None,
) -> dict[str, ConceptVectors]:
    """A file per method name. Methods that differentiate the same objective, or none, share one pass over the texts."""
    for method in methods:
        check(contrasts, method, tuple({s.stream for s in sites}), pooling)
    found: dict[str, ConceptVectors] = {}
    objectives = list(dict.fromkeys(m.objective for m in methods))
    for objective in objectives:
        own = [m for m in methods if m.objective == objective]
        needs = frozenset().union(*(m.wanted for m in own))
        readings, evidence = gather(engine, contrasts, needs, sites, pooling, progress, objective=objective)
        fits = {m.name: fit_all(m, contrasts, evidence) for m in own}
        rows: Mapping[Site, np.ndarray] = {
            s: np.stack([d.unit for directions in fits.values() for d in directions if d.site == s])
            for s in sites
        }
        neutral = measure(engine, rows)
        for k, method in enumerate(own):
            shift = k * len(contrasts)  # the rows of this method within the joint pass over the neutral texts
            part = _rows_of(neutral, shift, len(contrasts))
            measured = list(described(fits[method.name], contrasts, part))
            origin = origin_of(engine.info, method, readings, fits[method.name], part)
            vectors = ConceptVectors.from_directions(
                measured, typical_norms=neutral.typical_norms, origin=origin
            )
            if method.learns:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    vectors = with_read_site(vectors, measured, readings, evidence)
            found[method.name] = vectors
    return {m.name: found[m.name] for m in methods}


def _rows_of(neutral: NeutralStates, start: int, count: int) -> NeutralStates:
    """The neutral states of some of the rows that were measured together."""
    own = slice(start, start + count)
    return replace(
        neutral,
        mean={s: v[own] for s, v in neutral.mean.items()},
        std={s: v[own] for s, v in neutral.std.items()},
    )
