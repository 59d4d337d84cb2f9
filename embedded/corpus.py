"""Training tokens: documents generated in seed order, encoded and cached outside the repository."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from embedded.tokenizer import load_or_build
from embedded.world import RANGES, document

CHUNK = 4000
END = 0


def texts(part: str, start: int, count: int) -> list[str]:
    """Texts of ``count`` documents of a part, from its ``start``-th on."""
    first = RANGES[part] + start
    return [document(seed).text for seed in range(first, first + count)]


def encode(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> np.ndarray:
    """All documents in one row of token ids, each closed by the end-of-text token."""
    rows = tokenizer.backend_tokenizer.encode_batch(documents)
    return np.concatenate([np.array([*row.ids, END], dtype=np.uint16) for row in rows])


def tokens(folder: Path, part: str, count: int, offset: int = 0, workers: int = 2) -> np.ndarray:
    """At least ``count`` tokens of a part, from document ``offset`` on; cached in ``folder``."""
    path = folder / f"{part}-{offset}-{count}.npy"
    if path.exists():
        return np.load(path)
    tokenizer = load_or_build(folder)
    chunks: list[np.ndarray] = []
    total, start = 0, offset
    with ProcessPoolExecutor(workers) as pool:
        while total < count:
            starts = [start + CHUNK * i for i in range(workers)]
            for batch in pool.map(texts, [part] * workers, starts, [CHUNK] * workers):
                chunks.append(encode(tokenizer, batch))
                total += len(chunks[-1])
            start += CHUNK * workers
    row = np.concatenate(chunks)[:count]
    np.save(path, row)
    return row
