"""The forward passes of a capture: rows of prefix trees where that is right and cheaper, else padded by length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from trimtab.engines.batches import batches
from trimtab.engines.transformers import forest
from trimtab.engines.transformers.forward import Padded
from trimtab.engines.transformers.packing import prove, trial_depth, trial_texts, trial_tokens
from trimtab.sites import Site

if TYPE_CHECKING:
    from trimtab.engines.transformers.engine import TransformersEngine

#: Tokens in one forward pass, padding included. A processor gains nothing beyond, and its memory is the program's.
BATCH_TOKENS = {"cpu": 1_024}
ACCELERATOR_TOKENS = 8_192
BATCH_ROWS = 256
#: Attention over a row of this many times the hidden size costs as much as all the matrix products (measured on a
#: processor at hidden 512; counting operations gives 6).
REACH = 4


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass; the tokens of `texts[k]` lie at `columns[k]` of `rows[k]`."""

    ids: torch.Tensor
    positions: np.ndarray
    mask: torch.Tensor | None
    texts: Sequence[int]
    rows: Sequence[int]
    columns: Sequence[np.ndarray]


def batch_tokens(engine: TransformersEngine) -> int:
    """Tokens of one pass on this engine's device."""
    return BATCH_TOKENS.get(engine.forward.device.type, ACCELERATOR_TOKENS)


def padded(engine: TransformersEngine, texts: Sequence[tuple[int, ...]], of: Sequence[int]) -> Iterator[Pass]:
    """Passes over the texts with indices `of`, padded, similar lengths together."""
    for batch in batches([len(texts[i]) for i in of], batch_tokens(engine), BATCH_ROWS):
        members = [of[b] for b in batch]
        rows = Padded.of([texts[i] for i in members], engine.forward.device)
        columns = [np.arange(len(texts[i])) + pad for i, pad in zip(members, rows.pads, strict=True)]
        yield Pass(rows.ids, rows.positions, rows.mask, members, range(len(members)), columns)


def packed(
    engine: TransformersEngine, texts: Sequence[tuple[int, ...]], of: Sequence[int], plan: forest.Plan
) -> Iterator[Pass]:
    """Passes over the texts with indices `of`, which `plan` cuts into rows of prefix trees."""
    device, chosen = engine.forward.device, [texts[i] for i in of]
    for batch in batches(plan.nodes, batch_tokens(engine), BATCH_ROWS):
        laid = forest.lay(chosen, plan, batch)
        mask = laid.mask(device, engine.model.dtype)
        ids = torch.from_numpy(laid.ids).to(device)
        yield Pass(ids, laid.depths, mask, [of[i] for i in laid.texts], laid.row, laid.path)


def unsteered(engine: TransformersEngine, texts: Sequence[tuple[int, ...]]) -> list[Iterator[Pass]]:
    """The cheapest right passes over distinct texts that nothing steers."""
    limit = engine.packing.limit
    short = [i for i, t in enumerate(texts) if limit is None or len(t) <= limit]
    plan = _worth_it(engine, [texts[i] for i in short])
    if plan is None:
        return [padded(engine, texts, range(len(texts)))]
    kept = set(short)
    long = [i for i in range(len(texts)) if i not in kept]
    return [packed(engine, texts, short, plan), padded(engine, texts, long)]


def _worth_it(engine: TransformersEngine, texts: Sequence[tuple[int, ...]]) -> forest.Plan | None:
    """The plan of trees, if it saves more than a trial that is still due would cost, and the trial succeeds."""
    packing = engine.packing
    if packing.method != "tree" or len(texts) < 2:
        return None
    reach = REACH * engine.info.hidden_size
    plan = forest.plan(texts, reach)
    lengths = [len(t) for t in texts]
    by_length = batches(lengths, batch_tokens(engine), BATCH_ROWS)
    longest = [max(lengths[i] for i in b) for b in by_length]
    saving = sum(len(b) * n * (1 + n / reach) for b, n in zip(by_length, longest, strict=True))
    saving -= plan.cost(reach)
    if max(lengths) <= packing.proved:
        return plan if saving > 0 else None
    depth = trial_depth(max(lengths), engine.info.context_length)
    if packing.limit is not None:
        depth = min(depth, packing.limit)
    if saving <= trial_tokens(depth):
        return None
    try_trees(engine, depth)
    return plan if packing.method == "tree" else None


def try_trees(engine: TransformersEngine, depth: int) -> None:
    """Run two texts of `depth` tokens as a tree and one by one; `engine.packing` says what came of it."""
    texts = trial_texts(engine.model.config, depth)
    site = Site(engine.info.n_layers - 1)
    states: dict[int, np.ndarray] = {}

    def keep(h: torch.Tensor) -> None:
        states[0] = h.detach().float().cpu().numpy()

    def run(passes: Iterator[Pass]) -> np.ndarray:
        found: dict[int, np.ndarray] = {}
        with engine.stations.installed([site]) as stations, torch.inference_mode():
            for p in passes:
                stations[site].set(before=[keep], stop=True)
                engine.run_until_stop(p.ids, p.positions, p.mask, stations)
                for text, row, columns in zip(p.texts, p.rows, p.columns, strict=True):
                    found[text] = states[0][row, columns]
        return np.concatenate([found[i] for i in range(len(texts))])

    one_row = forest.whole(texts)
    prove(
        engine.packing,
        depth,
        engine.model.dtype,
        lambda: run(packed(engine, texts, range(len(texts)), one_row)),
        lambda: run(padded(engine, texts, range(len(texts)))),
    )
