"""A prompt that runs once and is continued many times, each time under another plan.

The prompt itself is unsteered: plans act from its last token's successor on, and anything that reaches back into it is
refused. Every continuation runs its last token again by itself, so that the first token, readings and captures are
those of a whole run. Plain caches hold that token too, because mlx-lm goes on from a prompt-cache file with what comes
after; caches that cannot be cut (rolling, recurrent) hold all tokens but the last.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import (
    KVCache,
    can_trim_prompt_cache,
    load_prompt_cache,
    make_prompt_cache,
    save_prompt_cache,
    trim_prompt_cache,
)

from trimtab.engines.requests import Request
from trimtab.errors import FormatError, InputError, Mismatch, Unsupported
from trimtab.prompts import Prompt, resolve_positions
from trimtab.resolved import ResolvedPlan

METADATA = "trimtab_model"
#: What `mlx_lm.generate --prompt-cache-file` looks for in a file.
MODEL, TOKENIZER = "model", "tokenizer_config"


@dataclass(frozen=True, eq=False)
class Prefix:
    """A prompt and mlx-lm's caches of its tokens, with or without the last one. `source` is what mlx-lm loads."""

    prompt: Prompt
    layers: list[Any]
    model: str
    source: str

    def copies(self, rows: int) -> list[Any]:
        """Caches for a batch of `rows` rows; the prefix itself stays as it is."""
        if rows > 1 and not self.repeatable:
            raise Unsupported(
                "this model's caches cannot be repeated: continue from the prefix one row at a time"
            )
        if not self.repeatable:
            return copy.deepcopy(self.layers)
        out = []
        for layer in self.layers:
            fresh = KVCache()
            if layer.keys is not None:
                before = len(self.prompt) - 1
                fresh.keys, fresh.values = (
                    mx.repeat(a[..., :before, :], rows, axis=0) for a in (layer.keys, layer.values)
                )
                fresh.offset = before
            out.append(fresh)
        return out

    @property
    def repeatable(self) -> bool:
        """Whether several rows can continue together."""
        return all(type(layer) is KVCache for layer in self.layers)

    def check(self, request: Request) -> None:
        """Refuse a prepared request that does not continue this prefix."""
        assert isinstance(request.prompt, Prompt) and isinstance(request.plan, ResolvedPlan)
        if request.prompt.tokens != self.prompt.tokens:
            raise InputError("this request has another prompt than the prefix; use the prefix's own `prompt`")
        first = request.plan.first_position()
        if first is not None and first < len(self.prompt):
            raise InputError(
                f"the plan acts on token {first} of the prompt, and a prefix of {len(self.prompt)} tokens has run "
                "unsteered: use positions 'generated', or generate() without a prefix"
            )
        if request.capture is not None:
            ranges = resolve_positions(request.capture.positions, self.prompt)
            if ranges and ranges[0][0] < len(self.prompt) - 1:
                raise InputError(
                    "a continuation does not run the prompt again, so that its states are gone; capture positions "
                    "'generated' or 'last_prompt'"
                )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a prompt-cache file, for `mlx_lm.generate --prompt-cache-file` too where the caches are plain.

        A file of other caches lacks the prompt's last token, and the entries without which mlx-lm refuses it.
        """
        metadata = {METADATA: self.model}
        if self.repeatable and _length(self.layers) == len(self.prompt):
            metadata |= {MODEL: self.source, TOKENIZER: "{}"}
        save_prompt_cache(os.fspath(path), self.layers, metadata)


def run(model: nn.Module, prompt: Prompt, name: str, source: str, chunk: int) -> Prefix:
    """Run a prompt unsteered: all of it, or all but the last token where that could not be taken back."""
    layers = make_prompt_cache(model)
    ids = mx.array([prompt.tokens])
    end = len(prompt) if all(type(layer) is KVCache for layer in layers) else len(prompt) - 1
    for start in range(0, end, chunk):
        model(ids[:, start : min(start + chunk, end)], cache=layers)
        mx.eval([layer.state for layer in layers])
    return Prefix(prompt, layers, name, source)


def read(path: str | os.PathLike[str], prompt: Prompt, name: str, source: str, blocks: int) -> Prefix:
    """A prompt-cache file of mlx-lm; `prompt` are the tokens it was made from (the file does not hold them)."""
    if not Path(path).exists():
        raise FormatError(f"no such file: {path}")
    try:
        layers, metadata = load_prompt_cache(os.fspath(path), return_metadata=True)
    except (RuntimeError, ValueError, KeyError) as error:
        raise FormatError(f"{path} is no prompt-cache file of mlx-lm: {error}") from error
    made_by = metadata.get(METADATA, name) if isinstance(metadata, dict) else name
    if made_by != name or len(layers) != blocks:
        raise Mismatch(
            f"{path} was made for {made_by} with {len(layers)} blocks, and this is {name} with {blocks}"
        )
    held, plain = _length(layers), all(type(layer) is KVCache for layer in layers)
    if held == len(prompt) and not plain and can_trim_prompt_cache(layers):
        trim_prompt_cache(layers, 1)
        held -= 1
    if held not in ((len(prompt) - 1, len(prompt)) if plain else (len(prompt) - 1,)):
        raise Mismatch(
            f"{path} holds {held} tokens, and the prompt has {len(prompt)}: it was made from another one"
        )
    return Prefix(prompt, layers, name, source)


def _length(layers: Sequence[Any]) -> int:
    sizes = {int(layer.offset) for layer in layers if hasattr(layer, "offset")}
    if len(sizes) != 1:
        raise FormatError(f"a prompt cache whose blocks hold {sorted(sizes)} tokens cannot be continued")
    return sizes.pop()
