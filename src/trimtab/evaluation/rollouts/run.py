"""One record per reply. Replies of all vectors, scales and questions share batches, each row with its own plan."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trimtab.engines.base import Engine
from trimtab.engines.requests import Request, Sample, Sampling
from trimtab.errors import InputError
from trimtab.evaluation.continuation import Begun, check_limit, from_where, go_on
from trimtab.evaluation.rollouts.grid import Condition
from trimtab.evaluation.rollouts.questions import Question
from trimtab.plans import EMPTY
from trimtab.prompts import Prompt

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


@dataclass(frozen=True, eq=False)
class Asking:
    """How questions are asked, `batch` at a time; `chat` None takes the chat template where there is one."""

    sampling: Sampling
    chat: bool | None = None
    system: str | None = None
    batch: int = BATCH

    def request(self, engine: Engine, rollout: Rollout) -> Request:
        """The seed depends on the run's seed, the question and the sample, never on the condition: conditions differ by
        what they do and not by luck."""
        templated = engine.info.template_hash is not None if self.chat is None else self.chat
        prompt = engine.encode(_prompt(rollout.question, templated, self.system), bare=True)
        plan = EMPTY if rollout.condition.plan is None else rollout.condition.plan
        return Request(
            prompt, plan, replace(self.sampling, n=1, seed=seed_of(self.sampling.seed or 0, rollout))
        )


def replies(
    engine: Engine, rollouts: Sequence[Rollout], asking: Asking
) -> Iterator[tuple[Rollout, dict[str, Any]]]:
    """Each reply with its record, batch by batch."""
    for start in range(0, len(rollouts), asking.batch):
        part = rollouts[start : start + asking.batch]
        requests = [asking.request(engine, r) for r in part]
        for r, request, done in zip(part, requests, engine.generate(requests), strict=True):
            yield r, _record(engine, r, request, done.samples[0])


def longer(
    engine: Engine, made: Sequence[tuple[Rollout, Mapping[str, Any]]], asking: Asking, limit: int
) -> Iterator[tuple[Rollout, dict[str, Any]]]:
    """The replies among `made` that were cut and have not gone on to `limit` tokens yet, with their new records."""
    todo = [(r, row, tokens) for r, row in made if (tokens := from_where(row, limit)) is not None]
    asked = [asking.request(engine, r).prompt for r, _, _ in todo]
    check_limit(limit, asking.sampling, asked, engine.info.context_length)  # type: ignore[arg-type]
    for start in range(0, len(todo), asking.batch):
        part = todo[start : start + asking.batch]
        if all(row["limits"][-1] == limit for _, row, _ in part):
            continue
        begun = []
        for r, _, tokens in part:
            request = asking.request(engine, r)
            assert isinstance(request.prompt, Prompt)
            plan = engine.resolve(request.plan, request.prompt)
            begun.append(Begun(request.prompt, plan, tokens, request.sampling.seed))
        for (r, row, _), whole in zip(part, go_on(engine, begun, asking.sampling, limit), strict=True):
            if row["limits"][-1] != limit:
                limits, ids = [*row["limits"], limit], list(whole.tokens)
                more = {
                    "answer": whole.text,
                    "finish": whole.finish,
                    "tokens": len(ids),
                    "limits": limits,
                    "ids": ids,
                }
                yield r, {**row, **more}


def _record(engine: Engine, rollout: Rollout, request: Request, sample: Sample) -> dict[str, Any]:
    return {
        **rollout.unit(),
        "question": rollout.question.text,
        "answer": sample.text,
        "vector": rollout.condition.vector,
        "scale": rollout.condition.scale,
        "dose": _dose(sample.applied.sources),
        "layers": sorted({s.layer for s in sample.applied.sites}),
        "fingerprint": sample.applied.fingerprint,
        "seed": request.sampling.seed,
        "finish": sample.finish,
        "tokens": len(sample.tokens),
        "limits": [request.sampling.max_tokens],
        **({"ids": list(sample.tokens)} if sample.finish == "length" else {}),
        "model": engine.info.id,
        "revision": engine.info.revision,
    }


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
