"""Prefix-cache keys by plan content: a plain request never reads keys and values of a steered one, nor the reverse.

vLLM hashes a prompt block by block, each hash over the one before. The plan enters at the block that holds its first
steered token: blocks before it stay shared with everybody, and every block from there on belongs to the plan. The key
is the plan's fingerprint, which covers the content of its vectors and not their names.

Where a rule may switch a plan on, what is written depends on readings: from the block of the first such position on, a
request shares with nobody but itself, which finds its own blocks again after a preemption.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from typing import Any

from trimtab.engines.vllm.ticket import KEY, ticket_of
from trimtab.errors import InputError

FUNCTION = "generate_block_hash_extra_keys"


def extra_key(extra_args: Any, start: int, end: int, id: str = "") -> tuple[str, str] | None:
    """What the request `id` adds to the hash of its block [start, end); None for nothing."""
    text = (extra_args or {}).get(KEY)
    if text is None:
        return None
    try:
        ticket = ticket_of(extra_args)
        assert ticket is not None
    except InputError:  # the worker says what is wrong with it; meanwhile it shares with nobody
        digest = hashlib.sha256(repr(text).encode()).hexdigest()
        return (KEY, f"malformed {digest}") if start == 0 else None
    words = []
    if ticket.first is not None and start <= ticket.first < end:
        words.append(f"{ticket.fingerprint} {ticket.epoch}")
    if ticket.switches_from is not None and start <= ticket.switches_from < end:
        words.append(f"{ticket.key} {id}")
    return (KEY, " ".join(words)) if words else None


def install() -> None:
    """Wrap vLLM's hook for extra keys, also where it was imported by name."""
    from vllm.v1.core import block_pool, kv_cache_utils  # noqa: F401 (block_pool holds the function by name)

    original = getattr(kv_cache_utils, FUNCTION)
    if hasattr(original, "trimtab"):
        return

    @functools.wraps(original)
    def with_plan(request: Any, start: int, end: int, *args: Any, **kwargs: Any) -> Any:
        keys, following = original(request, start, end, *args, **kwargs)
        params = request.sampling_params
        extra = None if params is None else params.extra_args
        mine = extra_key(extra, start, end, request.request_id) if extra else None
        return (keys if mine is None else (*(keys or ()), mine)), following

    with_plan.trimtab = True  # type: ignore[attr-defined]
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("vllm.") and vars(module).get(FUNCTION) is original:
            setattr(module, FUNCTION, with_plan)
