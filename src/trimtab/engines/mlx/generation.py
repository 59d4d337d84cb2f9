"""Batched generation where every row has its own plan, sampling and captures: requests in fixed batches, or a batch
that others join while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlx_lm.models.cache import make_prompt_cache

from trimtab.engines.joining import Opening, Place
from trimtab.engines.mlx.batch import Batch
from trimtab.engines.mlx.capture import batches
from trimtab.engines.mlx.prefix import Prefix
from trimtab.engines.requests import Event, Request
from trimtab.engines.rows import Row
from trimtab.errors import Unsupported

if TYPE_CHECKING:
    from trimtab.engines.mlx.engine import MLXEngine

#: Rows of a batch, and tokens (prompt and new) that its caches may hold.
BATCH_ROWS, BATCH_TOKENS = 256, 1 << 18
#: Prompt tokens of newcomers between two tokens of those who run.
PIECE = 256


def generate(
    engine: MLXEngine, requests: Sequence[Request], stream: bool, prefix: Prefix | None = None
) -> Iterator[Event]:
    """Events of prepared requests; without `stream` only the last one of each sample."""
    rows = [
        Row(i, j, r, engine.encoder, engine.ends, stream, engine.info.widths)
        for i, r in enumerate(requests)
        for j in range(r.sampling.n)
    ]
    lengths = [len(r.prompt) + r.spec.sampling.max_tokens for r in rows]
    for batch in batches(lengths, BATCH_TOKENS, BATCH_ROWS):
        members = [rows[i] for i in batch]
        if prefix is not None:
            groups = [members] if prefix.repeatable else [[row] for row in members]
        else:
            groups = [members] if engine.ragged else _of_equal_length(members)
        for group in groups:
            yield from Batch(engine, group, prefix).run()


def _of_equal_length(rows: Sequence[Row]) -> list[list[Row]]:
    """Rolling or recurrent caches cannot be padded: rows of one prompt length run together."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(len(row.prompt), []).append(row)
    return list(groups.values())


def opening(engine: MLXEngine) -> Opening:
    """How an open batch runs, where the caches of this model can be padded and merged."""
    if not engine.ragged:
        kinds = sorted({type(c).__name__ for c in make_prompt_cache(engine.model)})
        raise Unsupported(
            f"requests run in fixed groups: caches of the kinds {', '.join(kinds)} cannot be padded and merged"
        )

    def begin(places: Sequence[Place]) -> Batch:
        rows = [Row(*place, engine.encoder, engine.ends, True, engine.info.widths) for place in places]
        return Batch(engine, rows, piece=PIECE)

    return Opening(begin, PIECE, BATCH_TOKENS)
