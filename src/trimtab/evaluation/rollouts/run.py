"""One record per reply. Replies of all vectors, scales and questions share batches, each row with its own plan."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trimtab.engines.base import Engine
from trimtab.engines.requests import Request, Sampling
from trimtab.errors import InputError
from trimtab.evaluation.rollouts.grid import Condition
from trimtab.evaluation.rollouts.questions import Question
from trimtab.plans import EMPTY

#: Replies per call of the engine.
BATCH = 64


@dataclass(frozen=True, eq=False)
class Rollout:
    """One reply to be made: a question, a condition, and which of its samples."""

    question: Question
    condition: Condition
    index: int

    def unit(self) -> dict[str, Any]:
        """What identifies it in a run."""
        return {"item": self.question.id, "condition": self.condition.name, "rollout": self.index}


def grid(questions: Sequence[Question], conditions: Sequence[Condition], samples: int) -> list[Rollout]:
    """All replies, question by question, so that a run that is cut short is whole for its first questions."""
    if samples < 1:
        raise InputError(f"at least one reply per question, got {samples}")
    return [Rollout(q, c, k) for q in questions for c in conditions for k in range(samples)]


def replies(
    engine: Engine,
    rollouts: Sequence[Rollout],
    sampling: Sampling,
    *,
    chat: bool | None = None,
    system: str | None = None,
    batch: int = BATCH,
) -> Iterator[tuple[Rollout, dict[str, Any]]]:
    """Each reply with its record, batch by batch.

    The seed depends on the run's seed, the question and the sample, never on the condition: conditions differ by what
    they do and not by luck. `chat` None takes the chat template where the model has one.
    """
    templated = engine.info.template_hash is not None if chat is None else chat
    for start in range(0, len(rollouts), batch):
        part = rollouts[start : start + batch]
        requests = []
        for r in part:
            prompt = engine.encode(_prompt(r.question, templated, system), bare=True)
            plan = EMPTY if r.condition.plan is None else r.condition.plan
            options = replace(sampling, n=1, seed=seed_of(sampling.seed or 0, r))
            requests.append(Request(prompt, plan, options))
        for r, request, done in zip(part, requests, engine.generate(requests), strict=True):
            sample = done.samples[0]
            yield (
                r,
                {
                    **r.unit(),
                    "question": r.question.text,
                    "answer": sample.text,
                    "vector": r.condition.vector,
                    "scale": r.condition.scale,
                    "dose": _dose(sample.applied.sources),
                    "layers": sorted({s.layer for s in sample.applied.sites}),
                    "fingerprint": sample.applied.fingerprint,
                    "seed": request.sampling.seed,
                    "finish": sample.finish,
                    "tokens": len(sample.tokens),
                    "model": engine.info.id,
                    "revision": engine.info.revision,
                },
            )


def seed_of(seed: int, rollout: Rollout) -> int:
    """A seed from the run's seed, the question and the sample."""
    return zlib.crc32(f"{seed}\0{rollout.question.id}\0{rollout.index}".encode()) & 0x7FFFFFFF


def _prompt(question: Question, chat: bool, system: str | None) -> Any:
    if not chat:
        return question.text
    front = [] if system is None else [{"role": "system", "content": system}]
    if front and question.messages[0]["role"] == "system":
        raise InputError(f"question {question.id} begins with a system message already; leave --system out")
    return [*front, *question.messages]


def _dose(sources: Sequence[Any]) -> float | None:
    """Total displacement over typical norm, where the file knows that."""
    found = [s.get("dose_here") for s in sources]
    return None if not found or any(d is None for d in found) else float(sum(found))
