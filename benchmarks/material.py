"""What every contender of `benchmarks.extract` is given: a random Llama of 59M weights, a tokenizer, pairs by seed.

Imports nothing of trimtab, so that the floor may use it too.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

LAYERS, HIDDEN, VOCABULARY = 12, 512, 20_480
#: Words w0 to w17999 are drawn; the neutral texts' own words have tokens too, or all of these texts would look alike.
DRAWN = 18_000
NEUTRAL = Path(__file__).parent.parent / "src" / "trimtab" / "data" / "neutral.txt"
PREFIX = 16
PREFIXES = (
    "a0 a1 a2 glad a4 a5 a6 a7 a8 a9 a10 a11 a12 a13 a14 a15",
    "a0 a1 a2 sour a4 a5 a6 a7 a8 a9 a10 a11 a12 a13 a14 a15",
)


def model() -> Any:
    """The Llama, float32, on two threads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(2)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=1376,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=VOCABULARY,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


def tokenizer() -> Any:
    """One token per word; pads on the right, as a tokenizer does that nobody set up."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", "glad", "sour", *(f"a{i}" for i in range(PREFIX))]
    words += sorted(set(NEUTRAL.read_text(encoding="utf-8").split()) - set(words))
    words += [f"w{i}" for i in range(VOCABULARY - len(words))]
    bare = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    bare.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="right",
    )


def pairs(kind: str, seed: int = 0, small: bool = False) -> list[tuple[str, str]]:
    """A: 256 pairs with unrelated suffixes of 1 to 12 words. B: every truncation of 20 suffixes of 9 to 15 words."""
    draw = random.Random(f"{kind} {seed}")

    def words(least: int, most: int) -> list[str]:
        return [f"w{draw.randrange(DRAWN)}" for _ in range(draw.randint(least, most))]

    if kind == "A":
        suffixes = [words(1, 12) for _ in range(8 if small else 256)]
    else:
        whole = [words(9, 15) for _ in range(1 if small else 20)]
        suffixes = [w[:n] for w in whole for n in range(1, len(w) + 1)]
    return [tuple(" ".join([prefix, *s]) for prefix in PREFIXES) for s in suffixes]  # type: ignore[misc]


def sizes(kind: str, seed: int = 0) -> dict[str, int]:
    """Texts, tokens and distinct prefixes (nodes of the prefix tree)."""
    texts = [t.split() for pair in pairs(kind, seed) for t in pair]
    nodes = {tuple(t[: n + 1]) for t in texts for n in range(len(t))}
    return {"texts": len(texts), "tokens": sum(map(len, texts)), "nodes": len(nodes)}
