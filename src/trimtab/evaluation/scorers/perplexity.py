"""Perplexity of answers under the *plain* model: exp(Σ NLL ÷ Σ tokens), weighted by tokens, on the answer alone.

The steered model finds its own words likely, whatever they are; what is asked is how strange they are to the model as
it was. A mark is the mean NLL per token of one answer in nats; `pooled` gives the perplexity of many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.engines.base import Engine
from trimtab.engines.requests import ScoreRequest
from trimtab.evaluation.log_ratio import BATCH
from trimtab.evaluation.scorers.scorer import Answered, Mark, TextScorer
from trimtab.plans import EMPTY


class Perplexity(TextScorer):
    """Mean NLL per answer token under `engine` without any plan, the question in its chat template (`chat` None:
    where the model has one), else bare. A default plan set by `engine.steered` does not reach it."""

    name = "perplexity"

    def __init__(self, engine: Engine, chat: bool | None = None, batch: int = BATCH) -> None:
        self.engine, self.batch = engine, batch
        self.chat = engine.info.template_hash is not None if chat is None else chat

    @property
    def identity(self) -> str:
        """The model that reads."""
        info = self.engine.info
        return f"perplexity under {info.id} {info.revision or ''}".strip()

    def score(self, rows: Sequence[Answered]) -> list[Mark]:
        """NLL per token of each answer; an empty answer has none."""
        marks: list[Mark | None] = [None if r.answer else Mark(None, "empty answer") for r in rows]
        todo = [i for i, m in enumerate(marks) if m is None]
        for start in range(0, len(todo), self.batch):
            part = todo[start : start + self.batch]
            for i, score in zip(part, self.engine.score([self._request(rows[i]) for i in part]), strict=True):
                nll = -np.asarray(score.logprobs, np.float64)
                detail = {"tokens": len(nll), "nll": float(nll.sum())}
                if np.isfinite(nll).all():
                    marks[i] = Mark(float(nll.mean()), detail=detail)
                else:
                    marks[i] = Mark(None, "a token of probability 0 or non-finite logits", detail)
        return [m for m in marks if m is not None]

    def _request(self, row: Answered) -> ScoreRequest:
        prompt = [{"role": "user", "content": row.question}] if self.chat else row.question
        return ScoreRequest(self.engine.encode(prompt, bare=True), row.answer, plan=EMPTY)


def pooled(marks: Sequence[Mark]) -> float:
    """exp(Σ NLL ÷ Σ tokens) over the answers that have a mark; NaN where none has."""
    kept = [m.detail for m in marks if m.value is not None]
    tokens = sum(d["tokens"] for d in kept)
    return float(np.exp(sum(d["nll"] for d in kept) / tokens)) if tokens else float("nan")
