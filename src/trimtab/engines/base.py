"""The engine: what every one of them does with a request, a capture or a score. Subclasses implement the underscored
methods of `surface.Surface`; every check lives here and there, once, for all engines.

A request is prepared before anything runs: its prompt is encoded, its plan resolved against `library` and
`info`, sites and widths checked, the context length respected. What an engine cannot do raises `Unsupported`
there.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trimtab.activations import pool_positions
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.collect import Comparison, collect
from trimtab.engines.exactness import complete, exact, rows_of
from trimtab.engines.joining import OpenBatch
from trimtab.engines.requests import (
    Capture,
    CaptureSpec,
    Completion,
    Event,
    Message,
    PlanLike,
    PromptLike,
    Reply,
    Request,
    Sample,
    Sampling,
    Score,
    ScoreRequest,
)
from trimtab.engines.surface import CaptureItem, Surface
from trimtab.errors import InputError, Unsupported
from trimtab.evidence import Evidence
from trimtab.objectives import Objective, Separation
from trimtab.plans import EMPTY, SteeringPlan
from trimtab.prompts import Positions, Prompt, resolve_positions
from trimtab.resolved import ResolvedPlan
from trimtab.safe_range import SafeRangeWarning, beyond
from trimtab.sites import ModelInfo, Site

Progress = Callable[[int, int], None]


class Engine(Surface):
    """A model that can be read and steered. `library` maps names to vectors for plans that use names."""

    library: dict[str, ConceptVectors | Direction]

    def __init__(self, info: ModelInfo) -> None:
        super().__init__(info)
        self.library = {}
        self._default_plan: contextvars.ContextVar[PlanLike] = contextvars.ContextVar("plan", default=None)

    # --- plans ----------------------------------------------------------------------------------------------

    def resolve(self, plan: PlanLike, prompt: Prompt) -> ResolvedPlan:
        """Resolve a plan against this engine's library and model; None is the plan of `steered`, or none."""
        if plan is None:
            plan = self._default_plan.get()
        if plan is None:
            return EMPTY
        if isinstance(plan, SteeringPlan):
            resolved = plan.resolve(prompt, self.library, self.info)
            for sentence in beyond(p.source for p in resolved.effective):
                warnings.warn(sentence, SafeRangeWarning, stacklevel=3)
            return resolved
        if not isinstance(plan, ResolvedPlan):
            raise InputError(f"a plan is a SteeringPlan or ResolvedPlan, got {type(plan).__name__}")
        plan.check_model(self.info)
        return plan

    @contextlib.contextmanager
    def steered(self, plan: SteeringPlan | ResolvedPlan) -> Iterator[Engine]:
        """Every request inside that has no plan of its own uses `plan`."""
        token = self._default_plan.set(plan)
        try:
            yield self
        finally:
            self._default_plan.reset(token)

    def prepare(self, request: Request) -> Request:
        """Encode, resolve and check one request, before anything runs."""
        prompt = self.encode(request.prompt)
        plan = self.resolve(request.plan, prompt)
        self._check_prompt(prompt, request.sampling.max_tokens)
        if request.capture is not None:
            for site in request.capture.sites:
                self.info.width(site)
            resolve_positions(request.capture.positions, prompt)
        if request.readout is not None:
            request.readout.check_model(self.info)
        self._check_plan(plan)
        if request.monitor is not None:
            self._check_monitor(request)
        return replace(request, prompt=prompt, plan=plan)

    def _check_monitor(self, request: Request) -> None:
        assert request.monitor is not None
        if not self.monitors:
            raise Unsupported(f"the {self.name} engine runs no monitors; use engine='transformers'")
        if request.readout is None:
            raise InputError("a monitor sees readings: give the request a readout")
        for plan in request.monitor.plans:
            plan.check_model(self.info)
            self._check_plan(plan)

    # --- generation -----------------------------------------------------------------------------------------

    def stream(self, requests: Request | Sequence[Request]) -> Iterator[Event]:
        """Events of one or many requests, which run together in one batch."""
        many = [requests] if isinstance(requests, Request) else list(requests)
        prepared = [self.prepare(r) for r in many]
        with self._lock:
            for event in self._iterate(prepared):
                yield complete(event, prepared[event.request], self.info)

    def generate(self, requests: Request | Sequence[Request]) -> list[Completion]:
        """Completions, in the order of the requests."""
        many = [requests] if isinstance(requests, Request) else list(requests)
        prepared = [self.prepare(r) for r in many]
        return self._completions(prepared, self._finished(prepared))

    def _completions(self, prepared: Sequence[Request], events: Iterable[Event]) -> list[Completion]:
        """Run the events of prepared requests to their end, with the engine to oneself."""
        found: dict[tuple[int, int], Sample] = {}
        with self._lock:
            for event in events:
                if event.sample is not None:
                    complete(event, prepared[event.request], self.info)
                    found[event.request, event.index] = event.sample
        return [
            Completion(r.prompt, tuple(found[i, j] for j in range(r.sampling.n)), r.id)  # type: ignore[arg-type]
            for i, r in enumerate(prepared)
        ]

    def open_batch(self, rows: int) -> OpenBatch:
        """A batch of at most `rows` samples that prepared requests join and leave while it runs. `Unsupported` says why
        an engine, or its model, has none."""
        if rows < 1:
            raise InputError(f"a batch has at least one row, got {rows}")
        return OpenBatch(self, self._opening(), rows)

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        system: str | None = None,
        prefill: str | None = None,
        thinking: bool | None = None,
        plan: PlanLike = None,
        sampling: Sampling | None = None,
        capture: CaptureSpec | None = None,
        readout: Any = None,
        raw: bool = False,
    ) -> Reply:
        """One assistant turn. `prefill` begins the answer; `raw` also returns the output with its special
        tokens.
        """
        turns: list[Message] = (
            [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        )
        if system is not None:
            if turns and turns[0].get("role") == "system":
                raise InputError("the messages already begin with a system message; give one of the two")
            turns = [{"role": "system", "content": system}, *turns]
        prompt = self.encode(turns, prefill=prefill, thinking=thinking)
        request = Request(prompt, plan, sampling or Sampling(), capture, readout)
        (completion,) = self.generate(request)
        return Reply(
            {"role": "assistant", "content": (prefill or "") + completion.text},
            completion,
            prompt,
            prompt.roles(),
            self.decode(completion.tokens, special=True) if raw else None,
        )

    async def agenerate(self, requests: Request | Sequence[Request]) -> list[Completion]:
        """`generate` without blocking the event loop."""
        return await asyncio.to_thread(self.generate, requests)

    async def achat(self, messages: str | Sequence[Message], **kwargs: Any) -> Reply:
        """`chat` without blocking the event loop."""
        return await asyncio.to_thread(lambda: self.chat(messages, **kwargs))

    # --- reading --------------------------------------------------------------------------------------------

    def capture(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        sites: Iterable[Site | int],
        *,
        positions: Positions = "all",
        at: str = "after",
        plan: PlanLike = None,
    ) -> list[Capture]:
        """States of prompts at sites (an int is that layer's resid_post), exactly the rows asked for."""
        many = [prompts] if _is_one(prompts) else list(prompts)  # type: ignore[arg-type]
        spec = CaptureSpec(tuple(Site(s) if isinstance(s, int) else s for s in sites), positions, at)
        for site in spec.sites:
            self.info.width(site)
        items = []
        for each in many:
            prompt = self.encode(each)  # type: ignore[arg-type]
            self._check_prompt(prompt)
            rows = rows_of(resolve_positions(spec.positions, prompt), len(prompt))
            if not len(rows):
                raise InputError(
                    f"positions {spec.positions!r} address no token of a prompt of {len(prompt)}"
                )
            plan_here = self.resolve(plan, prompt)
            self._check_plan(plan_here)
            items.append(CaptureItem(prompt, rows, plan_here))
        with self._lock:
            states = self._capture(items, spec.sites, spec.at)
        return [
            Capture(
                {s: exact(v[s], len(item.positions), self.info.width(s), s) for s in spec.sites},
                item.positions,
                at,
            )
            for item, v in zip(items, states, strict=True)
        ]

    def pool(
        self,
        prompts: Sequence[Prompt],
        sites: Sequence[Site],
        pooling: str,
        advance: Callable[[int], None] | None = None,
    ) -> dict[Site, np.ndarray]:
        """Mean state [prompts, width] float32 over the tokens that `pooling` reads, unsteered.

        `advance(done)` counts prompts while they run, where the engine can say.
        """
        for prompt in prompts:
            self._check_prompt(prompt)
        items = [CaptureItem(p, pool_positions(pooling, p)) for p in prompts]
        with self._lock:
            found = self._pool(items, sites, advance)
        return {s: exact(found[s], len(items), self.info.width(s), s) for s in sites}

    def _pool(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], advance: Callable[[int], None] | None
    ) -> dict[Site, np.ndarray]:
        """Means of what `_capture` returns; an engine that can average before it hands over may do so."""
        states = self._capture(items, sites, "before")
        return {
            s: np.stack(
                [
                    exact(v[s], len(i.positions), self.info.width(s), s).mean(0)
                    for i, v in zip(items, states, strict=True)
                ]
            )
            for s in sites
        }

    def collect(
        self,
        prompts: Sequence[Prompt],
        comparisons: Sequence[Comparison],
        sites: Sequence[Site],
        needs: Iterable[str],
        pooling: str = "last",
        progress: Progress | None = None,
        objective: Separation | None = None,
    ) -> list[dict[Site, Evidence]]:
        """Evidence for each comparison at each site, streamed; equal prompts run once (`engines.collect`).
        `objective` is what the need "gradients" differentiates."""
        return collect(self, prompts, comparisons, sites, frozenset(needs), pooling, progress, objective)

    def _gradients(
        self, pairs: Sequence[tuple[CaptureItem, CaptureItem]], sites: Sequence[Site], objective: Separation
    ) -> tuple[dict[Site, np.ndarray], np.ndarray]:
        """Per site the gradients [2 * pairs, width] of an objective at the read tokens, rows (+, -) in turn, summed
        over an item's positions; and the squared norms [2 * pairs] of those at the objective's own input."""
        raise Unsupported(self._no_gradients)

    @property
    def _no_gradients(self) -> str:
        return f"the {self.name} engine does not differentiate; use engine='transformers'"

    def score(self, requests: ScoreRequest | Sequence[ScoreRequest]) -> list[Score]:
        """Log-probabilities under plans; see `ScoreRequest`."""
        many = [requests] if isinstance(requests, ScoreRequest) else list(requests)
        items = []
        for r in many:
            prompt = self.encode(r.prompt)
            plan = self.resolve(r.plan, prompt)
            self._check_plan(plan)
            extra = self._continuation(prompt, r.continuation)
            whole = replace(prompt, tokens=prompt.tokens + extra)
            self._check_prompt(whole)
            items.append((whole, len(prompt) if extra else 1, plan, r.logprobs))
        with self._lock:
            return self._score(items)

    def gradient(
        self,
        prompts: Sequence[Prompt],
        site: Site,
        vector: np.ndarray,
        objective: Objective,
        coefficients: Sequence[float],
    ) -> tuple[np.ndarray, np.ndarray]:
        """(losses [B], gradient [width] of their sum), float64, of a named objective (`trimtab.objectives`) with row b
        steered by coefficients[b] * vector at every token of `site`."""
        raise Unsupported(self._no_gradients)

    def weight(self, site: Site) -> np.ndarray:
        """Matrix [out, in] float32 of the projection whose output is `site` (`sites.PROJECTIONS`), without bias."""
        raise Unsupported(f"the {self.name} engine does not hand over weights; use engine='transformers'")


def _is_one(prompts: Any) -> bool:
    """Whether this is one prompt rather than a list of prompts."""
    if isinstance(prompts, (Prompt, str)):
        return True
    items = list(prompts)
    if not items:
        raise InputError("no prompts given")
    return all(isinstance(p, Mapping) for p in items) or all(isinstance(p, (int, np.integer)) for p in items)
