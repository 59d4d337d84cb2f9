"""What a vLLM must have, and which families and modes are refused in words."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("vllm", reason="the vllm engine needs vllm: pip install 'trimtab[vllm]'")

from trimtab.engines.vllm import extension_points, losses, runners
from trimtab.engines.vllm.ticket import KEY
from trimtab.errors import InputError, Unsupported

pytestmark = pytest.mark.engine


def test_what_is_missing_is_named(monkeypatch):
    here: Callable[..., list[str]] = extension_points.missing
    points = (
        ("trimtab.engines.vllm.kernel", "Kernel.fill", ("items",), "see a batch"),
        ("trimtab.engines.vllm.kernel", "Kernel.fill", ("others",), "see another"),
        ("trimtab.engines.vllm.kernel", "Kernel.nothing", (), "do nothing"),
        ("trimtab.engines.vllm.nowhere", "x", (), "be nowhere"),
    )
    monkeypatch.setattr(extension_points, "POINTS", points)
    found = here()
    assert len(found) == 3
    assert "others" in found[0] and "nothing" in found[1] and "nowhere" in found[2]


def test_a_family_without_one_residual_stream_is_refused_by_name():
    extension_points.check_family("Gemma3ForCausalLM")
    for name in ("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"):
        with pytest.raises(Unsupported, match=f"{name}.*four versions"):
            extension_points.check_family(name)


def test_where_nothing_is_steered_a_steered_request_is_lost_and_a_plain_one_is_not():
    output, told = SimpleNamespace(), SimpleNamespace(extra_args={KEY: "whatever"})
    runner = SimpleNamespace(execute_model=lambda scheduled: "ran", sample_tokens=lambda grammar: output)
    runners.refuse(runner, "speculation")
    new = [
        SimpleNamespace(req_id="a", sampling_params=told),
        SimpleNamespace(req_id="b", sampling_params=SimpleNamespace(extra_args={"other": 1})),
        SimpleNamespace(req_id="c", sampling_params=SimpleNamespace(extra_args=None)),
        SimpleNamespace(req_id="d", sampling_params=None),
    ]
    assert runner.execute_model(SimpleNamespace(scheduled_new_reqs=new)) == "ran"
    assert runner.sample_tokens(None) is output and getattr(output, losses.ATTRIBUTE) == {"a": "speculation"}
    delattr(output, losses.ATTRIBUTE)
    runner.execute_model(SimpleNamespace(scheduled_new_reqs=[]))
    assert not hasattr(runner.sample_tokens(None), losses.ATTRIBUTE)


def config(**changes: Any) -> Any:
    """A configuration of vLLM's own classes, as far as modes are concerned, with some attributes changed."""
    from vllm.config import CacheConfig, CompilationConfig, CompilationMode, ParallelConfig

    found = SimpleNamespace(
        parallel_config=ParallelConfig(distributed_executor_backend="mp"),
        cache_config=CacheConfig(block_size=32),
        compilation_config=CompilationConfig(mode=CompilationMode.NONE),
        device_config=SimpleNamespace(device_type="cpu"),
        model_config=SimpleNamespace(runner_type="generate", is_encoder_decoder=False),
        speculative_config=None,
        kv_transfer_config=None,
        use_v2_model_runner=False,
        lora_config=None,
    )
    for path, value in changes.items():
        *parts, name = path.split("__")
        owner: Any = found
        for part in parts:
            owner = getattr(owner, part)
        object.__setattr__(owner, name, value)
    return found


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"use_v2_model_runner": True, "compilation_config__mode": 3}, "V2"),
        ({"use_v2_model_runner": True, "parallel_config__world_size": 2}, "V2"),
        ({"use_v2_model_runner": True, "lora_config": object()}, "V2"),
        ({"device_config__device_type": "cuda"}, "CPU"),
        ({"model_config__runner_type": "pooling"}, "pooling"),
        ({"model_config__is_encoder_decoder": True}, "encoder-decoder"),
        ({"parallel_config__data_parallel_size": 2}, "data"),
        ({"parallel_config__prefill_context_parallel_size": 2}, "context"),
        ({"parallel_config__decode_context_parallel_size": 2}, "context"),
        ({"parallel_config__enable_dbo": True}, "overlap"),
        ({"parallel_config__ubatch_size": 4}, "micro-batches"),
        ({"compilation_config__pass_config__enable_sp": True}, "sequence"),
        ({"cache_config__kv_sharing_fast_prefill": True}, "fast prefill"),
        ({"cache_config__kv_offloading_size": 1.0}, "offloaded"),
        ({"speculative_config": object()}, "speculative"),
        ({"kv_transfer_config": object()}, "transferred"),
        ({"parallel_config__nnodes": 2}, "several machines"),
        ({"parallel_config__distributed_executor_backend": "ray"}, "'ray'.*mp"),
        ({"parallel_config__distributed_executor_backend": "external_launcher"}, "external_launcher"),
    ],
    ids=lambda x: str([*x][-1]) if isinstance(x, dict) else "",
)
def test_modes_that_are_not_proven_are_refused_in_words(change, word):
    extension_points.check_config(config())
    extension_points.check_config(config(parallel_config__pipeline_parallel_size=2))
    extension_points.check_config(config(use_v2_model_runner=True))
    with pytest.raises(Unsupported, match=word):
        extension_points.check_config(config(**change))


def test_a_size_of_blocks_that_a_cpu_cannot_have_is_refused_before_anything_is_loaded():
    def blocks(size: int, device: str = "cpu", chosen: bool = True, mla: bool = False) -> SimpleNamespace:
        return SimpleNamespace(
            cache_config=SimpleNamespace(block_size=size, user_specified_block_size=chosen),
            device_config=SimpleNamespace(device_type=device),
            model_config=SimpleNamespace(use_mla=mla),
        )

    for fine in (blocks(64), blocks(16, "cuda"), blocks(16, chosen=False), blocks(16, mla=True)):
        extension_points.check_blocks(fine)
    with pytest.raises(InputError, match="multiples of 32, not 16"):
        extension_points.check_blocks(blocks(16))


def test_a_v2_runner_that_is_not_the_one_we_know_is_refused(monkeypatch):
    points = ((extension_points.V2, "GPUModelRunner.prepare_inputs", ("others",), "see a batch"),)
    monkeypatch.setattr(extension_points, "V2_POINTS", points)
    extension_points.check_config(config())
    with pytest.raises(Unsupported, match="others.*VLLM_USE_V2_MODEL_RUNNER=0"):
        extension_points.check_config(config(use_v2_model_runner=True))


class GatedDeltaNetAttention:
    """A stand-in for vLLM's."""


class OfSomeFamily(GatedDeltaNetAttention):
    pass


def test_a_kind_of_layer_that_vllm_computes_in_one_number_format_only_is_refused_in_others():
    def with_layers(dtype: str, *layers: object) -> SimpleNamespace:
        return SimpleNamespace(
            compilation_config=SimpleNamespace(static_forward_context=dict(enumerate(layers))),
            model_config=SimpleNamespace(dtype=f"torch.{dtype}"),
            device_config=SimpleNamespace(device_type="cpu"),
        )

    extension_points.check_layers(with_layers("bfloat16", OfSomeFamily()))
    extension_points.check_layers(with_layers("float32", object()))
    with pytest.raises(Unsupported, match="float32.*dtype='bfloat16'"):
        extension_points.check_layers(with_layers("float32", object(), OfSomeFamily()))
