"""The reference engine: batches, chunked prefill, sampling, captures and readings over the numpy model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from trimtab.engines.base import CaptureItem, Engine
from trimtab.engines.batches import places_of
from trimtab.engines.joining import Opening
from trimtab.engines.reference import words
from trimtab.engines.reference.batch import Batch
from trimtab.engines.reference.forward import Pass, Track, View, log_probabilities, plan_parts
from trimtab.engines.reference.weights import HEAD_DIM, HEADS, PLANTED, WIDTH, Weights, tiny
from trimtab.engines.requests import Event, Message, Request, Score
from trimtab.errors import InputError, UnknownName, Unsupported
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import PROJECTIONS, ModelInfo, Site


class ReferenceEngine(Engine):
    """A transformer of four blocks in float64 numpy with planted concepts (`planted`: name -> unit row [32]).

    `chunk` splits prompts into pieces of so many tokens; `forwards` counts the passes that were run.
    """

    name = "reference"
    monitors = True
    passes: ClassVar[type[Pass]] = Pass

    def __init__(
        self, weights: Weights, *, id: str = "tiny", chunk: int | None = None, context_length: int = 512
    ) -> None:
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk is at least 1 token, got {chunk}")
        super().__init__(
            ModelInfo(
                id=id,
                n_layers=len(weights.blocks),
                hidden_size=WIDTH,
                widths=weights.widths,
                revision="1",
                architecture="reference",
                context_length=context_length,
                vocab_size=len(words.VOCABULARY),
                n_heads=HEADS,
                head_dim=HEAD_DIM,
                dtype="float64",
                template_hash=hashlib.sha256(words.TEMPLATE.encode()).hexdigest()[:16],
            )
        )
        self.weights, self.chunk = weights, chunk
        self.planted = PLANTED
        self.forwards = 0

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "tiny",
        *,
        id: str | None = None,
        chunk: int | None = None,
        context_length: int = 512,
        n_layers: int = 4,
    ) -> ReferenceEngine:
        """The built-in model "tiny"; the reference engine reads no checkpoints."""
        if str(model) != "tiny":
            raise UnknownName.of(
                "model of the reference engine",
                model,
                ["tiny"],
                "For a checkpoint use engine='transformers'.",
            )
        if n_layers < 1:
            raise InputError(f"a model has at least one block, got n_layers={n_layers}")
        return cls(tiny(n_layers), id=id or "tiny", chunk=chunk, context_length=context_length)

    # --- text --------------------------------------------------------------------------------------------

    def _encode_text(self, text: str) -> Prompt:
        return words.encode_text(text)

    def _encode_continuation(self, text: str) -> Sequence[int]:
        return words.tokenize(text)

    def _encode_messages(
        self, messages: Sequence[Message], generation_prompt: bool, prefill: str | None, thinking: bool | None
    ) -> Prompt:
        if thinking is not None:
            raise Unsupported(
                f"the chat template of {self.info.id} has no thinking switch; leave thinking out"
            )
        return words.encode_messages(messages, generation_prompt, prefill)

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """Text of tokens; incomplete characters become U+FFFD."""
        return words.to_bytes(tokens, special).decode("utf-8", errors="replace")

    def weight(self, site: Site) -> np.ndarray:
        """Matrix [out, in] float32 of the projection whose output is `site`."""
        self.info.width(site)
        if site.stream not in PROJECTIONS:
            raise Unsupported(
                f"{site} is not the output of one projection; those are {', '.join(PROJECTIONS)}"
            )
        return getattr(self.weights.blocks[site.layer], site.stream).T.astype(np.float32)

    # --- running -----------------------------------------------------------------------------------------

    def _forward(self, tracks: Sequence[Track], views: set[View], deepest: int | None = None) -> Pass:
        """One pass over the next chunk of every track."""
        step = self.passes(self.weights, plan_parts(tracks, self.chunk), views)
        self.forwards += 1
        step.run(deepest)
        return step

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        batch = Batch(self, places_of(requests))
        while batch.keys():
            yield from batch.step()

    def _opening(self) -> Opening:
        return Opening(lambda places: Batch(self, places), piece=self.info.context_length or 1)

    def _capture(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
    ) -> list[dict[Site, np.ndarray]]:
        views: set[View] = {(site, at) for site in sites}
        tracks = [Track(list(item.prompt.tokens), item.plan) for item in items]
        found: list[list[dict[View, np.ndarray]]] = [[] for _ in items]
        while waiting := [i for i, t in enumerate(tracks) if t.done < len(t.tokens)]:
            step = self._forward([tracks[i] for i in waiting], views, max(s.layer for s in sites))
            for i, part in zip(waiting, step.parts, strict=True):
                found[i].append({view: step.seen[view][part.rows] for view in views})
        return [
            {s: np.concatenate([f[s, at] for f in pieces])[item.positions].astype(np.float32) for s in sites}
            for item, pieces in zip(items, found, strict=True)
        ]

    def _score(self, items: Sequence[tuple[Prompt, int, ResolvedPlan, str]]) -> list[Score]:
        tracks = [Track(list(prompt.tokens), plan) for prompt, _, plan, _ in items]
        states: list[list[np.ndarray]] = [[] for _ in items]
        while waiting := [i for i, t in enumerate(tracks) if t.done < len(t.tokens)]:
            step = self._forward([tracks[i] for i in waiting], set())
            for i, part in zip(waiting, step.parts, strict=True):
                states[i].append(step.last[part.rows])
        return [
            self._scored(prompt.tokens, first, np.concatenate(pieces), wanted)
            for (prompt, first, _, wanted), pieces in zip(items, states, strict=True)
        ]

    def _scored(self, tokens: tuple[int, ...], first: int, states: np.ndarray, wanted: str) -> Score:
        table = log_probabilities(self.weights, states)
        chosen = np.array([table[i - 1, tokens[i]] for i in range(first, len(tokens))], dtype=np.float32)
        full = {"none": None, "last": table[-1], "all": table}[wanted]
        return Score(tokens[first:], chosen, None if full is None else full.astype(np.float32))
