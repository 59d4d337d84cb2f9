"""What a vLLM must have, and which families and modes are refused in words: without vLLM."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from trimtab.engines.vllm import extension_points, losses, worker
from trimtab.engines.vllm.ticket import KEY
from trimtab.errors import Unsupported

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
    worker.refuse(runner, "speculation")
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


def config(**changes: object) -> SimpleNamespace:
    parallel = {"pipeline_parallel_size": 1, "data_parallel_size": 1, "enable_dbo": False}
    parallel |= {k: v for k, v in changes.items() if k in parallel}
    rest = {"use_v2_model_runner": False, "speculative_config": None, "kv_transfer_config": None}
    rest |= {k: v for k, v in changes.items() if k in rest}
    return SimpleNamespace(
        parallel_config=SimpleNamespace(**parallel),
        device_config=SimpleNamespace(device_type=changes.get("device", "cpu")),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=False),
        compilation_config=SimpleNamespace(pass_config=SimpleNamespace()),
        **rest,
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"use_v2_model_runner": True}, "V2"),
        ({"device": "cuda"}, "CPU"),
        ({"pipeline_parallel_size": 2}, "pipeline"),
        ({"data_parallel_size": 2}, "data"),
        ({"enable_dbo": True}, "overlap"),
        ({"speculative_config": object()}, "speculative"),
        ({"kv_transfer_config": object()}, "transferred"),
    ],
)
def test_modes_that_are_not_proven_are_refused_in_words(change, word):
    extension_points.check_config(config())
    with pytest.raises(Unsupported, match=word):
        extension_points.check_config(config(**change))


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
