"""A tiny checkpoint made on the spot: one token per ASCII character, a ChatML template, a Llama with loud weights."""

from __future__ import annotations

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
