"""An engine whose every answer is known: logits are linear in the pushes, and text falls apart at a known push.

The state of a token is `REST` (norm 4) plus, at each layer, what the plan adds there; it reaches the logits times that
layer's `efficacy`. Token "joy" has the logit  base[item] + slope * coordinate along JOY + own[item] . state;  "junk"
takes everything once the total push is longer than `breaks`. No token attends to another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from trimtab.directions import ConceptVectors, Direction
from trimtab.engines.base import CaptureItem, Engine
from trimtab.engines.requests import Event, Receipt, Request, Sample, Score
from trimtab.interventions import edit
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan
from trimtab.sites import ModelInfo, Site

WORDS = (
    "<end>",
    "joy",
    "calm",
    "other",
    "junk",
    *(f"i{k}" for k in range(128)),
    *(f"w{k}" for k in range(40)),
)
TOKEN = {w: i for i, w in enumerate(WORDS)}
WIDTH, TYPICAL = 48, 4.0
AXES = np.eye(WIDTH)
REST, JOY, CALM, NULL = AXES[0], AXES[1], AXES[2], AXES[3]
NOISE = slice(8, WIDTH)


class PlantedEngine(Engine):
    """See the module. `slope` is in nats per unit of the coordinate; `noise` the SD of an item's own coupling."""

    name = "planted"

    def __init__(
        self,
        efficacy: Sequence[float] = (0.2, 0.5, 1.0, 0.6),
        slope: float = 0.5,
        breaks: float = np.inf,
        noise: float = 0.0,
        seed: int = 0,
        broken: int | None = None,
    ) -> None:
        sites = {Site(n): WIDTH for n in range(len(efficacy))}
        super().__init__(
            ModelInfo(
                "planted",
                len(efficacy),
                WIDTH,
                sites,
                revision="1",
                context_length=256,
                vocab_size=len(WORDS),
            )
        )
        rng = np.random.default_rng(seed)
        self.efficacy, self.slope, self.breaks = tuple(efficacy), slope, breaks
        self.base = rng.normal(0, 1, 128)
        self.own = np.zeros((128, WIDTH))
        self.own[:, NOISE] = noise * rng.normal(size=(128, WIDTH - NOISE.start))
        self.broken = broken  # a layer whose states are not finite
        self.calls = 0
        self._changes: dict = {}

    def vectors(self, **directions: np.ndarray) -> ConceptVectors:
        """Rows at every layer, with the typical norm that the states have."""
        rows = directions or {"joy": JOY, "calm": CALM}
        return ConceptVectors.from_directions(
            [
                Direction.from_raw(name, Site(n), row, typical_norm=TYPICAL)
                for name, row in rows.items()
                for n in range(len(self.efficacy))
            ]
        )

    def change(self, plan: ResolvedPlan, position: int) -> np.ndarray:
        """What reaches the logits of a plan at one position, [width]."""
        key = (plan.fingerprint, tuple(p.acts_on(position) for p in plan.effective))
        if key not in self._changes:
            self._changes[key] = self._change(plan, position)
        return self._changes[key]

    def _change(self, plan: ResolvedPlan, position: int) -> np.ndarray:
        total = np.zeros(WIDTH)
        for layer, share in enumerate(self.efficacy):
            h = TYPICAL * REST
            for p in plan.at(Site(layer)):
                if p.acts_on(position):
                    h = edit(
                        h,
                        plan.vectors[p.vector],
                        p.coefficients,
                        relative=p.relative,
                        renormalise=p.renormalise,
                    )
            total += share * (h - TYPICAL * REST)
        return total

    def logits(self, tokens: Sequence[int], plan: ResolvedPlan, position: int) -> np.ndarray:
        """Natural log-probabilities [V] after the token at `position`."""
        word = WORDS[tokens[0]]
        item = int(word[1:]) if word[0] == "i" and word[1:].isdigit() else 0
        push = self.change(plan, position)
        out = np.linspace(0.0, 0.4, len(WORDS))
        out[TOKEN["<end>"]] = -30.0
        out[TOKEN["joy"]] = self.base[item] + self.slope * (push @ JOY) + self.own[item] @ push
        out[TOKEN["calm"]] = self.slope * (push @ CALM)
        out[TOKEN["junk"]] = 60.0 if np.linalg.norm(push) > self.breaks + 1e-9 else -60.0
        return out - np.logaddexp.reduce(out)

    # --- the surface

    def _encode_text(self, text: str) -> Prompt:
        return Prompt(tuple(TOKEN.get(w, TOKEN["w0"]) for w in text.split()), text=text)

    def _encode_continuation(self, text: str) -> Sequence[int]:
        return self._encode_text(text).tokens

    def _encode_messages(self, messages, generation_prompt, prefill, thinking) -> Prompt:
        return self._encode_text(
            " ".join(m["content"] for m in messages) + (f" {prefill}" if prefill else "")
        )

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        return " ".join(WORDS[t] for t in tokens)

    def _iterate(self, requests: Sequence[Request]) -> Iterator[Event]:
        self.calls += 1
        for i, r in enumerate(requests):
            for j in range(r.sampling.n):
                yield Event(i, j, sample=self._sample(r, j))

    def _sample(self, r: Request, index: int) -> Sample:
        s, rng = r.sampling, np.random.default_rng([r.sampling.seed or 0, index])
        tokens, kept = list(r.prompt.tokens), []
        for _ in range(s.max_tokens):
            logprobs = self.logits(tokens, r.plan, len(tokens) - 1)
            p = np.exp(logprobs / s.temperature) if s.temperature else np.eye(len(WORDS))[logprobs.argmax()]
            tokens.append(int(rng.choice(len(WORDS), p=p / p.sum())))
            kept.append(logprobs[tokens[-1]])
        new = tuple(tokens[len(r.prompt) :])
        receipt = Receipt.of(r.plan, len(tokens) - 1)
        return Sample(new, self.decode(new), np.array(kept, np.float32), "length", receipt)

    def _capture(
        self, items: Sequence[CaptureItem], sites: Sequence[Site], at: str
    ) -> list[dict[Site, np.ndarray]]:
        rows = {s: (np.full(WIDTH, np.inf) if s.layer == self.broken else TYPICAL * REST) for s in sites}
        rows = {s: r.astype(np.float32) for s, r in rows.items()}
        return [{s: np.tile(rows[s], (len(i.positions), 1)) for s in sites} for i in items]

    def _score(self, items: Sequence[tuple[Prompt, int, ResolvedPlan, str]]) -> list[Score]:
        self.calls += 1
        found = []
        for prompt, first, plan, wanted in items:
            tokens = prompt.tokens
            table = np.stack([self.logits(tokens, plan, i) for i in range(len(tokens))]).astype(np.float32)
            chosen = np.array([table[i - 1, tokens[i]] for i in range(first, len(tokens))], np.float32)
            full = {"none": None, "last": table[-1], "all": table}[wanted]
            found.append(Score(tokens[first:], chosen, full))
        return found
