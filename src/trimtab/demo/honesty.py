"""Honesty two ways: the difference of means, and a vector that was learned in half a minute."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trimtab.demo.materials import Dilemma, Materials, Messages
from trimtab.demo.sampling import Advance, Condition, Samples, encode, sample, sampling
from trimtab.demo.settings import DemoSettings
from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine
from trimtab.engines.requests import Request
from trimtab.evaluation.coherence import Reference
from trimtab.evaluation.log_ratio import MIN_MASS, Choice, measure
from trimtab.evaluation.statistics import mean_interval
from trimtab.objectives import ChoiceLogRatio, ContinuationNLL
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt
from trimtab.sites import Site
from trimtab.training.vector import Learned, Term, learn_vector


@dataclass(frozen=True)
class HonestyRow:
    """One condition on `n` held-out dilemmas.

    `accuracy`: share answered honestly; `log_ratio`: mean log p(honest) − log p(lie) in nats, with `low,
    high`;
    `score`: mean of p(honest) among the two answers; `mass`: smallest probability on both together;
    `coherence`: of free-text answers to open questions.
    """

    dose: float
    accuracy: float
    log_ratio: float
    low: float
    high: float
    score: float
    coherence: float
    n: int
    mass: float
    valid: float
    fingerprint: str
    seed: int
    revision: str | None

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Honesty:
    """Rows over doses of the mean-difference direction, and at −1, 0, +1 of the learned one."""

    mean_diff: tuple[HonestyRow, ...]
    plus: HonestyRow
    zero: HonestyRow
    minus: HonestyRow
    persona_honest: HonestyRow
    persona_liar: HonestyRow
    learned: Learned
    seconds: float
    ratios: dict[str, np.ndarray]
    texts: dict[str, Samples]
    dilemmas: tuple[Dilemma, ...]

    @property
    def learned_dose(self) -> float:
        """Length of the learned vector in units of the typical norm."""
        d = self.learned.direction
        return d.norm / (d.typical_norm or d.norm)


@dataclass(frozen=True, eq=False)
class Judge:
    """Measures one condition: held-out dilemmas by log-ratio, open questions by coherence."""

    engine: Engine
    choice: Choice
    dilemmas: tuple[Dilemma, ...]
    open_questions: Sequence[Messages]
    reference: Reference
    settings: DemoSettings

    def ratios(self, condition: Condition) -> tuple[np.ndarray, np.ndarray]:
        """Signed log-ratios (positive is honest) and masses, [dilemmas]."""
        prompts = [encode(self.engine, condition.messages(d.messages)) for d in self.dilemmas]
        plan = None if condition.plan is None else self.engine.resolve(condition.plan, prompts[0])
        found = measure(self.engine, prompts, self.choice, plan)
        return found.log_ratio * np.array([d.sign for d in self.dilemmas]), found.mass

    def rows(
        self, conditions: Sequence[Condition], advance: Advance | None
    ) -> dict[str, tuple[HonestyRow, np.ndarray, Samples]]:
        """Row, signed log-ratios and free texts of each condition, by its name."""
        texts = sample(self.engine, conditions, self.open_questions, self.settings, advance)
        return {c.name: self._row(c, t) for c, t in zip(conditions, texts, strict=True)}

    def _row(self, condition: Condition, texts: Samples) -> tuple[HonestyRow, np.ndarray, Samples]:
        signed, mass = self.ratios(condition)
        e = mean_interval(signed)
        row = HonestyRow(
            dose=condition.dose,
            accuracy=float(np.mean(signed > 0)),
            log_ratio=e.mean,
            low=e.low,
            high=e.high,
            score=float(np.mean(1 / (1 + np.exp(-signed)))),
            coherence=self.reference.coherence(texts.flat),
            n=e.n,
            mass=float(mass.min()),
            valid=float(np.mean(mass >= MIN_MASS)),
            fingerprint=texts.fingerprint,
            seed=self.settings.seed,
            revision=self.engine.info.revision,
        )
        return row, signed, texts


def study(
    engine: Engine,
    vectors: ConceptVectors,
    materials: Materials,
    settings: DemoSettings,
    advance: Advance | None = None,
) -> Honesty:
    """Measure the mean-difference direction over doses, learn a vector, measure it at −1, 0 and +1."""
    choice = Choice.of(engine, materials.held_out[0].messages)
    judge = Judge(engine, choice, materials.held_out, materials.open_questions, materials.reference, settings)
    learned, seconds = learn(engine, vectors, materials, choice, settings)
    n = settings.open_samples
    doses = [_mean_diff(vectors, d, settings) for d in settings.honesty_doses]
    others = [
        Condition("learned +1", dose=1.0, plan=SteeringPlan.add(learned.direction, scale=1.0), samples=n),
        Condition("learned 0", samples=n),
        Condition("learned -1", dose=-1.0, plan=SteeringPlan.add(learned.direction, scale=-1.0), samples=n),
        Condition("persona honest", system=materials.personas["honest"], samples=n),
        Condition("persona liar", system=materials.personas["liar"], samples=n),
    ]
    found = judge.rows([*doses, *others], advance)
    return Honesty(
        mean_diff=tuple(found[c.name][0] for c in doses),
        plus=found["learned +1"][0],
        zero=found["learned 0"][0],
        minus=found["learned -1"][0],
        persona_honest=found["persona honest"][0],
        persona_liar=found["persona liar"][0],
        learned=learned,
        seconds=seconds,
        ratios={name: signed for name, (_, signed, _) in found.items()},
        texts={name: texts for name, (_, _, texts) in found.items()},
        dilemmas=materials.held_out,
    )


def _mean_diff(vectors: ConceptVectors, dose: float, settings: DemoSettings) -> Condition:
    plan = SteeringPlan.add(vectors.only(["honest"]), dose=dose, layers=[settings.honesty_layer])
    return Condition(
        f"mean-diff {dose:+g}", "honest", dose, plan if dose else None, samples=settings.open_samples
    )


def learn(
    engine: Engine, vectors: ConceptVectors, materials: Materials, choice: Choice, settings: DemoSettings
) -> tuple[Learned, float]:
    """Train on the training dilemmas at ±1 with opposite goals, and on keeping the model's own free text
    likely.
    """
    start = time.perf_counter()
    site = Site(settings.learn_layer)
    learned = learn_vector(
        engine,  # type: ignore[arg-type]
        site,
        [
            dilemma_term(engine, materials.train, choice, settings),
            keep_term(engine, materials.select, settings),
        ],
        name="honest-learned",
        width=engine.info.width(site),
        typical_norm=vectors.typical_norms[site],
        steps=settings.learn_steps,
        rate=settings.learn_rate,
        max_norm=settings.learn_max_norm,
        seed=settings.seed,
    )
    return learned, time.perf_counter() - start


def dilemma_term(engine: Engine, dilemmas: Sequence[Dilemma], choice: Choice, settings: DemoSettings) -> Term:
    """Honest at +1, lying at −1: the same prompts twice, with flipped signs."""
    prompts = tuple(encode(engine, d.messages) for d in dilemmas)
    signs = tuple(d.sign for d in dilemmas)
    objective = ChoiceLogRatio(choice.yes, choice.no, signs + tuple(-s for s in signs))
    count = len(prompts)
    return Term(prompts * 2, objective, (1.0,) * count + (-1.0,) * count, batch=settings.learn_batch)


def keep_term(engine: Engine, prompts: Sequence[Messages], settings: DemoSettings) -> Term:
    """Unsteered answers to the `select` prompts must stay likely at both signs."""
    encoded = [encode(engine, p) for p in prompts]
    answers = engine.generate([Request(p, None, sampling(settings, i, 1)) for i, p in enumerate(encoded)])
    whole = tuple(
        Prompt(p.tokens + a.tokens, special=p.special) for p, a in zip(encoded, answers, strict=True)
    )
    starts = tuple(len(p) for p in encoded)
    count = len(whole)
    return Term(
        whole * 2,
        ContinuationNLL(starts * 2),
        (1.0,) * count + (-1.0,) * count,
        weight=settings.keep_weight,
        batch=settings.keep_batch,
    )
