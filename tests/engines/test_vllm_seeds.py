"""A seeded sample does not depend on the chunks of its prompt: without vLLM."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from trimtab.engines.vllm import seeds  # noqa: E402

pytestmark = pytest.mark.engine


def runner(computed: int, count: int, total: int, generator: torch.Generator) -> tuple:
    request = SimpleNamespace(num_tokens=total, generator=generator)
    batch = SimpleNamespace(generators={0: generator}, req_ids=["r"], num_computed_tokens_cpu=[computed])
    scheduled = SimpleNamespace(num_scheduled_tokens={"r": count})
    return SimpleNamespace(input_batch=batch, requests={"r": request}), scheduled


def test_a_draw_after_a_chunk_is_taken_back():
    want = torch.rand(3, generator=torch.Generator().manual_seed(4))
    run, chunk = runner(0, 8, 20, torch.Generator().manual_seed(4))
    for computed, count in ((0, 8), (8, 8)):
        run.input_batch.num_computed_tokens_cpu[0] = computed
        chunk.num_scheduled_tokens["r"] = count
        seeds.protect(run, chunk)
        generator = run.input_batch.generators[0]
        torch.rand(3, generator=generator)
        generator.set_offset(generator.get_offset() - 4)  # as vLLM does it
    run.input_batch.num_computed_tokens_cpu[0] = 16
    chunk.num_scheduled_tokens["r"] = 4
    seeds.protect(run, chunk)
    generator = run.input_batch.generators[0]
    assert run.requests["r"].generator is generator
    assert torch.equal(torch.rand(3, generator=generator), want)
    with pytest.raises(RuntimeError):
        torch.Generator().get_offset()  # why this is needed
