"""The engine under test, with prompts, vectors and bounds; and what every check asks of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trimtab.conformance.bounds import BOUNDS, distance
from trimtab.conformance.registry import Failed, TooWeak, ensure
from trimtab.conformance.stands import Stand
from trimtab.conformance.truth import Truth
from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.base import Engine
from trimtab.engines.requests import (
    CaptureSpec,
    Completion,
    PlanLike,
    Request,
    Sample,
    Sampling,
    ScoreRequest,
)
from trimtab.errors import InputError, Unsupported
from trimtab.interventions import Deltas, Operator
from trimtab.plans import EMPTY, Placement, SteeringPlan
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site

#: Short sentences that any tokenizer knows; the checks cut and shuffle them.
TEXTS = ("I feel so happy today. We stay", "They look mad!", "you seem very early now. I")
POOL = (
    "I feel so happy today. They look mad! You seem very early now. We stay quiet tonight. The old house stood by "
    "the river, and nobody asked why. She opened the letter, read it twice and put it away. Rain fell on the roof."
)
NEW = 6  # tokens generated where a check looks into decoding


class Subject:
    """What the checks work on. `truth` is None where only closed forms and the engine's own runs can be compared."""

    def __init__(
        self,
        engine: Engine,
        stand: Stand,
        truth: Truth | None = None,
        vectors: ConceptVectors | None = None,
        seed: int = 0,
    ) -> None:
        self.engine, self.stand, self.truth, self.vectors, self.seed = engine, stand, truth, vectors, seed
        self.prompts = [engine.encode(t, bare=True) for t in TEXTS]
        self._pool = np.array(engine.encode(POOL, bare=True).tokens[1:])
        self._fresh = 0
        self.layers = self._layers()
        self.captures = self.able(self.ask(self.prompts[0], EMPTY, capture=watch(Site(self.layers[0]))))
        dtype = engine.info.dtype
        if dtype not in BOUNDS:
            raise InputError(f"the kit knows no bounds for {dtype}; it knows {', '.join(BOUNDS)}")
        self.bounds = BOUNDS[dtype]
        self.noise = self.measure()

    def _layers(self) -> tuple[int, ...]:
        """First, middle and last block; of a file of vectors, the first, middle and last that it has."""
        there = range(self.engine.info.n_layers)
        if self.vectors is not None:
            self.vectors.check_model(self.engine.info)
            there = self.vectors.layers() or there
        return tuple(sorted({there[0], there[len(there) // 2], there[-1]}))

    def measure(self) -> tuple[float, float, float]:
        """Errors of the plain engine against the truth: of states, of chosen tokens, of distributions. The bounds rise
        with them, to their ceiling; an engine that is further off when plain fails what compares it."""
        if self.truth is None:
            return 0.0, 0.0, 0.0
        site, prompt = Site(self.layers[-1]), self.prompts[0]
        want = self.truth.run(prompt.tokens, EMPTY)
        size = float(np.median(np.linalg.norm(want.before[site], axis=1)))
        state = np.abs(self._states(prompt, site) - want.before[site]).max()
        got = self.engine.score(ScoreRequest(prompt, None, EMPTY, "all"))[0].distribution
        assert got is not None
        requests = [self.ask(p, EMPTY, temperature=t) for p in self.prompts for t in (0.0, 1.0)]
        chosen = max(
            distance(d.samples[0].logprobs, self.wanted(d.prompt, d.samples[0].tokens, EMPTY))
            for d in self.run(requests)
        )
        noise = float(state) / max(size, 1e-9), chosen, distance(got, want.logprobs)
        base = self.bounds
        risen = [
            max(floor, min(3 * n, floor * base.ceiling))
            for floor, n in zip((base.state, base.logprob, base.table), noise, strict=True)
        ]
        self.bounds = replace(base, state=risen[0], logprob=risen[1], table=risen[2])
        return noise

    def clear(self, effect: float) -> bool:
        """Whether an effect in nats is far above what rounding may do."""
        return effect > self.bounds.clear * self.bounds.logprob

    # --- places, directions, plans -----------------------------------------------------------------------------

    @property
    def first(self) -> Site:
        """resid_post of the first layer that the checks use."""
        return Site(self.layers[0])

    @property
    def middle(self) -> Site:
        """The same of the middle one."""
        return Site(self.layers[len(self.layers) // 2])

    @property
    def last(self) -> Site:
        """The same of the last one."""
        return Site(self.layers[-1])

    @property
    def sites(self) -> list[Site]:
        """All of them."""
        return [Site(n) for n in self.layers]

    @functools.cache  # noqa: B019 (a subject lives as long as its verification)
    def plain(self, site: Site) -> np.ndarray:
        """Plain states [T, width] of the first prompt."""
        return self._states(self.prompts[0], site)

    def _states(self, prompt: Prompt, site: Site) -> np.ndarray:
        """Plain states: the engine's, or the truth's where the engine (not one of trimtab's) captures nothing."""
        try:
            return self.engine.capture(prompt, [site], plan=EMPTY)[0][site]
        except Unsupported:
            if self.truth is None:
                raise
            return self.truth.run(prompt.tokens, EMPTY).before[site]

    def size(self, site: Site) -> float:
        """Median norm of plain states."""
        return float(np.median(np.linalg.norm(self.plain(site), axis=1)))

    def push(self, site: Site, share: float) -> float:
        """A displacement of `share` typical norms, and twice that where the number format is coarse: its effect must
        stand out of the rounding."""
        return share * self.size(site) * (2.0 if self.bounds.coarse else 1.0)

    @functools.cache  # noqa: B019
    def direction(self, site: Site, which: int = 0) -> Direction:
        """Direction number `which` at a site: the user's where the file has it; else 0 is planted (what tells two
        prompts apart), and the others are random."""
        found, width = None, self.engine.info.width(site)
        if self.vectors is not None and site in self.vectors.sites and which < len(self.vectors.concepts):
            found = self.vectors.direction(self.vectors.concepts[which], site)
        elif which == 0:
            other = self._states(self.prompts[1], site)
            raw = self.plain(site)[1:].mean(0) - other[1:].mean(0)
            if np.linalg.norm(raw) > 1e-3 * self.size(site):
                found = Direction.from_raw("planted", site, raw)
        if found is None:
            raw = np.random.default_rng([self.seed, which, site.layer, width]).standard_normal(width)
            found = Direction.from_raw(f"random {which}", site, raw)
        p = self.plain(site).astype(np.float64) @ found.unit
        return replace(
            found,
            name=f"v{which}",
            typical_norm=self.size(site),
            mean=float(p.mean()),
            std=float(p.std()) + 1e-6,
        )

    def place(self, op: Operator, site: Site, which: int = 0, **flags: Any) -> SteeringPlan:
        """A plan of one operator along direction `which` at `site`."""
        vector = None if isinstance(op, Deltas) else self.direction(site, which)
        return SteeringPlan((Placement(op, vector, layers=[site.layer], stream=site.stream, **flags),))

    def coordinates(self, site: Site, which: int = 0) -> np.ndarray:
        """Plain coordinates [T] of the first prompt, float64."""
        return self.plain(site).astype(np.float64) @ self.direction(site, which).unit

    def fresh(self, length: int) -> Prompt:
        """A prompt that nobody has sent before, of at most `length` tokens and no longer than the context allows."""
        self._fresh += 1
        limit = self.engine.info.context_length
        if limit is not None:
            length = min(length, limit - 4 * NEW)
        rng = np.random.default_rng([self.seed, 77, self._fresh])
        return Prompt(tuple(int(t) for t in rng.choice(self._pool, length)))

    # --- running ------------------------------------------------------------------------------------------------

    def able(self, request: Request) -> bool:
        """Whether the engine takes the request at all; trimtab's engines take whatever their sites allow."""
        try:
            self.engine.prepare(request)
        except Unsupported:
            return False
        return True

    def ask(self, prompt: Prompt, plan: PlanLike = EMPTY, new: int = NEW, **fields: Any) -> Request:
        """A greedy request; a temperature comes with a seed."""
        sampling = {
            k: fields.pop(k) for k in ("temperature", "seed", "n", "stop", "top_k", "top_p") if k in fields
        }
        if sampling.get("temperature"):
            sampling.setdefault("seed", 7)
        return Request(prompt, plan, Sampling(max_tokens=new, ignore_eos=True, **sampling), **fields)

    def run(self, requests: Request | Sequence[Request]) -> list[Completion]:
        """Completions of requests that run together."""
        return self.engine.generate(requests)

    def one(self, request: Request) -> Sample:
        """The first sample of a request that runs alone."""
        return self.run(request)[0].samples[0]

    def states(
        self, plan: PlanLike, site: Site, at: str = "after", prompt: Prompt | None = None
    ) -> np.ndarray:
        """Captured states [T, width] of a prompt (the first). An engine that sees only what is behind the edits shows
        what was before them without them, where the plan has no other site."""
        prompt = prompt or self.prompts[0]
        try:
            return self.engine.capture(prompt, [site], at=at, plan=plan)[0][site]
        except Unsupported:
            if at == "after" or not self.captures or self.resolved(plan, prompt).sites != (site,):
                raise
            return self.engine.capture(prompt, [site], plan=EMPTY)[0][site]

    def watch(self, *sites: Site, positions: Any = "all") -> CaptureSpec | None:
        """What to capture besides; nothing on an engine (not one of trimtab's) that captures nothing."""
        return CaptureSpec(sites, positions) if self.captures else None

    # --- what is expected ---------------------------------------------------------------------------------------

    def wanted(self, prompt: Prompt, tokens: Sequence[int], plan: ResolvedPlan) -> np.ndarray:
        """Log-probabilities [n] of tokens after a prompt: the truth's, or the engine's own score of them alone."""
        tokens = list(tokens)
        if self.truth is not None:
            table = self.truth.run((*prompt.tokens, *tokens), plan).logprobs
            return table[np.arange(len(prompt) - 1, len(prompt) - 1 + len(tokens)), tokens]
        return self.engine.score(ScoreRequest(prompt, tokens, plan))[0].logprobs

    def wanted_states(
        self, prompt: Prompt, tokens: Sequence[int], plan: ResolvedPlan, site: Site, at: str
    ) -> np.ndarray:
        """States [T + n, width] of a prompt and tokens after it: the truth's, or captured alone in one pass."""
        whole = (*prompt.tokens, *tokens)
        if self.truth is not None:
            return self.truth.run(whole, plan).state(site, at)
        return self.engine.capture(Prompt(whole), [site], at=at, plan=plan)[0][site]

    def right(self, sample: Any, request: Request, what: str = "") -> float:
        """A sample is what its plan makes of its prompt, alone: every log-probability, every captured state. The
        largest error in nats; raises `Failed`."""
        prompt, plan = request.prompt, self.resolved(request.plan, request.prompt)
        assert isinstance(prompt, Prompt)
        error = self.same_logprobs(sample.logprobs, self.wanted(prompt, sample.tokens, plan), what)
        capture = getattr(sample, "capture", None)
        if capture is not None:
            for site in capture.values:
                want = self.wanted_states(prompt, sample.tokens[:-1], plan, site, capture.at)
                self.same_states(capture[site], want[capture.positions], site, what)
        return error

    def effect(self, sample: Any, request: Request, other: PlanLike = EMPTY, what: str = "") -> float:
        """By how many nats the plan changes this sample's log-probabilities from another plan's; raises where that is
        too little to tell right from wrong."""
        prompt = request.prompt
        assert isinstance(prompt, Prompt)
        mine, others = (
            self.wanted(prompt, sample.tokens, self.resolved(p, prompt)) for p in (request.plan, other)
        )
        found = distance(mine, others)
        if not self.clear(found):
            raise TooWeak(
                f"{what or 'the plan'} changes the output by {found:.2g} nats only: too weak to prove anything"
            )
        return found

    def resolved(self, plan: PlanLike, prompt: Any) -> ResolvedPlan:
        """The plan in absolute numbers; not by the engine, which may get that wrong too."""
        if isinstance(plan, SteeringPlan):
            return plan.resolve(prompt, self.engine.library, self.engine.info)
        return plan or EMPTY

    # --- comparisons --------------------------------------------------------------------------------------------

    def same_states(self, got: np.ndarray, want: np.ndarray, site: Site, what: str = "") -> float:
        """Two tables of states agree; the error as a share of the typical norm."""
        ensure(got.shape == want.shape, f"{what} {site}: {got.shape} rows came back, not {want.shape}")
        if not got.size:
            return 0.0
        error = float(np.abs(got.astype(np.float64) - want).max()) / max(self.size(site), 1e-9)
        ensure(error <= self.bounds.state, f"{what} {site}: off by {error:.2g} of the typical norm")
        return error

    def same_logprobs(self, got: np.ndarray, want: np.ndarray, what: str = "") -> float:
        """Log-probabilities [n] of chosen tokens, or distributions [..., V], agree; the error in nats."""
        ensure(got.shape == want.shape, f"{what}: {got.shape} log-probabilities came back, not {want.shape}")
        error, allowed = distance(got, want), self.bounds.table if got.ndim > 1 else self.bounds.logprob
        ensure(error <= allowed, f"{what}: off by {error:.2g} nats")
        return error

    def same_sample(self, got: Sample, want: Sample, what: str) -> None:
        """Two samples of one request: tokens, text and receipt equal, numbers within bounds. In a coarse number format
        two tokens that are as likely as each other may change places; what follows is then another text."""
        if self.bounds.coarse and got.tokens != want.tokens:
            at = next(i for i, (a, b) in enumerate(zip(got.tokens, want.tokens, strict=True)) if a != b)
            self.same_logprobs(got.logprobs[: at + 1], want.logprobs[: at + 1], f"{what}, up to a tie")
            return
        ensure(got.tokens == want.tokens, f"{what}: {got.text!r} is not {want.text!r}")
        ensure((got.text, got.finish) == (want.text, want.finish), f"{what}: text or finish differ")
        ensure(got.applied == want.applied, f"{what}: the receipts differ")
        self.same_logprobs(got.logprobs, want.logprobs, what)
        if want.capture is not None:
            if got.capture is None or list(got.capture.positions) != list(want.capture.positions):
                raise Failed(f"{what}: other positions were captured")
            for site in want.capture.values:
                self.same_states(got.capture[site], want.capture[site], site, what)
        if want.readings is not None:
            if got.readings is None:
                raise Failed(f"{what}: no readings")
            for i, site in enumerate(want.readings.sites):
                self.same_states(got.readings.values[:, i], want.readings.values[:, i], site, what)


def watch(*sites: Site, positions: Any = "all", at: str = "after") -> CaptureSpec:
    """What to capture."""
    return CaptureSpec(sites, positions, at)
