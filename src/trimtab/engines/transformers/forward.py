"""One forward pass of a Hugging Face model over a padded batch, and the cache that its layers need."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from trimtab.engines.transformers.discovery import text_config


@dataclass(frozen=True, eq=False)
class Padded:
    """Left-padded token ids [B, T]; `positions` [B, T] are absolute (-1 at padding); `pads` [B] counts padding."""

    ids: torch.Tensor
    positions: np.ndarray
    pads: np.ndarray

    @classmethod
    def of(cls, tokens: Sequence[Sequence[int]], device: torch.device, fill: int = 0) -> Padded:
        """Pad on the left, so that the last column holds every row's last token."""
        longest = max(map(len, tokens))
        pads = np.array([longest - len(t) for t in tokens])
        ids = np.array([[fill] * p + list(t) for p, t in zip(pads, tokens, strict=True)])
        positions = np.arange(longest)[None] - pads[:, None]
        return cls(torch.from_numpy(ids).to(device), np.maximum(positions, -1), pads)

    @property
    def mask(self) -> torch.Tensor | None:
        """Attention mask [B, T]; None without padding, which lets attention take its faster path."""
        if not self.pads.any():
            return None
        return torch.from_numpy(self.positions >= 0).long().to(self.ids.device)


class Forward:
    """Calls a model with what its signature takes."""

    def __init__(self, model: Any) -> None:
        self.model, self.config = model, model.config
        names = inspect.signature(model.forward).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in names.values())
        self.takes_positions = "position_ids" in names
        self._keeps = "logits_to_keep" in names or (open_ended and "num_logits_to_keep" not in names)

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.model.get_input_embeddings().weight.device

    def cache(self, capacity: int) -> DynamicCache:
        """A cache of the classes that this model's layers ask for; full attention gets room for `capacity` tokens."""
        cache = DynamicCache(config=self.config)
        cache.layers = [Roomy(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
        return cache

    def __call__(
        self,
        ids: torch.Tensor,
        positions: np.ndarray,
        mask: torch.Tensor | None,
        cache: DynamicCache | None = None,
        keep: int | torch.Tensor = 1,
    ) -> torch.Tensor:
        """Logits [B, keep, V] of the last `keep` columns (0: all; a tensor: those columns)."""
        options: dict[str, Any] = {}
        if self.takes_positions:
            options["position_ids"] = torch.from_numpy(np.maximum(positions, 0)).to(ids.device)
        if self._keeps:
            options["logits_to_keep"] = keep
        grouped = (
            grouped_attention(text_config(self.config)) if cache is not None and ids.shape[1] == 1 else None
        )
        with grouped or contextlib.nullcontext():
            found = self.model(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=cache is not None,
                **options,
            )
        if self._keeps:
            return found.logits
        return found.logits[:, keep] if isinstance(keep, torch.Tensor) else found.logits[:, -keep:]


@contextlib.contextmanager
def grouped_attention(text: Any) -> Iterator[None]:
    """Inside, one decode step of grouped-query attention reads every key and value once instead of copying it for each
    query head: the heads of a group become the queries of one head.

    Only where the model uses torch's own scaled-dot-product attention; anything else is left alone.
    """
    if text._attn_implementation != "sdpa":
        yield
        return
    text._attn_implementation_internal = GROUPED
    try:
        yield
    finally:
        text._attn_implementation_internal = "sdpa"


def _grouped(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: Any = None, **kwargs: Any
) -> Any:
    """Attention of single queries [B, heads, 1, width] over keys [B, groups, T, width]."""
    heads, groups = query.shape[1], key.shape[1]
    single = query.shape[2] == 1 and heads != groups and heads % groups == 0
    shared = attention_mask is None or attention_mask.shape[1] == 1
    if not single or not shared or kwargs.get("position_bias") is not None or kwargs.get("dropout"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    queries = query.reshape(len(query), groups, heads // groups, query.shape[-1])
    out = torch.nn.functional.scaled_dot_product_attention(
        queries, key, value, attn_mask=attention_mask, scale=scaling
    )
    return out.reshape(len(query), 1, heads, value.shape[-1]), None


GROUPED = "trimtab_grouped"
AttentionInterface.register(GROUPED, _grouped)
AttentionMaskInterface.register(GROUPED, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


class Roomy(DynamicLayer):
    """A full-attention cache layer that writes into reserved storage instead of copying all of it per token."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0
        self._keys = self._values = torch.empty(0)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Reserve [B, heads, capacity, width]."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._keys, self._values = (
            torch.empty(
                *s.shape[:-2], max(self.capacity, s.shape[-2]), s.shape[-1], dtype=s.dtype, device=s.device
            )
            for s in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values [B, heads, T, width] behind the old ones; views of all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[-2]
        if self.length + new > self._keys.shape[-2]:
            self._grow(self.length + new)
        self._keys.narrow(-2, self.length, new).copy_(key_states)
        self._values.narrow(-2, self.length, new).copy_(value_states)
        self.length += new
        self._view()
        return self.keys, self.values  # type: ignore[return-value]

    def _view(self) -> None:
        self.keys = self._keys.narrow(-2, 0, self.length)
        self.values = self._values.narrow(-2, 0, self.length)

    def _grow(self, length: int) -> None:
        more = 2 * length - self._keys.shape[-2]
        self._keys, self._values = (
            torch.cat([s, s.new_empty(*s.shape[:-2], more, s.shape[-1])], dim=-2)
            for s in (self._keys, self._values)
        )

    def hold(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        """Take over storage [B, heads, capacity, width] whose first `length` columns are in use."""
        self._keys, self._values, self.length = keys, values, length
        self._view()

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Select (or repeat) rows; only the part in use is copied."""
        if not self.length:
            return
        index = beam_idx.to(self._keys.device)
        kept = []
        for s in (self._keys, self._values):
            fresh = s.new_empty(len(index), *s.shape[1:])
            torch.index_select(s.narrow(-2, 0, self.length), 0, index, out=fresh.narrow(-2, 0, self.length))
            kept.append(fresh)
        self._keys, self._values = kept
        self._view()


def bytes_per_token(model: Any) -> int:
    """Rough size of one token's keys and values in all layers."""
    text = text_config(model.config)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * heads * width * text.num_hidden_layers * model.dtype.itemsize)
