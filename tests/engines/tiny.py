"""Tiny random checkpoints of many families: hidden 64, three or four blocks, a vocabulary of 128. Built in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

HIDDEN, LAYERS, VOCABULARY = 64, 3, 128
BASE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
}
#: Two experts of four for each token.
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
#: A window of four tokens: shorter than the texts of the tests, so that it matters.
WINDOW = 4
LINEAR: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
}


def _make(model: str, config: str, **changes: Any) -> Callable[[], Any]:
    def build() -> Any:
        settings = {k: v for k, v in (BASE | changes).items() if v is not None}
        return _randomised(getattr(hf, model)(getattr(hf, config)(**settings)))

    return build


def _gpt2() -> Any:
    sizes = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 128, "vocab_size": VOCABULARY}
    return _randomised(hf.GPT2LMHeadModel(hf.GPT2Config(bos_token_id=1, eos_token_id=2, **sizes)))


def _llava() -> Any:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
    }
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(**BASE),
        vision_config=hf.CLIPVisionConfig(**vision, image_size=16, patch_size=8),
        image_token_index=VOCABULARY - 1,
    )
    return _randomised(hf.LlavaForConditionalGeneration(config))


def _randomised(model: Any) -> Any:
    """Weights large enough that every branch matters, and norm weights away from one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() >= 2:
                p.copy_(noise * (0.5 / p.shape[-1] ** 0.5 + 0.05))
            elif "A_log" not in name:
                p.add_(noise * 0.2)
    return model.eval()


FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": _make("LlamaForCausalLM", "LlamaConfig"),
    "mistral": _make("MistralForCausalLM", "MistralConfig", sliding_window=WINDOW),
    "qwen2": _make("Qwen2ForCausalLM", "Qwen2Config", head_dim=None),
    "qwen3": _make("Qwen3ForCausalLM", "Qwen3Config"),
    "qwen3-moe": _make("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **EXPERTS),
    "qwen3-next": _make(
        "Qwen3NextForCausalLM", "Qwen3NextConfig", **EXPERTS, **LINEAR, shared_expert_intermediate_size=32
    ),
    "qwen3.5": _make("Qwen3_5ForCausalLM", "Qwen3_5TextConfig", **LINEAR),
    "gemma": _make("GemmaForCausalLM", "GemmaConfig"),
    "gemma2": _make("Gemma2ForCausalLM", "Gemma2Config", sliding_window=WINDOW),
    "gemma3": _make("Gemma3ForCausalLM", "Gemma3TextConfig", sliding_window=WINDOW),
    "phi3": _make("Phi3ForCausalLM", "Phi3Config", head_dim=None),
    "olmo2": _make("Olmo2ForCausalLM", "Olmo2Config", head_dim=None),
    "gpt2": _gpt2,
    "gpt-neox": _make(
        "GPTNeoXForCausalLM", "GPTNeoXConfig", head_dim=None, num_key_value_heads=None, hidden_act="gelu"
    ),
    "mixtral": _make("MixtralForCausalLM", "MixtralConfig", num_local_experts=4, num_experts_per_tok=2),
    "llava": _llava,
}


class Words:
    """The least tokenizer an engine needs: token i is the word "wi"."""

    all_special_ids = (0, 1, 2)
    eos_token_id = 2
    chat_template = None
    is_fast = False

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        """Ids of words."""
        return {"input_ids": [int(w[1:]) for w in text.split()]}

    def decode(self, ids: list[int], skip_special_tokens: bool = True, **options: Any) -> str:
        """Words of ids."""
        skip = self.all_special_ids if skip_special_tokens else ()
        return "".join(f"w{i} " for i in ids if i not in skip)

    def convert_ids_to_tokens(self, token: int) -> str:
        """One word."""
        return f"w{token}"
