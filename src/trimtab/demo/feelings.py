"""Five emotions: choose layers, sample every dose and baseline, score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.demo.materials import Materials, Messages
from trimtab.demo.sampling import Advance, Condition, Samples, sample
from trimtab.demo.settings import NEUTRAL, DemoSettings
from trimtab.directions import ConceptVectors
from trimtab.engines.base import Engine
from trimtab.evaluation.baselines import random_like
from trimtab.evaluation.classifier import TextClassifier
from trimtab.evaluation.coherence import Reference, coherent
from trimtab.evaluation.dose_response import Row, best_row, longest_rise
from trimtab.evaluation.statistics import Estimate, by_item, paired_difference, upper_quantile
from trimtab.plans import SteeringPlan


@dataclass(frozen=True)
class RandomRow:
    """Random directions at one dose: `row` pools them; `scores` has one mean per direction, `q95` its 95 %
    quantile.
    """

    row: Row
    scores: tuple[float, ...]

    @property
    def q95(self) -> float:
        """What one random direction in twenty would reach."""
        return upper_quantile(self.scores)


@dataclass(frozen=True, eq=False)
class Curve:
    """One emotion: its rows over doses, its baselines, and what they say."""

    concept: str
    rows: tuple[Row, ...]
    random: tuple[RandomRow, ...]
    persona: Row
    unsteered: float
    difference: Estimate

    @property
    def best(self) -> Row:
        """The coherent dose with the highest score."""
        return best_row(self.rows, self.unsteered)

    @property
    def rise(self) -> list[Row]:
        """The longest run of neighbouring coherent doses over which the score rises."""
        return longest_rise(self.rows, self.unsteered)

    def null(self, dose: float) -> float:
        """The 95 % quantile of random directions at a dose."""
        return next(r.q95 for r in self.random if abs(r.row.dose - dose) < 1e-9)


@dataclass(frozen=True, eq=False)
class Feelings:
    """All curves, with the texts that they were scored from."""

    layers: tuple[int, ...]
    layer_scores: dict[tuple[int, ...], float]
    curves: dict[str, Curve]
    unsteered: Samples
    steered: dict[tuple[str, float], Samples]
    personas: dict[str, Samples]
    coherence: float
    neutral_share: float
    classifier: TextClassifier


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores samples: posterior of a concept averaged over each item's samples, and coherence over all of
    them.
    """

    classifier: TextClassifier
    reference: Reference
    seed: int
    revision: str | None

    def items(self, samples: Samples, concept: str) -> np.ndarray:
        """Mean posterior of each item, [items]."""
        posterior = self.classifier.posterior(samples.flat)[:, self.classifier.column(concept)]
        return by_item(posterior.tolist(), samples.items)

    def coherence(self, samples: Samples) -> float:
        """1 − novel trigram share over all texts."""
        return self.reference.coherence(samples.flat)

    def row(self, samples: Samples, concept: str) -> Row:
        """The row of one condition."""
        return Row.of(
            samples.condition.dose,
            self.items(samples, concept),
            self.coherence(samples),
            fingerprint=samples.fingerprint,
            seed=self.seed,
            revision=self.revision,
        )


def steered(
    vectors: ConceptVectors, concept: str, dose: float, layers: Sequence[int], samples: int
) -> Condition:
    """The condition of one concept at one total dose."""
    plan = SteeringPlan.add(vectors.only([concept]), dose=dose, layers=list(layers)) if dose else None
    return Condition(f"{concept} {dose:+g}", concept, dose, plan, samples=samples)


def choose_layers(
    engine: Engine,
    vectors: ConceptVectors,
    scorer: Scorer,
    prompts: Sequence[Messages],
    settings: DemoSettings,
    advance: Advance | None = None,
) -> dict[tuple[int, ...], float]:
    """Score of each layer set on the `select` prompts: mean over emotions of the best coherent dose's score."""
    if len(settings.layer_sets) == 1:
        return {settings.layer_sets[0]: float("nan")}
    plain = Condition("plain", samples=settings.samples)
    conditions = [
        steered(vectors, e, d, layers, 1)
        for layers in settings.layer_sets
        for d in settings.select_doses
        for e in settings.emotions
    ]
    first, *rest = sample(engine, [plain, *conditions], prompts, settings, advance)
    base, found = scorer.coherence(first), iter(rest)
    scores = {}
    for layers in settings.layer_sets:
        reached = dict.fromkeys(settings.emotions, 0.0)
        for _ in range(len(settings.select_doses) * len(settings.emotions)):
            samples = next(found)
            emotion = samples.condition.concept or ""
            if coherent(scorer.coherence(samples), base):
                score = float(scorer.items(samples, emotion).mean())
                reached[emotion] = max(reached[emotion], score)
        scores[layers] = float(np.mean(list(reached.values())))
    return scores


def sizes(settings: DemoSettings) -> list[float]:
    """The distinct sizes of the doses. A random direction at −d is another random direction at d, so each size is
    sampled once and stands for both signs."""
    return sorted({abs(d) for d in settings.doses if d})


def conditions_of(
    vectors: ConceptVectors,
    randoms: ConceptVectors,
    layers: Sequence[int],
    materials: Materials,
    s: DemoSettings,
) -> list[Condition]:
    """Everything that is sampled on the evaluation prompts."""
    doses = [d for d in s.doses if d]
    return [
        Condition("plain", samples=s.samples),
        *(steered(vectors, e, d, layers, s.samples) for e in s.emotions for d in doses),
        *(Condition(f"persona {e}", e, system=materials.personas[e], samples=s.samples) for e in s.emotions),
        *(steered(randoms, r, d, layers, s.random_samples) for r in randoms.concepts for d in sizes(s)),
    ]


def measure(
    engine: Engine,
    vectors: ConceptVectors,
    materials: Materials,
    classifier: TextClassifier,
    settings: DemoSettings,
    advance: Advance | None = None,
) -> Feelings:
    """Layers from the `select` prompts, then every condition on the evaluation prompts, in one stream of
    rows.
    """
    scorer = Scorer(classifier, materials.reference, settings.seed, engine.info.revision)
    layer_scores = choose_layers(engine, vectors, scorer, materials.select, settings, advance)
    layers = max(layer_scores, key=lambda k: (layer_scores[k], -len(k)))
    randoms = random_like(vectors, settings.random_directions, seed=settings.seed)
    conditions = conditions_of(vectors, randoms, layers, materials, settings)
    plain, *rest = sample(engine, conditions, materials.evaluate, settings, advance)
    by_key = {(s.condition.concept or "", s.condition.dose): s for s in rest if s.condition.plan is not None}
    personas = {s.condition.concept or "": s for s in rest if s.condition.system is not None}
    coherence = scorer.coherence(plain)
    curves = {
        e: _curve(e, scorer, plain, by_key, personas[e], randoms.concepts, coherence, settings)
        for e in settings.emotions
    }
    return Feelings(
        layers=layers,
        layer_scores=layer_scores,
        curves=curves,
        unsteered=plain,
        steered={k: v for k, v in by_key.items() if k[0] in settings.emotions},
        personas=personas,
        coherence=coherence,
        neutral_share=_neutral_share(classifier, plain),
        classifier=classifier,
    )


def _curve(
    concept: str,
    scorer: Scorer,
    plain: Samples,
    by_key: dict[tuple[str, float], Samples],
    persona: Samples,
    randoms: Sequence[str],
    coherence: float,
    settings: DemoSettings,
) -> Curve:
    rows, null = [], []
    for dose in settings.doses:
        if not dose:
            rows.append(scorer.row(plain, concept))
            continue
        rows.append(scorer.row(by_key[concept, dose], concept))
        null.append(_random_row(concept, dose, scorer, [by_key[r, abs(dose)] for r in randoms]))
    best = best_row(rows, coherence)
    samples = by_key[concept, best.dose] if best.dose else plain
    difference = paired_difference(scorer.items(samples, concept), scorer.items(persona, concept))
    return Curve(concept, tuple(rows), tuple(null), scorer.row(persona, concept), coherence, difference)


def _random_row(concept: str, dose: float, scorer: Scorer, runs: Sequence[Samples]) -> RandomRow:
    """Pool the directions by item; keep one mean per direction for the null quantile."""
    table = np.stack([scorer.items(r, concept) for r in runs])
    coherence = scorer.reference.coherence([t for r in runs for t in r.flat])
    receipt = {"fingerprint": "random", "seed": scorer.seed, "revision": scorer.revision}
    return RandomRow(Row.of(dose, table.mean(0), coherence, **receipt), tuple(table.mean(1).tolist()))


def _neutral_share(classifier: TextClassifier, plain: Samples) -> float:
    """Share of unsteered samples whose most likely class is neutral."""
    top = classifier.posterior(plain.flat).argmax(1)
    return float(np.mean(top == classifier.column(NEUTRAL)))
