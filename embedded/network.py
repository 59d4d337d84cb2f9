"""The Qwen3 network written for training speed on a CPU; its weights are handed over to Transformers at the end.

Query, key and value share one matrix, and so do gate and up: fewer, larger products.  ``to_transformers``
splits them again, and ``train.py`` checks that both networks give the same logits.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu
from transformers import Qwen3Config, Qwen3ForCausalLM

EPSILON = 1e-6


def rotary_tables(length: int, head: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the rotary positions, each ``[length, head]``; the sines carry the sign of the swap."""
    inverse = theta ** (-torch.arange(0, head, 2).float() / head)
    angles = torch.outer(torch.arange(length).float(), inverse)
    sine = angles.sin()
    return torch.cat([angles.cos()] * 2, -1), torch.cat([-sine, sine], -1)


class Block(nn.Module):
    """One decoder layer."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.heads, self.groups, self.head = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        width, inner = config.hidden_size, config.intermediate_size
        rows = [self.heads * self.head, self.groups * self.head, self.groups * self.head]
        self.rows = rows
        self.qkv = nn.Parameter(torch.randn(sum(rows), width) * 0.02)
        self.out = nn.Parameter(torch.randn(width, rows[0]) * 0.02)
        self.gate_up = nn.Parameter(torch.randn(2 * inner, width) * 0.02)
        self.down = nn.Parameter(torch.randn(width, inner) * 0.02)
        self.before_attention, self.before_mlp = (
            nn.Parameter(torch.ones(width)),
            nn.Parameter(torch.ones(width)),
        )
        self.query_norm, self.key_norm = (
            nn.Parameter(torch.ones(self.head)),
            nn.Parameter(torch.ones(self.head)),
        )

    def forward(self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        mixed = linear(rms_norm(x, (width,), self.before_attention, EPSILON), self.qkv)
        query, key, value = mixed.view(batch, length, -1, self.head).split(
            [self.heads, self.groups, self.groups], dim=2
        )
        query = rms_norm(query, (self.head,), self.query_norm, EPSILON).transpose(1, 2)
        key = rms_norm(key, (self.head,), self.key_norm, EPSILON).transpose(1, 2)
        half = self.head // 2
        query = query * cosine + query.roll(half, -1) * sine
        key = key * cosine + key.roll(half, -1) * sine
        repeat = self.heads // self.groups
        if repeat > 1:
            key = key.repeat_interleave(repeat, 1)
            value = value.repeat_interleave(repeat, 2)
        mixed = scaled_dot_product_attention(query, key, value.transpose(1, 2), is_causal=True)
        x = x + linear(mixed.transpose(1, 2).reshape(batch, length, -1), self.out)
        gate, up = linear(rms_norm(x, (width,), self.before_mlp, EPSILON), self.gate_up).chunk(2, -1)
        return x + linear(silu(gate) * up, self.down)


class Network(nn.Module):
    """Embeddings, blocks, tied head."""

    def __init__(self, config: Qwen3Config, length: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.randn(config.vocab_size, config.hidden_size) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.last_norm = nn.Parameter(torch.ones(config.hidden_size))
        cosine, sine = rotary_tables(length, config.head_dim, config.rope_parameters["rope_theta"])
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(self, ids: torch.Tensor, noise: dict[int, torch.Tensor] | None = None) -> torch.Tensor:
        """Logits; ``noise`` maps a layer to directions added to its output in units of each token's norm."""
        x = nn.functional.embedding(ids, self.embedding)
        for index, block in enumerate(self.blocks):
            x = block(x, self.cosine, self.sine)
            if noise and index in noise:
                x = x + noise[index] * x.detach().norm(dim=-1, keepdim=True)
        return linear(rms_norm(x, x.shape[-1:], self.last_norm, EPSILON), self.embedding)

    def matrices(self) -> list[tuple[torch.nn.Parameter, list[int] | None]]:
        """For every matrix of the layers, its parts that Transformers keeps apart."""
        parts = []
        for block in self.blocks:
            inner = block.gate_up.shape[0] // 2
            parts += [
                (block.qkv, block.rows),
                (block.out, None),
                (block.gate_up, [inner, inner]),
                (block.down, None),
            ]
        return parts

    @torch.no_grad()
    def to_transformers(self) -> Qwen3ForCausalLM:
        """The same network as Transformers has it."""
        model = Qwen3ForCausalLM(self.config)
        model.model.embed_tokens.weight.copy_(self.embedding)
        model.model.norm.weight.copy_(self.last_norm)
        for block, layer in zip(self.blocks, model.model.layers, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            query, key, value = block.qkv.split(block.rows)
            gate, up = block.gate_up.chunk(2)
            for target, source in (
                (attention.q_proj, query), (attention.k_proj, key), (attention.v_proj, value),
                (attention.o_proj, block.out), (mlp.gate_proj, gate), (mlp.up_proj, up), (mlp.down_proj, block.down),
                (layer.input_layernorm, block.before_attention), (layer.post_attention_layernorm, block.before_mlp),
                (attention.q_norm, block.query_norm), (attention.k_norm, block.key_norm),
            ):  # fmt: skip
                target.weight.copy_(source)
        return model
