"""What a plan adds to the keys of the prefix cache, without vLLM."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from trimtab.engines.vllm import cache_keys
from trimtab.engines.vllm.ticket import KEY, Ticket

pytestmark = pytest.mark.engine


def args(first: int | None, fingerprint: str = "f", epoch: int = 0) -> dict[str, str]:
    return {KEY: Ticket("k", epoch, {"fingerprint": fingerprint}, first).to_text()}


def test_the_key_enters_at_the_block_of_the_first_steered_token():
    found = [cache_keys.extra_key(args(40), 32 * i, 32 * i + 32) for i in range(4)]
    assert [f is not None for f in found] == [False, True, False, False]
    assert cache_keys.extra_key(args(None), 0, 32) is None
    assert cache_keys.extra_key(None, 0, 32) is cache_keys.extra_key({"other": 1}, 0, 32) is None


def test_the_key_is_the_content_and_not_who_asks():
    one, same = args(0), {KEY: Ticket("another", 0, {"fingerprint": "f"}, 0, (1,), ((0, None),)).to_text()}
    assert cache_keys.extra_key(one, 0, 32) == cache_keys.extra_key(same, 0, 32)
    keys = [cache_keys.extra_key(a, 0, 32) for a in (one, args(0, "g"), args(0, epoch=1))]
    assert len(set(keys)) == 3


def test_a_malformed_ticket_shares_with_nobody_and_does_not_stop_the_scheduler():
    a, b = ({KEY: text} for text in ("{", "[]"))
    assert cache_keys.extra_key(a, 0, 32) not in (None, cache_keys.extra_key(b, 0, 32))
