"""What is normal at a site: typical norms, and mean and std of coordinates, over neutral tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from trimtab.data.neutral import neutral_texts
from trimtab.engines.base import Engine, Progress
from trimtab.errors import InputError
from trimtab.prompts import Prompt
from trimtab.sites import Site

#: Float32 numbers captured per round (200 MB).
ROUND_NUMBERS = 50_000_000
MEASURED_ON = "tokens of the neutral texts, tokenised bare, without first and special tokens"


@dataclass(frozen=True, eq=False)
class NeutralStates:
    """Per site: the median norm of a state, and mean and std [C] of its coordinate along each unit row."""

    typical_norms: Mapping[Site, float]
    mean: Mapping[Site, np.ndarray]
    std: Mapping[Site, np.ndarray]
    tokens: int
    texts: int


def typical_norms(engine: Engine, sites: Iterable[Site | int] | None = None) -> dict[Site, float]:
    """Median ||h|| over the tokens of the neutral texts at each site (an int is that layer's resid_post;
    None: all).

    The median, and without the first token, because that is an attention sink 10 to 1000 times longer than
    the rest.
    """
    found = range(engine.info.n_layers) if sites is None else sites
    chosen = sorted({Site(s) if isinstance(s, int) else s for s in found})
    return dict(measure(engine, {s: np.zeros((0, engine.info.width(s))) for s in chosen}).typical_norms)


def measure(
    engine: Engine, rows: Mapping[Site, np.ndarray], progress: Progress | None = None
) -> NeutralStates:
    """Run the neutral texts once; `rows[site]` [C, width] are the unit rows to describe."""
    norms: dict[Site, list[np.ndarray]] = {s: [] for s in rows}
    coordinates: dict[Site, list[np.ndarray]] = {s: [] for s in rows}
    prompts = _prompts(engine)
    done = 0
    for batch in _rounds(prompts, sum(r.shape[1] for r in rows.values())):
        for prompt, capture in zip(batch, engine.capture(batch, rows), strict=True):
            kept = [i for i in range(1, len(prompt)) if i not in prompt.special]
            for site, units in rows.items():
                states = capture[site][kept].astype(np.float64)
                norms[site].append(np.linalg.norm(states, axis=1))
                coordinates[site].append(states @ units.T.astype(np.float64))
        done += len(batch)
        if progress is not None:
            progress(done, len(prompts))
    return _summary(engine, norms, coordinates, len(prompts))


def _prompts(engine: Engine) -> list[Prompt]:
    """The texts that fit the context whole: a character-level model with a short context may take only some."""
    limit = engine.info.context_length
    prompts = [engine.encode(t, bare=True) for t in neutral_texts()]
    fitting = [p for p in prompts if limit is None or len(p) <= limit]
    if not fitting:
        raise InputError(
            f"no neutral text fits the context of {engine.info.id} ({limit} tokens; the shortest text has "
            f"{min(map(len, prompts))}): its typical norms cannot be measured"
        )
    return fitting


def _summary(
    engine: Engine,
    norms: Mapping[Site, list[np.ndarray]],
    coordinates: Mapping[Site, list[np.ndarray]],
    texts: int,
) -> NeutralStates:
    lengths = {s: np.concatenate(n) for s, n in norms.items()}
    along = {s: np.concatenate(c) for s, c in coordinates.items()}
    for site, length in lengths.items():
        if not len(length) or not np.isfinite(length).all():
            what = "NaN or infinite numbers" if len(length) else "no token to read"
            raise InputError(
                f"{engine.info.id} has {what} at {site} on neutral text; try --dtype float32 or another "
                "engine"
            )
    return NeutralStates(
        {s: float(np.median(n)) for s, n in lengths.items()},
        {s: c.mean(0) for s, c in along.items()},
        {s: c.std(0) for s, c in along.items()},
        len(next(iter(lengths.values()))),
        texts,
    )


def _rounds(prompts: list[Prompt], width: int) -> Iterator[list[Prompt]]:
    """Batches whose captured states fit the budget; at least one prompt each."""
    batch: list[Prompt] = []
    for prompt in prompts:
        if batch and (sum(map(len, batch)) + len(prompt)) * width > ROUND_NUMBERS:
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch
