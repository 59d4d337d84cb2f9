"""Tiny random checkpoints of the families that vLLM serves, on disk: hidden 64, 4 blocks, heads of 32 (the least that
vLLM's attention takes on a CPU), and what Transformers calls them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from engines.checkpoints import tokenizer

HIDDEN, LAYERS, CONTEXT = 64, 4, 512
BASE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 128,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
}
#: Tokens that stand for images, of a model that sees them.
MARKS = {
    "image_token_id": 120, "video_token_id": 121, "vision_start_token_id": 122, "vision_end_token_id": 123,
}  # fmt: skip
#: As many blocks as the text has, so that they could be taken for its own.
VISION: dict[str, Any] = {"depth": LAYERS, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2}
#: Shorter than the prompts of the tests, so that it matters.
WINDOW = 64


@dataclass(frozen=True)
class Family:
    """Transformers' classes and settings; `split`, what the probe must find out about vLLM's layers. `vision` are the
    settings of an image tower beside the text tower; vLLM is then told to load the text tower alone."""

    model: str
    config: str
    split: bool
    settings: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"

    @property
    def options(self) -> dict[str, Any]:
        """What vLLM must be told besides."""
        return {"dtype": self.dtype} | ({"language_model_only": True} if self.vision else {})

    def save(self, path: Path) -> Any:
        """Write a random checkpoint and its tokenizer; the model in float64, as the oracle wants it."""
        settings = BASE | self.settings
        if self.vision:
            settings = {"text_config": settings, "vision_config": self.vision, **MARKS}
        config = getattr(hf, self.config)(**settings)
        torch.manual_seed(0)
        model = _randomised(getattr(hf, self.model)(config)).to(getattr(torch, self.dtype))
        model.save_pretrained(path)
        tokenizer().save_pretrained(path)
        # Grouped products of experts do not come in float64.
        kinds = {"attn_implementation": "eager", "experts_implementation": "eager"}
        return getattr(hf, self.model).from_pretrained(path, dtype="float64", **kinds).eval()


def _randomised(model: Any) -> Any:
    """Weights large enough that every branch matters, and norm weights away from one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise * (0.5 / p.shape[-1] ** 0.5 + 0.05)) if p.dim() >= 2 else p.add_(noise * 0.2)
    return model


def _sized(**settings: Any) -> dict[str, Any]:
    return {"head_dim": 32, **settings}


FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", "LlamaConfig", True, _sized()),
    "mistral": Family("MistralForCausalLM", "MistralConfig", True, _sized(sliding_window=WINDOW)),
    "qwen2": Family("Qwen2ForCausalLM", "Qwen2Config", True),
    "qwen2-moe": Family(
        "Qwen2MoeForCausalLM", "Qwen2MoeConfig", True, EXPERTS | {"shared_expert_intermediate_size": 32}
    ),
    "qwen3": Family("Qwen3ForCausalLM", "Qwen3Config", True, _sized()),
    "qwen3-moe": Family("Qwen3MoeForCausalLM", "Qwen3MoeConfig", True, _sized(**EXPERTS)),
    "gemma": Family("GemmaForCausalLM", "GemmaConfig", True, _sized()),
    "gemma2": Family(
        "Gemma2ForCausalLM", "Gemma2Config", True, _sized(sliding_window=WINDOW, query_pre_attn_scalar=32)
    ),
    "gemma3": Family(
        "Gemma3ForCausalLM", "Gemma3TextConfig", True, _sized(sliding_window=WINDOW, query_pre_attn_scalar=32)
    ),
    "phi3": Family("Phi3ForCausalLM", "Phi3Config", True),
    "olmo2": Family("Olmo2ForCausalLM", "Olmo2Config", False),
    "cohere": Family("CohereForCausalLM", "CohereConfig", False),
    "llama4": Family(
        "Llama4ForCausalLM",
        "Llama4TextConfig",
        True,
        _sized(
            num_local_experts=2, num_experts_per_tok=1, intermediate_size_mlp=96, attention_chunk_size=WINDOW
        ),
    ),
    "qwen3-next": Family(
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        True,
        _sized(
            **EXPERTS,
            shared_expert_intermediate_size=32,
            linear_num_key_heads=1,
            linear_num_value_heads=2,
            linear_key_head_dim=128,
            linear_value_head_dim=128,
            layer_types=[*["linear_attention"] * 3, "full_attention"],
        ),
        dtype="bfloat16",  # the only one in which vLLM computes its linear attention on a CPU
    ),
    "stablelm": Family("StableLmForCausalLM", "StableLmConfig", False, {"partial_rotary_factor": 0.5}),
    "qwen2-vl": Family(
        "Qwen2VLForConditionalGeneration",
        "Qwen2VLConfig",
        True,
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}},
        VISION | {"embed_dim": 32, "hidden_size": HIDDEN},
    ),
    "qwen3-vl": Family(
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLConfig",
        True,
        _sized(
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            }
        ),
        VISION
        | {
            "hidden_size": 32,
            "intermediate_size": 64,
            "out_hidden_size": HIDDEN,
            "deepstack_visual_indexes": [1, 2],
            "num_position_embeddings": 64,
        },
    ),
}

#: Not steered, whatever vLLM makes of it.
GEMMA3N = Family(
    "Gemma3nForCausalLM", "Gemma3nTextConfig", False,
    _sized(
        vocab_size_per_layer_input=128, hidden_size_per_layer_input=16, num_kv_shared_layers=0, laurel_rank=8,
        layer_types=[*["sliding_attention"] * 3, "full_attention"], sliding_window=WINDOW,
        activation_sparsity_pattern=[0.0] * LAYERS, intermediate_size=[96] * LAYERS,
    ),
)  # fmt: skip
