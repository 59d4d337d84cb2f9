"""Why a lost request's blocks are zeroed: what vLLM's attention on a processor lets pass from one request to another.

Within a step, nothing: keys and values that are not finite stay with their request. Across steps, what stands in the
unused end of a block: it is multiplied by a weight of 0, which is not finite if it is not. The day the second test
fails, `blocks._zero` may go.
"""

from __future__ import annotations

import random

import pytest

torch = pytest.importorskip("torch")
ops = pytest.importorskip(
    "vllm._custom_ops", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'"
)

pytestmark = pytest.mark.engine
HEADS, KV_HEADS, DIM, BLOCK = 4, 2, 64, 32


def instructions() -> str:
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    return _get_attn_isa(torch.float32, BLOCK, DIM)


class Batch:
    """Requests of random lengths, some decoding, some in a chunk of their prompt, in blocks dealt out at random."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.lengths = [
            draw.choice([draw.randint(1, 40), draw.randint(1, 200)]) for _ in range(draw.randint(2, 8))
        ]
        self.asked = [draw.choice([1, min(n, draw.randint(1, 60)), n]) for n in self.lengths]
        counts = [-(-n // BLOCK) for n in self.lengths]
        free = list(range(1, sum(counts) + 1))
        draw.shuffle(free)
        self.blocks = [[free.pop() for _ in range(n)] for n in counts]
        cache = torch.zeros(sum(counts) + 1, KV_HEADS, BLOCK * 2, DIM)
        self.keys, self.values = cache.chunk(2, dim=2)
        self.starts = [sum(self.asked[:i]) for i in range(len(self.asked) + 1)]
        self.query = torch.randn(self.starts[-1], HEADS, DIM)
        self.bad = draw.randrange(len(self.lengths))
        for i, n in enumerate(self.lengths):
            self.write(i, range(n), torch.randn(n, KV_HEADS, DIM))

    def write(self, request: int, positions: range, rows: torch.Tensor) -> None:
        slots = [self.blocks[request][p // BLOCK] * BLOCK + p % BLOCK for p in positions]
        if slots:
            where = torch.tensor(slots, dtype=torch.int64)
            ops.cpu_attn_reshape_and_cache(rows, rows, self.keys, self.values, where, instructions())

    def attend(self) -> list[torch.Tensor]:
        """The output of every request."""
        starts = torch.tensor(self.starts, dtype=torch.int32)
        lengths = torch.tensor(self.lengths, dtype=torch.int32)
        widest = max(map(len, self.blocks))
        table = torch.tensor([b + [0] * (widest - len(b)) for b in self.blocks], dtype=torch.int32)
        plan = ops.cpu_attn_get_scheduler_metadata(
            num_reqs=len(self.lengths), num_heads=HEADS, num_kv_heads=KV_HEADS, head_dim=DIM, seq_lens=lengths,
            dtype=torch.float32, query_start_loc=starts, causal=True, sliding_window_size=-1, isa=instructions(),
            enable_kv_split=True,
        )  # fmt: skip
        out = torch.zeros_like(self.query)
        ops.cpu_attention_with_kv_cache(
            query=self.query, key_cache=self.keys, value_cache=self.values, output=out, query_start_loc=starts,
            seq_lens=lengths, scale=DIM**-0.5, causal=True, alibi_slopes=None, sliding_window=-1,
            block_table=table, softcap=0.0, scheduler_metadata=plan, s_aux=None,
        )  # fmt: skip
        return [out[a:b] for a, b in zip(self.starts, self.starts[1:], strict=False)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_within_a_step_what_is_not_finite_stays_with_its_request(value):
    for seed in range(100):
        batch = Batch(seed)
        before, bad = batch.attend(), batch.bad
        length = batch.lengths[bad]
        batch.write(bad, range(length), torch.full((length, KV_HEADS, DIM), value))
        batch.query[batch.starts[bad] : batch.starts[bad + 1]] = value
        after = batch.attend()
        assert not torch.isfinite(after[bad]).all() or value == 3e38
        for i in set(range(len(before))) - {bad}:
            assert torch.equal(before[i], after[i]), (seed, i)


def test_the_unused_end_of_a_block_reaches_its_owner():
    reached = 0
    for seed in range(20):
        batch = Batch(seed)
        for i, n in enumerate(batch.lengths):
            end = range(n, len(batch.blocks[i]) * BLOCK)
            batch.write(i, end, torch.full((len(end), KV_HEADS, DIM), float("nan")))
        reached += any(not torch.isfinite(x).all() for x in batch.attend())
    assert reached > 0
