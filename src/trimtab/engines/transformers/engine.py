"""The Transformers engine: research breadth on PyTorch. Every stream, gradients, per-row plans in one batch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from trimtab.engines.base import CaptureItem, Engine
from trimtab.engines.joining import Opening
from trimtab.engines.placed import check_gates
from trimtab.engines.requests import Event, Request, Score
from trimtab.engines.tokenized import Tokenized
from trimtab.engines.tokens import PromptEncoder
from trimtab.engines.transformers import capture, generation, gradients, loading, raw, scoring, separation
from trimtab.engines.transformers.discovery import discover, probe_ids, text_config
from trimtab.engines.transformers.forward import Forward
from trimtab.engines.transformers.matrices import matrix
from trimtab.engines.transformers.packing import Packing
from trimtab.engines.transformers.proof import prove
from trimtab.engines.transformers.stations import Station, Stations, Stopped, running
from trimtab.objectives import Objective, Separation
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import ModelInfo, Site


class TransformersEngine(Tokenized, Engine):
    """A Hugging Face causal language model, or the text tower of a vision-language model, that can be steered.

    `model` and `tokenizer` are the plain objects; inside `with engine.steered(plan):` calls of `engine.model` are
    steered too. Sites are found by what the modules do, and loading fails unless a vector that is added at the first
    and last block can be read back there.
    """

    name = "transformers"
    monitors = True

    def __init__(
        self, model: Any, tokenizer: Any, *, id: str | None = None, revision: str | None = None
    ) -> None:
        config = model.config
        name = id or getattr(config, "_name_or_path", "") or type(model).__name__
        self.model, self.tokenizer = model.eval(), tokenizer
        self.encoder = PromptEncoder(tokenizer, name)
        self.forward, self.busy = Forward(model), False
        self.packing = Packing.of(config, self.forward.takes_positions)
        anatomy = discover(model, config, self._probe)
        self.anatomy, self.stations = anatomy, Stations(anatomy.taps)
        text = text_config(config)
        heads = getattr(text, "num_attention_heads", None)
        super().__init__(
            ModelInfo(
                id=name,
                n_layers=len(anatomy.blocks),
                hidden_size=anatomy.hidden_size,
                widths=anatomy.widths,
                revision=revision,
                architecture=type(model).__name__,
                context_length=getattr(text, "max_position_embeddings", None),
                vocab_size=int(text.vocab_size),
                n_heads=heads,
                head_dim=getattr(text, "head_dim", None) or (anatomy.hidden_size // heads if heads else None),
                dtype=str(model.dtype).removeprefix("torch."),
                template_hash=self.encoder.template_hash,
            )
        )
        self.ends = _end_tokens(model, tokenizer)
        prove(self, probe_ids(config)[0].tolist())

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        *,
        id: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        device_map: Any = None,
        quantization: str | None = None,
        revision: str | None = None,
        tokenizer: Any = None,
        trust_remote_code: bool = False,
        adapter: str | os.PathLike[str] | None = None,
    ) -> TransformersEngine:
        """Load a local directory or a hub id. On a CPU `dtype` "auto" computes in float32 whatever the file holds;
        `quantization` is "8bit" or "4bit" (bitsandbytes); `adapter` is a PEFT folder, merged into the weights."""
        found, its_tokenizer, its_revision = loading.load(
            model,
            dtype=dtype,
            device=device,
            device_map=device_map,
            quantization=quantization,
            revision=revision,
            tokenizer=tokenizer,
            trust_remote_code=trust_remote_code,
            adapter=adapter,
        )
        return cls(found, its_tokenizer, id=id or os.fspath(model), revision=its_revision)

    def module_names(self) -> dict[Site, str]:
        """Name of the module whose output each site is; the projections that share one fused module share its name."""
        names = {module: name for name, module in self.model.named_modules()}
        return {s: names[t.module] for s, t in sorted(self.anatomy.taps.items()) if t.side == "output"}

    # --- checks ------------------------------------------------------------------------------------------------

    def _check_plan(self, plan: ResolvedPlan) -> None:
        check_gates(plan, lambda site: self.stations.taps[site].order)

    @property
    def _token_ids(self) -> int:
        """Rows of the embedding, which may be padded beyond the vocabulary of the configuration."""
        return self.model.get_input_embeddings().weight.shape[0]

    # --- running -----------------------------------------------------------------------------------------------

    def run(
        self,
        ids: torch.Tensor,
        positions: np.ndarray,
        mask: torch.Tensor | None,
        stations: dict[Site, Station],
        cache: Any = None,
        keep: int = 1,
    ) -> torch.Tensor:
        """Logits [B, keep, V] of one forward pass in which every station does what is due."""
        self.busy = True
        try:
            with running(stations.values()):
                return self.forward(ids, positions, mask, cache, keep)
        finally:
            self.busy = False

    def run_until_stop(
        self,
        ids: torch.Tensor,
        positions: np.ndarray,
        mask: torch.Tensor | None,
        stations: dict[Site, Station],
    ) -> None:
        """One forward pass that ends at the station that stops it."""
        with contextlib.suppress(Stopped):
            self.run(ids, positions, mask, stations)

    def _probe(self, ids: torch.Tensor) -> torch.Tensor:
        ids = ids.to(self.forward.device)
        return self.forward(ids, np.arange(ids.shape[1])[None], None)

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

    def _pool(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], advance: Callable[[int], None] | None
    ) -> dict[Site, np.ndarray]:
        return capture.pool(self, items, sites, advance)

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
        """Matrix [out, in] float32 of the projection whose output is `site`."""
        self.info.width(site)
        return matrix(self.anatomy.taps[site])

    def _gradients(
        self, pairs: Sequence[tuple[CaptureItem, CaptureItem]], sites: Sequence[Site], objective: Separation
    ) -> tuple[dict[Site, np.ndarray], np.ndarray]:
        return separation.gradients(self, pairs, sites, objective)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """No parameter asks for a gradient inside; afterwards they ask as before."""
        asking = [p for p in self.model.parameters() if p.requires_grad]
        for p in asking:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in asking:
                p.requires_grad_(True)

    @contextlib.contextmanager
    def steered(self, plan: SteeringPlan | ResolvedPlan) -> Iterator[Engine]:
        """Requests without a plan of their own use `plan`, and so do plain calls of `engine.model` and its `generate`.

        A plain call whose plan needs a prompt to resolve (roles, "prompt", "generated") is refused.
        """
        with super().steered(plan), raw.steered_calls(self, self._default_plan.get):
            yield self

    def close(self) -> None:
        """Let the model go; its memory is freed once nobody else holds it."""
        self.stations.taps.clear()
        del self.model, self.forward, self.anatomy
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a sequence: the generation config's (one or several), else the tokenizer's."""
    given = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if given is None:
        given = getattr(tokenizer, "eos_token_id", None)
    return frozenset([] if given is None else [given] if isinstance(given, int) else [int(t) for t in given])
