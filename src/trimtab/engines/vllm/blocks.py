"""Blocks of keys and values that lost requests wrote: kept finite, and kept from whoever would read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from trimtab.engines.vllm.ticket import first_steered


def clean(runner: Any, lost: Iterable[str]) -> None:
    """Zero the blocks of lost requests that hold what is not finite. Attention multiplies the unused end of a block by
    weights of 0, and 0 times what is not finite is not finite: the block's next owner would be lost, too. Blocks that
    are finite may be shared with others of the same plan, and stay."""
    context = runner.compilation_config.static_forward_context
    for request in filter(None, map(runner.requests.get, lost)):
        for group, blocks in zip(runner.kv_cache_config.kv_cache_groups, request.block_ids, strict=True):
            own = torch.tensor([i for i in blocks if i], dtype=torch.long)  # block 0 is nobody's
            for name in group.layer_names:
                held = getattr(context.get(name), "kv_cache", None)
                for cache in held if isinstance(held, list | tuple) else [held]:
                    if isinstance(cache, torch.Tensor):
                        fine = torch.isfinite(cache[own]).flatten(1).all(1)
                        cache[own[~fine]] = 0


class Spoiled:
    """Blocks that hold what a lost request wrote from its first steered token on.

    The scheduler takes them out of the prefix cache when it hears of the loss. Where several steps are under way, as in
    a pipeline, a request of the same plan may have been given them before that: it is lost, too.
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._held: dict[int, set[int]] = {}

    def add(self, lost: Iterable[str]) -> None:
        """Remember the blocks of lost requests."""
        for request in filter(None, map(self._runner.requests.get, lost)):
            params = request.sampling_params
            first = first_steered(params.extra_args if params is not None else None)
            if first is None:
                continue
            for number, (size, blocks) in enumerate(zip(self._sizes(), request.block_ids, strict=True)):
                self._held.setdefault(number, set()).update(i for i in blocks[first // size :] if i)

    def met(self, scheduled: Any) -> dict[str, str]:
        """Requests of a step that begin with keys and values out of such blocks, {id: why}. A block that is computed
        anew is fine again."""
        if not any(self._held.values()):
            return {}
        found = {}
        begun = [(r.req_id, r.block_ids, r.num_computed_tokens) for r in scheduled.scheduled_new_reqs]
        cached = scheduled.scheduled_cached_reqs
        for id, blocks, computed in zip(cached.req_ids, cached.new_block_ids, cached.num_computed_tokens):
            if blocks is not None:
                # All of its blocks for one that comes back after a preemption; else new ones, behind what it has.
                begun.append((id, blocks, computed if id in cached.resumed_req_ids else 0))
        for id, groups, computed in begun:
            for number, (size, blocks) in enumerate(zip(self._sizes(), groups, strict=True)):
                held = self._held.get(number, set())
                if held.intersection(blocks[: computed // size]):
                    found[id] = "its prompt's keys and values were written by a request that was lost"
                held.difference_update(blocks[computed // size :])
        return found

    def _sizes(self) -> list[int]:
        return [g.kv_cache_spec.block_size for g in self._runner.kv_cache_config.kv_cache_groups]
