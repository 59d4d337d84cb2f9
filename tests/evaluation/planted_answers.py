"""A synthetic engine: its answers are a function of the text and of how far a plan displaces the state.

`logits(text, moved)` gives {word: nats} for the answer at the end of `text`, where `moved` [4] is the sum of all
displacements at the last token; these words share `mass` by softmax. Every other token has NLL `nll(moved)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from trimtab.directions import Direction
from trimtab.engines.base import Engine
from trimtab.engines.requests import Event, Receipt, Sample, Score
from trimtab.prompts import Prompt, Span
from trimtab.sites import ModelInfo, Site

WIDTH = 4
SITE = Site(1)
VOCABULARY = 1024


def direction(axis: int, norm: float = 1.0, typical_norm: float = 1.0) -> Direction:
    """The unit vector along an axis of the planted model."""
    return Direction(f"axis-{axis}", SITE, np.eye(WIDTH)[axis], norm=norm, typical_norm=typical_norm)


class PlantedEngine(Engine):
    """Words are tokens, a bracket is one, and a chat is its contents."""

    name = "planted"

    def __init__(
        self,
        logits: Callable[[str, np.ndarray], Mapping[str, float]],
        *,
        mass: float | Callable[[np.ndarray], float] = 0.9,
        nll: Callable[[np.ndarray], float] = lambda moved: 2.0,
        reply: Callable[[str, np.ndarray], str] = lambda text, moved: "",
    ) -> None:
        widths = {Site(n): WIDTH for n in range(2)}
        super().__init__(ModelInfo("planted", 2, WIDTH, widths, revision="1", template_hash="planted"))
        self.logits, self.mass, self.nll, self.reply = logits, mass, nll, reply
        self._words: list[str] = []
        self._ids: dict[str, int] = {}

    def _tokens(self, text: str) -> tuple[int, ...]:
        found = []
        for piece in re.findall(r"\s*(?:[\w']+|[^\w\s])|\s+", text):
            if piece not in self._ids:
                assert len(self._words) < VOCABULARY, "the planted vocabulary is full"
                self._ids[piece] = len(self._words)
                self._words.append(piece)
            found.append(self._ids[piece])
        return tuple(found)

    def decode(self, tokens, special=False):
        return "".join(self._words[t] for t in tokens)

    def _encode_text(self, text):
        return Prompt(self._tokens(text), text=text)

    def _encode_continuation(self, text):
        return self._tokens(text)

    def _encode_messages(self, messages, generation_prompt, prefill, thinking):
        text = "".join(f"[{m['role']}] {m['content']}\n" for m in messages) + "[assistant]"
        whole = text + (prefill or "")
        tokens = self._tokens(text) + self._tokens(prefill or "")
        return Prompt(tokens, (Span("user", 0, max(1, len(self._tokens(text)) - 1)),), text=whole)

    def moved(self, plan, position: int) -> np.ndarray:
        """Sum of the displacements of a plan's `Add`s at a position."""
        total = np.zeros(WIDTH)
        for p in plan.effective:
            if p.acts_on(position):
                total += p.coefficients.shift * p.coefficients.strength * plan.vectors[p.vector]
        return total

    def _distribution(self, text: str, moved: np.ndarray) -> np.ndarray:
        found = self.logits(text, moved)
        mass = self.mass(moved) if callable(self.mass) else self.mass
        probability = np.zeros(VOCABULARY)
        weights = np.exp(np.array(list(found.values())))
        # A word with and without a space in front are two tokens; the planted mass lies on the one without.
        ids = [self._tokens(w)[0] for w in found]
        probability[ids] = mass * weights / weights.sum()
        probability[VOCABULARY - 1] = 1 - probability.sum()
        return np.log(np.maximum(probability, 1e-300)).astype(np.float64)

    def _score(self, items):
        found = []
        for prompt, first, plan, wanted in items:
            moved = self.moved(plan, len(prompt) - 1)
            tokens = prompt.tokens[first:]
            text = self.decode(prompt.tokens)
            table = None if wanted == "none" else self._distribution(text, moved)
            found.append(Score(tokens, np.full(len(tokens), -self.nll(moved)), table))
        return found

    def _iterate(self, requests):
        for i, request in enumerate(requests):
            prompt, plan = request.prompt, request.plan
            for j in range(request.sampling.n):
                text = self.reply(self.decode(prompt.tokens), self.moved(plan, len(prompt)))
                tokens = self._tokens(text)[: request.sampling.max_tokens]
                receipt = Receipt.of(plan, len(prompt) + max(0, len(tokens) - 1))
                finish = "stop" if len(tokens) == len(self._tokens(text)) else "length"
                sample = Sample(tokens, self.decode(tokens), np.zeros(len(tokens)), finish, receipt)
                yield Event(i, j, sample=sample)

    def _capture(self, items, sites, at):
        return [
            {
                s: np.stack(
                    [self.moved(i.plan, p) if s == SITE else np.zeros(WIDTH) for p in i.positions]
                ).astype("f4")
                for s in sites
            }
            for i in items
        ]
