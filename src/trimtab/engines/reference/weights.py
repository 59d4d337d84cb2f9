"""The reference model's weights, set by hand: what they do is known before anything runs.

The residual stream [32] is spanned by rows of a Hadamard matrix: no planted direction lies along a channel.
Word embeddings carry a class code, an identity code and the coordinates of `words.Word` along three planted
directions: joy (happy +, sad -), anger and formality. Attention averages these coordinates over the context,
three MLP neurons amplify them, and the unembedding favours words that share them, so steering along a planted
direction changes the next adjective or adverb. Every other weight is a small deterministic wave, which keeps
all streams alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trimtab.engines.reference.words import CLASSES, END, VOCABULARY
from trimtab.sites import Site

WIDTH, HEADS, KV_HEADS, HEAD_DIM, INNER = 32, 4, 2, 10, 48
EPS, ROPE_BASE = 1e-6, 10_000.0
CONCEPTS = ("joy", "anger", "formality")

#: Width of each stream; all groups differ, so that a mixed-up stream cannot go unseen.
STREAM_WIDTHS: Mapping[str, int] = {
    "resid_pre": WIDTH, "q": HEADS * HEAD_DIM, "k": KV_HEADS * HEAD_DIM, "v": KV_HEADS * HEAD_DIM,
    "head_out": HEADS * HEAD_DIM, "o": WIDTH, "attn_out": WIDTH, "gate": INNER, "up": INNER,
    "mlp_act": INNER, "down": WIDTH, "mlp_out": WIDTH, "resid_post": WIDTH,
}  # fmt: skip


def hadamard(size: int) -> np.ndarray:
    """Orthonormal rows of +-1/sqrt(size) [size, size]; size is a power of two."""
    rows = np.ones((1, 1))
    while len(rows) < size:
        rows = np.block([[rows, rows], [rows, -rows]])
    return rows / np.sqrt(size)


BASIS = hadamard(WIDTH)
#: Unit rows [32] of the planted directions.
PLANTED: Mapping[str, np.ndarray] = {name: BASIS[1 + i] for i, name in enumerate(CONCEPTS)}
_AXES = np.stack(list(PLANTED.values()))
_CLASS = {name: BASIS[4 + i] for i, name in enumerate(CLASSES)}
_CONSTANT = BASIS[4 + len(CLASSES)]
_IDENTITY = BASIS[5 + len(CLASSES) :]


def wave(rows: int, columns: int, phase: float) -> np.ndarray:
    """A deterministic matrix of numbers in [-1, 1] without low-rank structure (a chirp)."""
    i, j = np.arange(1, rows + 1)[:, None], np.arange(1, columns + 1)[None, :]
    return np.cos(2 * np.pi * (np.sqrt(2) * i * i + np.sqrt(3) * j * j + np.sqrt(5) * i * j + phase))


@dataclass(frozen=True)
class Block:
    """One layer. Matrices are [in, out]; `attn_scale, mlp_scale` [32] multiply what each branch adds."""

    attn_norm: np.ndarray
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    o: np.ndarray
    attn_scale: np.ndarray
    mlp_norm: np.ndarray
    gate: np.ndarray
    up: np.ndarray
    down: np.ndarray
    mlp_scale: np.ndarray


@dataclass(frozen=True)
class Weights:
    """The whole model, float64. `embed` [V, 32], `unembed` [32, V]."""

    embed: np.ndarray
    blocks: tuple[Block, ...]
    norm: np.ndarray
    unembed: np.ndarray

    @property
    def widths(self) -> dict[Site, int]:
        """Every site and its width."""
        return {Site(n, s): w for n in range(len(self.blocks)) for s, w in STREAM_WIDTHS.items()}


def _block(layer: int) -> Block:
    phase = 0.37 * (layer + 1)
    scale = 1 / np.sqrt(WIDTH)
    v = 0.3 * scale * wave(WIDTH, KV_HEADS * HEAD_DIM, phase + 0.3)
    o = 0.08 * scale * wave(HEADS * HEAD_DIM, WIDTH, phase + 0.4)
    v[:, : len(CONCEPTS)] = _AXES.T  # kv head 0 carries the planted coordinates ...
    for head in range(HEADS // KV_HEADS):  # ... and the query heads that share it write their average back
        start = head * HEAD_DIM
        o[start : start + len(CONCEPTS)] = 0.12 * _AXES
    gate = 0.5 * scale * wave(WIDTH, INNER, phase + 0.5)
    up = 0.5 * scale * wave(WIDTH, INNER, phase + 0.6)
    down = 0.12 * scale * wave(INNER, WIDTH, phase + 0.7)
    planted = np.stack([PLANTED["joy"], -PLANTED["joy"], PLANTED["anger"]])
    gate[:, :3], up[:, :3], down[:3] = planted.T, 0.5 * _CONSTANT[:, None], 0.05 * planted
    ripple = np.cos(np.arange(WIDTH) + layer)
    return Block(
        attn_norm=1 + 0.1 * ripple,
        q=0.8 * scale * wave(WIDTH, HEADS * HEAD_DIM, phase + 0.1),
        k=0.8 * scale * wave(WIDTH, KV_HEADS * HEAD_DIM, phase + 0.2),
        v=v,
        o=o,
        attn_scale=0.9 + 0.1 * ripple,
        mlp_norm=1 - 0.1 * ripple,
        gate=gate,
        up=up,
        down=down,
        mlp_scale=1.1 - 0.1 * ripple,
    )


def _embeddings() -> tuple[np.ndarray, np.ndarray]:
    """Embedding [V, 32] and unembedding [32, V]."""
    size = len(VOCABULARY)
    coordinates = np.array([[getattr(e.word, c) for c in CONCEPTS] for e in VOCABULARY])
    own = np.stack([_CLASS[e.word.kind] for e in VOCABULARY])
    identity = wave(size, len(_IDENTITY), 0.05) @ _IDENTITY / np.sqrt(len(_IDENTITY))
    embed = 2.0 * coordinates @ _AXES + 2.5 * own + identity + _CONSTANT
    # A word is favoured by the class that comes before its own; "other" leads to a subject as well.
    ring = CLASSES[:-1]
    before = {kind: _CLASS[ring[i - 1]] for i, kind in enumerate(ring)}
    before["subject"] = before["subject"] + _CLASS["other"]
    wanted = np.zeros((size, WIDTH))
    for token, entry in enumerate(VOCABULARY):
        if entry.word.kind in before:
            wanted[token] = before[entry.word.kind]
    wanted[END] = 0.95 * _CLASS["end"]
    logits = 4.5 * wanted + 1.6 * coordinates @ _AXES + 0.6 * wave(size, len(_IDENTITY), 0.15) @ _IDENTITY
    logits[[not e.inside for e in VOCABULARY]] *= 0.4  # words without a space in front begin a text only
    return embed, logits.T


def tiny(n_layers: int = 4) -> Weights:
    """The model called "tiny": the same language at any depth."""
    embed, unembed = _embeddings()
    norm = 1 + 0.2 * np.sin(np.arange(WIDTH))
    blocks = tuple(_block(layer) for layer in range(n_layers))
    return Weights(embed, blocks, norm, np.ascontiguousarray(unembed))
