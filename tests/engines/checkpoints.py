"""A tiny checkpoint made on the spot: one token per ASCII character, a ChatML template, a Llama with loud weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> Any:
    """Character tokenizer of printable ASCII and newline, with a beginning-of-text token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<|bos|>", "<|im_start|>", "<|im_end|>"]
    letters = [c if c not in " \n" else {" ": "Ġ", "\n": "Ċ"}[c] for c in ["\n", *map(chr, range(32, 127))]]
    vocab = {t: i for i, t in enumerate([*special, *letters])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    core.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", pair="<|bos|> $A $B", special_tokens=[("<|bos|>", vocab["<|bos|>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|bos|>", eos_token="<|im_end|>", chat_template=TEMPLATE
    )


def save_tiny_llama(path: Path, context: int = 128) -> Path:
    """Hidden 64, 4 blocks, 2 query heads over 1 key head of 32; written with `save_pretrained`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=context,
        initializer_range=0.15,
        tie_word_embeddings=False,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    words.save_pretrained(path)
    return path


def save_4bit(path: Path, target: Path) -> Path:
    """A checkpoint in 4 bits (groups of 32, float32 scales), as mlx-lm converts it."""
    from mlx_lm import convert

    convert(str(path), str(target), quantize=True, q_bits=4, q_group_size=32, dtype="float32")
    return target


def dequantised(model: Any, path: Path) -> Any:
    """`model` (torch) with the weights that a 4-bit checkpoint of it stands for."""
    import mlx.core as mx
    import numpy as np
    import torch

    weights: dict[str, Any] = {}
    for file in sorted(path.glob("*.safetensors")):
        weights |= mx.load(str(file))
    found = {}
    for name in [n for n in weights if n.endswith(".weight")]:
        stem, value = name.removesuffix(".weight"), weights[name]
        if f"{stem}.scales" in weights:
            scales, biases = weights[f"{stem}.scales"], weights[f"{stem}.biases"]
            value = mx.dequantize(value, scales, biases, group_size=32, bits=4)
        found[name] = torch.from_numpy(np.array(value.astype(mx.float32)))
    missing, unexpected = model.load_state_dict(found, strict=False)
    assert not unexpected and not [m for m in missing if "inv_freq" not in m], (missing, unexpected)
    return model


def save_adapter(path: Path, model: Any, rank: int = 4, size: float = 0.3) -> dict[str, Any]:
    """A LoRA adapter of q_proj and down_proj of every layer, and what it adds to each weight."""
    import torch
    from safetensors.torch import save_file

    draw, tensors, added = torch.Generator().manual_seed(3), {}, {}
    for name, weight in model.named_parameters():
        if "q_proj" in name or "down_proj" in name:
            out, into = weight.shape
            a = size * torch.randn(rank, into, generator=draw)
            b = size * torch.randn(out, rank, generator=draw)
            stem = "base_model.model." + name.removesuffix(".weight")
            tensors |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
            added[name] = 2.0 * (b.double() @ a.double())
    path.mkdir()
    save_file(tensors, path / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "down_proj"],
    }
    (path / "adapter_config.json").write_text(
        json.dumps(settings | {"bias": "none", "task_type": "CAUSAL_LM"})
    )
    return added
