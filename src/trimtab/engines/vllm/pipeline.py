"""Several workers of one model: where this one stands, what they agree on at load, what the next must know of a step.

With pipeline parallelism every worker has a slice of the layers, and what it found in a step goes with the states to
the one that has the next: coordinates of gates whose edits lie further down, and which requests are lost. It is one
tensor of bytes, because vLLM's channel between workers takes tensors only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import torch

from trimtab.errors import Unsupported

KEY = "trimtab"
_PREFIX = 8


@dataclass(frozen=True)
class Place:
    """Where a worker stands: its rank among all, and whether it has the first and the last layers; `tensor` of
    `tensors` workers share its layers, and hold the same states."""

    rank: int = 0
    ranks: int = 1
    tensor: int = 0
    tensors: int = 1
    first: bool = True
    last: bool = True

    @classmethod
    def here(cls) -> Place:
        """This worker's."""
        from vllm.distributed.parallel_state import get_pp_group, get_tp_group, get_world_group

        world, tp, pp = get_world_group(), get_tp_group(), get_pp_group()
        return cls(
            world.rank_in_group,
            world.world_size,
            tp.rank_in_group,
            tp.world_size,
            pp.is_first_rank,
            pp.is_last_rank,
        )

    def exchange(self, verdict: tuple[bool | None, str]) -> list[tuple[bool | None, str]]:
        """Every worker's verdict, by rank. All of them must ask."""
        if self.ranks == 1:
            return [verdict]
        from vllm.distributed.parallel_state import get_world_group

        found: list[Any] = [None] * self.ranks
        torch.distributed.all_gather_object(found, verdict, group=get_world_group().cpu_group)
        return found


def agree(place: Place, probe: Callable[[], bool]) -> bool:
    """What the workers with the last layers find in their probe; the others cannot tell. One that cannot be steered is
    enough to refuse everywhere: a plan that acts in some layers is none."""
    split, why = None, ""
    if place.last:
        try:
            split = probe()
        except Unsupported as error:
            why = str(error)
        except Exception as error:
            why = f"the probe of the model failed: {type(error).__name__}: {error}"
    verdicts = place.exchange((split, why))
    refused = next((why for _, why in verdicts if why), "")
    if refused:
        raise Unsupported(refused)
    known = {split for split, _ in verdicts if split is not None}
    if len(known) != 1:
        raise Unsupported(
            "the workers do not agree on what the layers of the model return; it is not steered"
        )
    return known.pop()


def empty_states(runner: Any, tokens: int) -> Any:
    """What the worker with the layers before these hands on, of so many tokens."""
    return runner.get_model().make_empty_intermediate_tensors(
        batch_size=tokens, dtype=runner.model_config.dtype, device=runner.device
    )


def pack(lost: Mapping[str, str], gates: Sequence[np.ndarray], tensors: int) -> torch.Tensor:
    """Losses {id: why} and coordinates of gates [n] float32 as bytes."""
    data = msgspec.msgpack.encode((dict(lost), [g.astype(np.float32).tobytes() for g in gates]))
    # vLLM sends a tensor in slices, one from each of the workers that hold it, where its size allows that. Their words
    # for a loss may differ, so its size never does.
    size = _PREFIX + len(data)
    size += (1 - size) % tensors
    out = np.zeros(size, np.uint8)
    out[:_PREFIX] = np.frombuffer(len(data).to_bytes(_PREFIX, "little"), np.uint8)
    out[_PREFIX : _PREFIX + len(data)] = np.frombuffer(data, np.uint8)
    return torch.from_numpy(out)


def unpack(packed: torch.Tensor | None) -> tuple[dict[str, str] | None, list[np.ndarray]]:
    """What `pack` was given; None and nothing where nothing came."""
    if packed is None:
        return None, []
    data = packed.cpu().numpy().tobytes()
    end = _PREFIX + int.from_bytes(data[:_PREFIX], "little")
    lost, gates = msgspec.msgpack.decode(data[_PREFIX:end])
    return lost, [np.frombuffer(g, np.float32).copy() for g in gates]
