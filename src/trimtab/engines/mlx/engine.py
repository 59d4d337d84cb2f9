"""The MLX engine: Apple machines, quantised weights included; it runs on Linux processors too."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from trimtab.engines.base import CaptureItem, Engine
from trimtab.engines.joining import Opening
from trimtab.engines.mlx import capture, generation, gradients, loading, prefix, scoring
from trimtab.engines.mlx import hooks as explore
from trimtab.engines.mlx.batch import CHUNK
from trimtab.engines.mlx.discovery import discover
from trimtab.engines.mlx.forward import Caches
from trimtab.engines.mlx.hooks import StateHook
from trimtab.engines.mlx.matrices import matrix
from trimtab.engines.mlx.prefix import Prefix
from trimtab.engines.mlx.stations import Stations
from trimtab.engines.placed import check_gates
from trimtab.engines.requests import Completion, Event, PromptLike, Request, Score
from trimtab.engines.tokenized import Tokenized
from trimtab.engines.tokens import PromptEncoder
from trimtab.objectives import Objective
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import ModelInfo, Site


class MLXEngine(Tokenized, Engine):
    """A model of mlx-lm that can be steered. `model` is the plain mlx-lm model: outside a run nothing of it is changed.

    MLX models are not safe for concurrent use: the engine's lock lets one run at a time through.
    """

    name = "mlx"
    monitors = True

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        config: dict[str, Any],
        *,
        id: str,
        revision: str | None = None,
        source: str | None = None,
    ) -> None:
        """`source` is the folder or hub id of the checkpoint, for prompt-cache files [default: `id`]."""
        self.source = source or id
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.encoder = PromptEncoder(getattr(tokenizer, "_tokenizer", tokenizer), id)
        vocabulary = int(config["vocab_size"])
        blocks, taps = discover(model, config, vocabulary)
        self.stations = Stations(taps)
        self.dtype = _dtype(model)
        self.ragged = Caches.ragged(model)
        hidden = taps[Site(0)].width
        heads = config.get("num_attention_heads")
        super().__init__(
            ModelInfo(
                id=id,
                n_layers=len(blocks),
                hidden_size=hidden,
                widths={site: taps[site].width for site in sorted(taps)},
                revision=revision,
                architecture=(config.get("architectures") or [type(model).__name__])[0],
                context_length=config.get("max_position_embeddings"),
                vocab_size=vocabulary,
                n_heads=heads,
                head_dim=config.get("head_dim") or (hidden // heads if heads else None),
                dtype=str(self.dtype).removeprefix("mlx.core."),
                template_hash=self.encoder.template_hash,
            )
        )
        self.ends = frozenset(int(t) for t in getattr(tokenizer, "eos_token_ids", ()) or ())

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        *,
        id: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        revision: str | None = None,
    ) -> MLXEngine:
        """Load a local directory or a hub id through mlx-lm; `dtype` "auto" keeps the checkpoint's own numbers."""
        found, tokenizer, config, its_revision = loading.load(
            model, dtype=dtype, device=device, revision=revision
        )
        source = os.fspath(model)
        return cls(found, tokenizer, config, id=id or source, revision=its_revision, source=source)

    # --- checks ------------------------------------------------------------------------------------------------

    def _check_plan(self, plan: ResolvedPlan) -> None:
        check_gates(plan, lambda site: self.stations.taps[site].order)

    # --- one prompt, many continuations ------------------------------------------------------------------------

    def prefill(self, prompt: PromptLike) -> Prefix:
        """Run a prompt once, unsteered, for `continue_from`."""
        encoded = self.encode(prompt)
        self._check_prompt(encoded)
        with self._lock:
            return prefix.run(self.model, encoded, self.info.id, self.source, CHUNK)

    def load_prefix(self, path: str | os.PathLike[str], prompt: PromptLike) -> Prefix:
        """A prompt-cache file of mlx-lm, or of `Prefix.save`, made from `prompt`."""
        return prefix.read(path, self.encode(prompt), self.info.id, self.source, self.info.n_layers)

    def continue_from(self, start: Prefix, requests: Request | Sequence[Request]) -> list[Completion]:
        """Completions after one prefix, each request with its own plan, sampling, capture and readout.

        A request's prompt is the prefix's. Plans that act on the prompt, and captures inside it, are refused.
        """
        many = [requests] if isinstance(requests, Request) else list(requests)
        prepared = [self.prepare(r) for r in many]
        for request in prepared:
            start.check(request)
        events = generation.generate(self, prepared, stream=False, prefix=start)
        return [replace(c, prompt=start.prompt) for c in self._completions(prepared, events)]

    # --- running -----------------------------------------------------------------------------------------------

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        return generation.generate(self, requests, stream=True)

    def _finished(self, requests: Sequence[Request]) -> Iterator[Event]:
        return generation.generate(self, requests, stream=False)

    def _opening(self) -> Opening:
        return generation.opening(self)

    def _capture(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
    ) -> list[dict[Site, np.ndarray]]:
        return capture.capture(self, items, sites, at)

    def _score(self, items: Sequence[tuple[Prompt, int, ResolvedPlan, str]]) -> list[Score]:
        return scoring.score(self, items)

    def gradient(
        self,
        prompts: Sequence[Prompt],
        site: Site,
        vector: np.ndarray,
        objective: Objective,
        coefficients: Sequence[float],
    ) -> tuple[np.ndarray, np.ndarray]:
        """(losses [B], gradient [W] of their sum) with row b steered by coefficients[b] * vector at every token."""
        for prompt in prompts:
            self._check_prompt(prompt)
        with self._lock:
            return gradients.gradient(self, prompts, site, vector, objective, coefficients)

    def weight(self, site: Site) -> np.ndarray:
        """Matrix [out, in] float32 of the projection whose output is `site`; quantised weights are unpacked."""
        self.info.width(site)
        return matrix(self.stations.taps[site])

    def run_with_hooks(self, prompt: PromptLike, hooks: Mapping[Site | int, StateHook]) -> mx.array:
        """Logits [1, T, V] of a prompt with functions of one's own at sites (an int is that layer's resid_post).

        A hook gets the states [1, T, width] and returns what goes on, or None. The result is lazy, and `mx.grad` of
        a function of it reaches whatever the hooks were given.
        """
        encoded = self.encode(prompt)
        self._check_prompt(encoded)
        with self._lock:
            return explore.run(self, encoded, hooks)

    def close(self) -> None:
        """Let the model go; its memory is freed once nobody else holds it."""
        self.stations.taps.clear()
        del self.model
        mx.clear_cache()


def _dtype(model: nn.Module) -> mx.Dtype:
    """The dtype of the residual stream: that of the first floating parameter."""
    from mlx.utils import tree_flatten

    leaves: Any = tree_flatten(model.parameters())
    for _, value in leaves:
        if mx.issubdtype(value.dtype, mx.floating):
            return value.dtype
    return mx.float32
