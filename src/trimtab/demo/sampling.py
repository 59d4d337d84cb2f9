"""Conditions and their samples: every condition answers the same prompts with the same seeds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.demo.materials import Messages
from trimtab.demo.settings import DemoSettings
from trimtab.engines.base import Engine
from trimtab.engines.requests import PromptLike, Request, Sampling
from trimtab.plans import EMPTY, SteeringPlan
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlan

Advance = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Condition:
    """What is done to the model: a plan, or a system message in front of the prompt, or nothing."""

    name: str
    concept: str | None = None
    dose: float = 0.0
    plan: SteeringPlan | None = None
    system: str | None = None
    samples: int = 1

    def messages(self, prompt: Messages) -> Messages:
        """The prompt under this condition; a persona stands where a system message stands."""
        return prompt if self.system is None else ({"role": "system", "content": self.system}, *prompt)


@dataclass(frozen=True, eq=False)
class Samples:
    """Texts of one condition: `texts[item][sample]`; the plan's fingerprint is what the engine says it
    applied.
    """

    condition: Condition
    texts: tuple[tuple[str, ...], ...]
    fingerprint: str = "plain"
    sources: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    @property
    def flat(self) -> list[str]:
        """All texts, items in order."""
        return [t for item in self.texts for t in item]

    @property
    def items(self) -> list[int]:
        """The item of each text of `flat`."""
        return [i for i, item in enumerate(self.texts) for _ in item]


def sample(
    engine: Engine,
    conditions: Sequence[Condition],
    prompts: Sequence[Messages],
    settings: DemoSettings,
    advance: Advance | None = None,
) -> list[Samples]:
    """Sample every condition on every prompt. Rows of different conditions run together, each with its own
    plan.

    The seed of a row depends on the run's seed and the prompt alone: conditions differ by what they do,
    not by luck.
    """
    encoded: dict[tuple[str | None, int], Prompt] = {}
    requests: list[Request] = []
    for condition in conditions:
        plan: ResolvedPlan | None = None
        for i, prompt in enumerate(prompts):
            key = (condition.system, i)
            if key not in encoded:
                encoded[key] = encode(engine, condition.messages(prompt))
            # The demo's plans act at all positions, so they resolve to the same numbers for every prompt.
            plan = plan or (EMPTY if condition.plan is None else engine.resolve(condition.plan, encoded[key]))
            requests.append(Request(encoded[key], plan, sampling(settings, i, condition.samples)))
    completions = []
    for part in _parts(requests, settings.rows):
        completions += engine.generate(part)
        if advance is not None:
            advance(sum(r.sampling.n for r in part))
    found = []
    for k, condition in enumerate(conditions):
        own = completions[k * len(prompts) : (k + 1) * len(prompts)]
        texts = tuple(tuple(s.text.strip() for s in c.samples) for c in own)
        applied = own[0].samples[0].applied
        found.append(Samples(condition, texts, applied.fingerprint, applied.sources))
    return found


def encode(engine: Engine, prompt: PromptLike) -> Prompt:
    """Encode a prompt; a story opening is bare text on purpose, so the warning about templates is not for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return engine.encode(list(prompt) if isinstance(prompt, tuple) else prompt)  # type: ignore[arg-type]


def sampling(settings: DemoSettings, item: int, n: int) -> Sampling:
    """How the demo samples: the same temperature, nucleus and length for every condition."""
    return Sampling(
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=settings.seed * 100_003 + item,
        n=n,
    )


def _parts(requests: Sequence[Request], rows: int) -> list[list[Request]]:
    """Consecutive requests in parts of at most `rows` samples."""
    parts: list[list[Request]] = []
    filled = rows
    for request in requests:
        if filled + request.sampling.n > rows:
            parts.append([])
            filled = 0
        parts[-1].append(request)
        filled += request.sampling.n
    return parts
