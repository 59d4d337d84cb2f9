"""What streaming states cannot give: gradients of an objective at the read tokens, log-probabilities of texts, and the
weights around a site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.activations import pool_positions
from trimtab.directions import frozen
from trimtab.errors import InputError, Unsupported
from trimtab.evidence import NEGATIVE, POSITIVE, Evidence
from trimtab.objectives import Separation
from trimtab.prompts import Prompt
from trimtab.sites import ModelInfo, Site, readers, resolve_layer, writers

if TYPE_CHECKING:
    from trimtab.engines.base import Engine
    from trimtab.engines.collect import Comparison

HERE = frozenset({"gradients", "logprobs", "weights"})


def check(
    engine: Engine,
    comparisons: Sequence[Comparison],
    sites: Sequence[Site],
    needs: frozenset[str],
    objective: Separation | None,
) -> None:
    """Refuse, before anything runs, what this engine cannot collect or this objective does not reach."""
    from trimtab.engines.base import Engine as Base

    if needs - HERE:
        raise Unsupported(f"the {engine.name} engine does not collect {sorted(needs - HERE)} yet")
    if "weights" in needs:
        for near in (n for site in sites for n in touching(engine.info, site)):
            engine.weight(near)
    if "gradients" not in needs:
        return
    if type(engine)._gradients is Base._gradients:
        raise Unsupported(engine._no_gradients)
    if objective is None:
        raise InputError("gradients need an objective to differentiate: pass a trimtab.objectives.Separation")
    if not all(c.paired for c in comparisons):
        raise InputError("the gradients of a separation need pairs, and these texts are not paired")
    if engine.info.dtype == "float16":
        raise InputError("gradients overflow in float16: load the model with --dtype bfloat16 or float32")
    last = Site(resolve_layer(objective.read, engine.info.n_layers))
    beyond = [s for s in sites if s > last]
    if beyond:
        raise InputError(
            f"{beyond[0]} lies after the layer {last.layer} where the objective reads: nothing there moves what it "
            f"reads; take layers up to {last.layer}, or a later read layer"
        )


def add(
    engine: Engine,
    prompts: Sequence[Prompt],
    comparisons: Sequence[Comparison],
    found: list[dict[Site, Evidence]],
    needs: frozenset[str],
    pooling: str,
    objective: Separation | None,
) -> list[dict[Site, Evidence]]:
    """The evidence with what `needs` asks for beside the streamed statistics."""
    out, matrices = [], dict[Site, dict[str, np.ndarray]]()
    for comparison, sites in zip(comparisons, found, strict=True):
        more: dict[Site, dict[str, Any]] = {s: {"needs": e.needs | needs} for s, e in sites.items()}
        if "logprobs" in needs:
            logprobs = {
                POSITIVE: _logprobs(engine, prompts, comparison.positive),
                NEGATIVE: _logprobs(engine, prompts, comparison.negative),
            }
            for fields in more.values():
                fields["logprobs"] = logprobs
        if "weights" in needs:
            for site, fields in more.items():
                if site not in matrices:
                    matrices[site] = {n.key: frozen(engine.weight(n)) for n in touching(engine.info, site)}
                fields["weights"] = matrices[site]
        if "gradients" in needs:
            assert objective is not None
            for site, fields in _gradients(
                engine, prompts, comparison, list(sites), pooling, objective
            ).items():
                more[site] |= fields
        out.append({s: replace(e, **more[s]) for s, e in sites.items()} if needs else sites)
    return out


def touching(info: ModelInfo, site: Site) -> list[Site]:
    """The projections of a model that write to a site or read from it."""
    found = [s for s in (*writers(site), *readers(site)) if s in info.widths]
    if not found:
        raise Unsupported(
            f"{info.id} has no projection that writes to {site} or reads from it: use another stream"
        )
    return found


def _logprobs(engine: Engine, prompts: Sequence[Prompt], side: Sequence[int]) -> np.ndarray:
    """Mean log-probability [n] per token of each text after its first token, nats."""
    from trimtab.engines.requests import ScoreRequest

    short = next((i for i in side if len(prompts[i]) < 2), None)
    if short is not None:
        raise InputError(
            f"text {short} has one token: its log-probability, by which pairs are weighted, needs two or more"
        )
    distinct = list(dict.fromkeys(side))
    scores = engine.score([ScoreRequest(prompts[i]) for i in distinct])
    known = {i: float(np.mean(s.logprobs.astype(np.float64))) for i, s in zip(distinct, scores, strict=True)}
    return np.array([known[i] for i in side])


def _gradients(
    engine: Engine,
    prompts: Sequence[Prompt],
    comparison: Comparison,
    sites: Sequence[Site],
    pooling: str,
    objective: Separation,
) -> dict[Site, dict[str, Any]]:
    from trimtab.engines.base import CaptureItem

    def item(i: int) -> CaptureItem:
        return CaptureItem(prompts[i], pool_positions(pooling, prompts[i]))

    pairs = [(item(p), item(n)) for p, n in zip(comparison.positive, comparison.negative, strict=True)]
    with engine._lock:
        rows, norms = engine._gradients(pairs, sites, objective)
    halves = {POSITIVE: slice(0, None, 2), NEGATIVE: slice(1, None, 2)}
    return {
        s: {
            "gradients": {g: rows[s][half] for g, half in halves.items()},
            "loss_norms": {g: norms[half] for g, half in halves.items()},
        }
        for s in sites
    }
