"""Prefix-cache keys by plan content: a plain request never reads keys and values of a steered one, nor the reverse.

vLLM hashes a prompt block by block, each hash over the one before. The plan enters at the block that holds its first
steered token: blocks before it stay shared with everybody, and every block from there on belongs to the plan. The key
is the plan's fingerprint, which covers the content of its vectors and not their names.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from typing import Any

from trimtab.engines.vllm.ticket import KEY, ticket_of
from trimtab.errors import InputError

FUNCTION = "generate_block_hash_extra_keys"


def extra_key(extra_args: Any, start: int, end: int) -> tuple[str, str] | None:
    """What a request adds to the hash of its block [start, end); None for nothing."""
    text = (extra_args or {}).get(KEY)
    if text is None:
        return None
    try:
        ticket = ticket_of(extra_args)
        assert ticket is not None
    except InputError:  # the worker says what is wrong with it; meanwhile it shares with nobody
        digest = hashlib.sha256(repr(text).encode()).hexdigest()
        return (KEY, f"malformed {digest}") if start == 0 else None
    if ticket.first is None or not start <= ticket.first < end:
        return None
    return (KEY, f"{ticket.fingerprint} {ticket.epoch}")


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
        mine = extra_key(params.extra_args, start, end) if params is not None and params.extra_args else None
        return (keys if mine is None else (*(keys or ()), mine)), following

    with_plan.trimtab = True  # type: ignore[attr-defined]
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("vllm.") and vars(module).get(FUNCTION) is original:
            setattr(module, FUNCTION, with_plan)
