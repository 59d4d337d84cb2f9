"""Blocks of keys and values that lost requests wrote: kept finite, and kept from whoever would read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from trimtab.engines.vllm.ticket import first_steered

SPOILED = "its prompt's keys and values were written by a request that was lost"


class Blocks:
    """The blocks of the requests that carry a ticket, by the scheduler's words, for each of vLLM's groups of layers.

    What a lost request wrote from its first steered token on is *spoiled*. The scheduler takes it out of the prefix
    cache when it hears of the loss; where several steps are under way, as in a pipeline, a request of the same plan may
    have been given it before that, and is lost, too.
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._own: dict[str, list[list[int]]] = {}
        self._first: dict[str, int | None] = {}
        self.spoiled: set[int] = set()

    def __len__(self) -> int:
        return len(self._own)

    def begin(self, scheduled: Any, tickets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Take in a step, `tickets` being the extra arguments of the requests that have one. Requests whose prompts
        begin with spoiled blocks, {id: why}; a block that is computed anew is fine again."""
        if not tickets and not self.spoiled:
            return {}
        for copy in getattr(scheduled, "kv_cache_block_copies", None) or ():
            if copy.src_block_id in self.spoiled:
                self.spoiled.add(copy.dst_block_id)
        found = {}
        for new in scheduled.scheduled_new_reqs:
            if self._replace(new.req_id, new.block_ids, new.num_computed_tokens, tickets):
                found[new.req_id] = SPOILED
        cached = scheduled.scheduled_cached_reqs
        for id, blocks, computed in zip(cached.req_ids, cached.new_block_ids, cached.num_computed_tokens):
            if blocks is None:
                continue
            if id in cached.resumed_req_ids:  # back after a preemption, with blocks that are all new to it
                if self._replace(id, blocks, computed, tickets):
                    found[id] = SPOILED
            else:
                self.spoiled.difference_update(*blocks)
                for own, more in zip(self._own.get(id, ()), blocks):
                    own.extend(more)
        return found

    def _replace(
        self, id: str, blocks: tuple[list[int], ...], computed: int, tickets: Mapping[str, Mapping[str, Any]]
    ) -> bool:
        """The blocks of a request, of which `computed` tokens are there already: whether any of these are spoiled."""
        bad = False
        for size, group in zip(self._sizes(), blocks, strict=True):
            there = -(-computed // size)
            bad = bad or not self.spoiled.isdisjoint(group[:there])
            self.spoiled.difference_update(group[there:])
        if id in tickets:
            self._own[id] = [list(group) for group in blocks]
            self._first[id] = first_steered(tickets[id])
        return bad and id in tickets

    def lose(self, ids: Iterable[str]) -> None:
        """Zero the blocks of lost requests that hold what is not finite, and remember all that are spoiled.

        Attention multiplies the unused end of a block by weights of 0, and 0 times what is not finite is not finite:
        the block's next owner would be lost, too. Blocks that are finite may be shared with others, and stay.
        """
        for id in ids:
            first = self._first.get(id)
            for size, group, own in zip(self._sizes(), self._groups(), self._own.get(id, ())):
                written = [i for i in own if i]  # block 0 is nobody's
                _zero(self._runner, group, torch.tensor(written, dtype=torch.long))
                if first is not None:
                    self.spoiled.update(i for i in own[first // size :] if i)

    def finish(self, ids: Iterable[str]) -> None:
        """These requests are gone."""
        for id in ids:
            self._own.pop(id, None)
            self._first.pop(id, None)

    def _groups(self) -> list[Any]:
        return self._runner.kv_cache_config.kv_cache_groups

    def _sizes(self) -> list[int]:
        return [g.kv_cache_spec.block_size for g in self._groups()]


def _zero(runner: Any, group: Any, blocks: torch.Tensor) -> None:
    context = runner.compilation_config.static_forward_context
    for name in group.layer_names:
        held = getattr(context.get(name), "kv_cache", None)
        for cache in held if isinstance(held, list | tuple) else [held]:
            if isinstance(cache, torch.Tensor):
                fine = torch.isfinite(cache[blocks]).flatten(1).all(1)
                cache[blocks[~fine]] = 0
