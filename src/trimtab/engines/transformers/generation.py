"""Batched generation where every row has its own plan, sampling and captures: requests in fixed batches, or a batch
that others join while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trimtab.engines.joining import Opening, Place
from trimtab.engines.requests import Event, Request
from trimtab.engines.rows import Row
from trimtab.engines.transformers.batch import Batch
from trimtab.engines.transformers.forward import batches, bytes_per_token
from trimtab.engines.transformers.merging import obstacle, recurrent
from trimtab.errors import Unsupported

if TYPE_CHECKING:
    from trimtab.engines.transformers.engine import TransformersEngine

#: Rows and logits (floats) of a batch, and bytes of its keys and values.
BATCH_ROWS, BATCH_LOGITS, CACHE_BYTES = 512, 1 << 26, 2 << 30
#: Prompt tokens of newcomers between two tokens of those who run.
PIECE = {"cpu": 256}
ACCELERATOR_PIECE = 2_048
#: More than any prompt.
WHOLE = 1 << 30


def generate(engine: TransformersEngine, requests: Sequence[Request], stream: bool) -> Iterator[Event]:
    """Events of prepared requests; without `stream` only the last one of each sample."""
    rows = [
        Row(i, j, r, engine.encoder, engine.ends, stream, engine.info.widths)
        for i, r in enumerate(requests)
        for j in range(r.sampling.n)
    ]
    lengths = [len(r.prompt) + r.spec.sampling.max_tokens for r in rows]
    count = max(1, min(BATCH_ROWS, BATCH_LOGITS // (engine.info.vocab_size or 1)))
    for batch in batches(lengths, CACHE_BYTES // bytes_per_token(engine.model), count):
        yield from Batch(engine, [rows[i] for i in batch]).run()


def opening(engine: TransformersEngine) -> Opening:
    """How an open batch runs, where the caches of this model can be merged."""
    empty = engine.forward.cache(1)
    strange = obstacle(empty)
    if strange is not None:
        raise Unsupported(f"requests run in fixed groups: caches of the kind {strange} cannot be merged")
    piece = PIECE.get(engine.forward.device.type, ACCELERATOR_PIECE)
    # Not every model takes its running state up again in the middle of a prompt.
    longest = WHOLE if recurrent(empty) else piece

    def begin(places: Sequence[Place]) -> Batch:
        rows = [Row(*place, engine.encoder, engine.ends, True, engine.info.widths) for place in places]
        return Batch(engine, rows, longest)

    return Opening(begin, piece, CACHE_BYTES // bytes_per_token(engine.model))
