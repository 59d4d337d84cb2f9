"""One forward pass over the next tokens of several sequences, laid end to end: without padding no column can
be taken for a position. Every stream is visited once; a visit shows the state, edits it, shows it again."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trimtab.engines.reference.weights import EPS, HEAD_DIM, HEADS, KV_HEADS, ROPE_BASE, WIDTH, Block, Weights
from trimtab.interventions import displace, edit
from trimtab.resolved import ResolvedGate, ResolvedPlacement, ResolvedPlan
from trimtab.sites import Site

#: A state that somebody wants to see: at a site, before or after its edits.
View = tuple[Site, str]


@dataclass
class Track:
    """One running sequence: its tokens so far, its plan, and the keys and values of those processed."""

    tokens: list[int]
    plan: ResolvedPlan
    done: int = 0
    keys: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """Tokens [start, stop) of one track, at `rows` of the pass."""

    track: Track
    start: int
    stop: int
    rows: slice

    @property
    def positions(self) -> np.ndarray:
        """Absolute positions [n]."""
        return np.arange(self.start, self.stop)


def plan_parts(tracks: Sequence[Track], chunk: int | None) -> list[Part]:
    """The next tokens of each track, at most `chunk` of each."""
    parts, offset = [], 0
    for track in tracks:
        stop = len(track.tokens) if chunk is None else min(len(track.tokens), track.done + max(1, chunk))
        count = stop - track.done
        parts.append(Part(track, track.done, stop, slice(offset, offset + count)))
        offset += count
    return parts


class Pass:
    """Runs parts through the blocks. `seen[view]` holds the watched states [tokens, width] of the whole pass,
    `last` those that leave the last block."""

    def __init__(self, weights: Weights, parts: Sequence[Part], watch: Iterable[View] = ()) -> None:
        self.weights, self.parts = weights, parts
        self.positions = np.concatenate([p.positions for p in parts])
        gates = (e.gate for p in parts for e in p.track.plan.effective if e.gate)
        self.watch = {*watch, *((g.site, g.at) for g in gates)}
        self.edited = {s for p in parts for s in p.track.plan.sites}
        self.seen: dict[View, np.ndarray] = {}
        self.last = np.empty((0, WIDTH))

    def run(self, deepest: int | None = None) -> None:
        """Run to block `deepest` (default: the last), and grow the tracks' caches."""
        x = self.weights.embed[[t for p in self.parts for t in p.track.tokens[p.start : p.stop]]]
        for layer, block in enumerate(self.weights.blocks[: None if deepest is None else deepest + 1]):
            x = self.block(layer, block, x)
        for part in self.parts:
            part.track.done = part.stop
        self.last = x

    def block(self, layer: int, b: Block, x: np.ndarray) -> np.ndarray:
        """One transformer block."""
        x = self.visit(layer, "resid_pre", x)
        n = rms(x, b.attn_norm)
        q, k, v = (self.visit(layer, s, n @ w) for s, w in (("q", b.q), ("k", b.k), ("v", b.v)))
        heads = self.visit(layer, "head_out", self.attend(layer, q, k, v))
        out = self.visit(layer, "o", heads @ b.o)
        x = x + self.visit(layer, "attn_out", out * b.attn_scale)
        n = rms(x, b.mlp_norm)
        gate = self.visit(layer, "gate", n @ b.gate)
        up = self.visit(layer, "up", n @ b.up)
        inner = self.visit(layer, "mlp_act", silu(gate) * up)
        down = self.visit(layer, "down", inner @ b.down)
        return self.visit(layer, "resid_post", x + self.visit(layer, "mlp_out", down * b.mlp_scale))

    def attend(self, layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Causal grouped-query attention [tokens, heads * head_dim]; each part sees its own track only."""
        q = rotate(q.reshape(len(q), HEADS, HEAD_DIM), self.positions)
        k = rotate(k.reshape(len(k), KV_HEADS, HEAD_DIM), self.positions)
        v = v.reshape(len(v), KV_HEADS, HEAD_DIM)
        out = np.empty((len(q), HEADS * HEAD_DIM))
        for part in self.parts:
            keys = remember(part.track.keys, layer, part.start, k[part.rows])
            values = remember(part.track.values, layer, part.start, v[part.rows])
            n, group = part.stop - part.start, HEADS // KV_HEADS
            queries = q[part.rows].reshape(n, KV_HEADS, group, HEAD_DIM).transpose(1, 2, 0, 3)
            scores = queries @ keys.transpose(1, 2, 0)[:, None] / np.sqrt(HEAD_DIM)
            future = np.arange(part.stop)[None, :] > part.positions[:, None]
            mixed = softmax(np.where(future, -np.inf, scores)) @ values.transpose(1, 0, 2)[:, None]
            out[part.rows] = mixed.transpose(2, 0, 1, 3).reshape(n, -1)
        return out

    # --- what is steered and seen ---------------------------------------------------------------------------

    def visit(self, layer: int, stream: str, states: np.ndarray) -> np.ndarray:
        """Show the state before its edits, edit it, show it after."""
        site = site_at(layer, stream)
        self.show((site, "before"), states)
        states = self.edit(site, states)
        self.show((site, "after"), states)
        return states

    def show(self, view: View, states: np.ndarray) -> None:
        """Keep a state that is watched. Nothing writes into states, so no copy is needed."""
        if view in self.watch:
            self.seen[view] = states

    def edit(self, site: Site, states: np.ndarray) -> np.ndarray:
        """Each part's placements at this site, in plan order, each on the result of the one before."""
        for part in self.parts if site in self.edited else ():
            for placement in part.track.plan.at(site):
                edited = self.apply(part, placement, states[part.rows])
                states = np.concatenate([states[: part.rows.start], edited, states[part.rows.stop :]])
        return states

    def apply(self, part: Part, p: ResolvedPlacement, h: np.ndarray) -> np.ndarray:
        """One placement on one part's states [n, width]."""
        active = np.array([p.acts_on(i) for i in part.positions])
        vectors = part.track.plan.vectors
        if p.gate is not None:
            active = active & self.open(part, p.gate, vectors)
        vector = vectors[p.vector]
        keep = p.renormalise
        if p.table_start is None:
            return edit(h, vector, p.coefficients, relative=p.relative, renormalise=keep, active=active)
        index = part.positions - p.table_start
        active = active & (index >= 0) & (index < len(vector))
        change = p.coefficients.shift * vector.astype(np.float64)[np.clip(index, 0, len(vector) - 1)]
        return displace(h, change, renormalise=keep, active=active)

    def open(self, part: Part, gate: ResolvedGate, vectors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which tokens [n] a gate lets through."""
        coordinate = self.seen[gate.site, gate.at][part.rows] @ vectors[gate.vector].astype(np.float64)
        return coordinate > gate.threshold if gate.above else coordinate < gate.threshold


@functools.cache
def site_at(layer: int, stream: str) -> Site:
    """The same `Site` every time: a pass visits hundreds."""
    return Site(layer, stream)


def remember(cache: list[np.ndarray], layer: int, start: int, new: np.ndarray) -> np.ndarray:
    """Append to a layer's cache [tokens, kv heads, head_dim] and return all of it."""
    if layer == len(cache):
        cache.append(new)
    else:
        cache[layer] = np.concatenate([cache[layer][:start], new])
    return cache[layer]


def log_probabilities(weights: Weights, states: np.ndarray) -> np.ndarray:
    """Natural log-probabilities [..., V] of the next token after states [..., width] of the last block."""
    logits = rms(states, weights.norm) @ weights.unembed
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def rms(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """RMSNorm of states [..., width], with a gain `weight` [width]."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def silu(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(x), number by number."""
    return x / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis of [..., n]."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rotate(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rotary embedding of [n, heads, head_dim] at absolute positions [n]; halves are paired."""
    half = HEAD_DIM // 2
    angle = positions[:, None] * ROPE_BASE ** (-np.arange(half) / half)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
