"""Whether a model can be given prefix trees: tried on the model itself, at the depth that is needed, once.

A tree is right only for a model whose layers read nothing of earlier tokens but what the attention mask shows them, at
the distances that the position ids say. Linear attention, models that ignore a mask of four dimensions, and distances
taken from the order in memory are found by comparing a small tree with its texts run one by one. A window or chunk of
attention is replaced by a given mask: texts longer than it go by length, and one that no config names shows in the
trial, which is as deep as the texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trimtab.engines.transformers.discovery import probe_ids, text_config
from trimtab.errors import SteeringLost

#: Largest relative difference of a state in a tree from the same text alone: rounding is below, a leak far above.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
COARSE = 5e-2  # half precision, of the mean over tokens
FIRST_DEPTH = 32


@dataclass
class Packing:
    """How captures without steering run: "tree" (shared beginnings once) or "buckets" (padded, by length).

    `limit` is the length of text up to which trees are right (None: any), `proved` the depth to which that has been
    tried, `reason` what decided. `tokens` counts what captures have run, padding included.
    """

    method: str
    reason: str
    limit: int | None = None
    proved: int = 0
    tokens: int = 0

    def __str__(self) -> str:
        return f"{self.method}: {self.reason}"

    @classmethod
    def of(cls, config: Any, takes_positions: bool) -> Packing:
        """What a config says before anything is tried."""
        if not takes_positions:
            return cls("buckets", "the model takes no position ids")
        windows = attention_windows(config)
        if not windows:
            return cls("tree", "not tried yet")
        name, size = min(windows.items(), key=lambda item: item[1])
        return cls("tree", f"not tried yet; texts longer than {name} {size} go by length", size)

    def refuse(self, reason: str) -> None:
        """Trees are wrong for this model."""
        self.method, self.reason = "buckets", reason


def attention_windows(config: Any) -> dict[str, int]:
    """Every size by which a config narrows attention: sliding windows and chunks."""
    named = {k: v for k, v in text_config(config).to_dict().items() if isinstance(v, int) and v > 0}
    narrow = {k: v for k, v in named.items() if "window" in k or k.endswith("attention_chunk_size")}
    return {k: v for k, v in narrow.items() if "layers" not in k and not k.startswith("use_")}


def trial_tokens(depth: int) -> int:
    """Tokens that a trial at this depth runs."""
    return depth // 2 * 3 + 2 * depth


def trial_depth(depth: int, context: int | None) -> int:
    """The depth to try where texts have `depth` tokens: the next power of two, so that trials stay few."""
    wanted = max(FIRST_DEPTH, 1 << (depth - 1).bit_length())
    return wanted if context is None else min(wanted, context)


def trial_texts(config: Any, depth: int) -> list[tuple[int, ...]]:
    """Two texts of random ordinary tokens that share their first half and differ right after it."""
    ordinary = np.unique(probe_ids(config, 1024)[0].numpy())
    random = np.random.default_rng(0)
    tail = depth - depth // 2
    stem = random.choice(ordinary, depth // 2)
    first = random.choice(ordinary, tail)
    second = random.choice(ordinary, tail)
    first[0], second[0] = ordinary[0], ordinary[-1]
    return [(*stem.tolist(), *end.tolist()) for end in (first, second)]


def prove(
    packing: Packing,
    depth: int,
    dtype: torch.dtype,
    trees: Callable[[], np.ndarray],
    alone: Callable[[], np.ndarray],
) -> None:
    """Compare states [n, width] by tree with those of the texts alone, and set what `packing` says."""
    want = alone().astype(np.float64)
    try:
        got = trees().astype(np.float64)
    except (torch.cuda.OutOfMemoryError, SteeringLost):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        packing.refuse(f"the model refuses a tree mask ({type(error).__name__}: {first[:120]})")
        return
    error = np.linalg.norm(got - want, axis=1) / np.maximum(np.linalg.norm(want, axis=1), 1e-30)
    found, allowed = (error.max(), TOLERANCE[dtype]) if dtype in TOLERANCE else (error.mean(), COARSE)
    if not found <= allowed:
        packing.refuse(
            f"states in a tree of depth {depth} are off by {found:.1g} from those of its texts alone"
        )
        return
    packing.proved = max(packing.proved, depth)
    beyond = "" if packing.limit is None else f"; texts of more than {packing.limit} tokens go by length"
    packing.reason = f"tried to a depth of {packing.proved} tokens, off by {found:.1g}{beyond}"
