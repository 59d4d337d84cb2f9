"""A made-up result with known numbers, so that the report can be tested without a model."""

from pathlib import Path

import numpy as np

from trimtab.demo.feelings import Curve, Feelings, RandomRow
from trimtab.demo.honesty import Honesty, HonestyRow
from trimtab.demo.materials import Dilemma, Materials, Story
from trimtab.demo.readings import Reader, Readings, Strip
from trimtab.demo.results import DemoResult, Shown
from trimtab.demo.sampling import Condition, Samples
from trimtab.demo.settings import NEUTRAL, DemoSettings
from trimtab.directions import Direction
from trimtab.evaluation.classifier import Quality, TextClassifier
from trimtab.evaluation.coherence import Reference
from trimtab.evaluation.dose_response import Row
from trimtab.evaluation.statistics import Estimate
from trimtab.readouts import Readout
from trimtab.sites import ModelInfo, Site
from trimtab.training.vector import Learned

SETTINGS = DemoSettings(shown_prompts=3)
QUESTIONS = ("How was your day?", "What did you do <today>?", "Tell me about the market & the mill.")
WORDS = [
    "She ",
    "walked ",
    "to ",
    "the ",
    "mill. ",
    "Then ",
    "she ",
    "laughed ",
    "and ",
    "danced. ",
    "It ",
    "rained.",
]
SITE = Site(3)
RNG = np.random.default_rng(0)


def curve(concept: str, top: float) -> Curve:
    rows, null = [], []
    for dose in SETTINGS.doses:
        score = 0.1 + (top - 0.1) / (1 + np.exp(-6 * (dose - 0.5)))
        coherence = 0.95 if dose < 1.1 else 0.7
        rows.append(
            Row(dose, score, score - 0.06, min(1, score + 0.06), coherence, 32, f"plan{dose:g}", 0, "rev")
        )
        if dose:
            spread = tuple(float(v) for v in np.clip(0.1 + 0.04 * RNG.normal(size=6), 0, 1))
            null.append(RandomRow(Row(dose, 0.1, 0.07, 0.13, 0.94, 32), spread))
    persona = Row(0, 0.62, 0.52, 0.71, 0.95, 32)
    return Curve(
        concept, tuple(rows), tuple(null), persona, 0.95, Estimate(top - 0.65, top - 0.73, top - 0.57, 32)
    )


def strip(seed: int, truth: bool = False) -> Strip:
    z = np.random.default_rng(seed).normal(0, 1.2, size=(len(WORDS), len(SETTINGS.emotions)))
    z[5:, seed % 5] += 2
    names = ("neutral",) * 5 + (SETTINGS.emotions[seed % 5],) * 7
    return Strip(tuple(WORDS), z, names if truth else ())


def honesty_row(dose: float, ratio: float, accuracy: float) -> HonestyRow:
    return HonestyRow(
        dose, accuracy, ratio, ratio - 0.1, ratio + 0.1, 0.5 + ratio / 4, 0.93, 100, 0.97, 1.0, "f", 0, "r"
    )


def samples(name: str, text: str, count: int = 3) -> Samples:
    return Samples(Condition(name), ((text,),) * count)


def honesty() -> Honesty:
    rows = tuple(honesty_row(d, 0.8 + 0.9 * d, 0.99 if d >= 0 else 0.5) for d in SETTINGS.honesty_doses)
    names = ("learned +1", "learned 0", "learned -1", "persona honest", "persona liar")
    direction = Direction.from_raw(
        "honest-learned", SITE, np.ones(8), typical_norm=9.0, provenance={"steps": 60}
    )
    return Honesty(
        mean_diff=rows,
        plus=honesty_row(1, 3.5, 1.0),
        zero=honesty_row(0, 0.8, 0.99),
        minus=honesty_row(-1, -1.8, 0.02),
        persona_honest=honesty_row(0, 5.0, 1.0),
        persona_liar=honesty_row(0, -5.0, 0.0),
        learned=Learned(direction, (1.0, 0.5)),
        seconds=24.0,
        ratios={n: np.linspace(-2, 2, 4) for n in names},
        texts={n: samples(n, f"An answer, {n}.") for n in names},
        dilemmas=tuple(
            Dilemma(f"Is it fair to keep the coin {i}?", "Yes" if i % 2 else "No") for i in range(4)
        ),
    )


class Fixed:
    """Stands for a fitted pipeline: the same posterior for every text."""

    def predict_proba(self, texts):
        return np.full((len(texts), 6), 1 / 6)


def result(folder: Path) -> DemoResult:
    tops = dict(zip(SETTINGS.emotions, (0.75, 0.9, 0.6, 0.85, 0.8)))
    chats = tuple(({"role": "user", "content": q},) for q in QUESTIONS)
    classes = (*SETTINGS.emotions, NEUTRAL)
    quality = Quality(0.94, 0.02, dict.fromkeys(classes, 0.99), 480)
    keys = [(e, d, n) for e in SETTINGS.emotions for d in SETTINGS.doses for n in range(3)]
    told = [(e, n) for e in SETTINGS.emotions for n in range(3)]
    plain = samples("plain", "".join(WORDS))
    feelings = Feelings(
        layers=(1, 2, 3, 4),
        layer_scores={(1, 2, 3, 4): 0.7, (2, 3): 0.6},
        curves={e: curve(e, top) for e, top in tops.items()},
        unsteered=plain,
        steered={(e, d): plain for e in SETTINGS.emotions for d in SETTINGS.doses if d},
        personas=dict.fromkeys(SETTINGS.emotions, plain),
        coherence=0.95,
        neutral_share=0.78,
        classifier=TextClassifier(classes, quality, Fixed()),
    )
    readout = Readout(SETTINGS.emotions, {SITE: np.eye(5, 8)}, {SITE: np.zeros(5)}, {SITE: np.ones(5)})
    reader = Reader(None, readout, SITE, np.zeros(5), np.ones(5))
    auc = {e: 0.9 + 0.01 * i for i, e in enumerate(SETTINGS.emotions)}
    return DemoResult(
        info=ModelInfo("embedded", 6, 256, {Site(i): 256 for i in range(6)}, revision="rev"),
        settings=SETTINGS,
        materials=Materials(
            feelings=(),
            honesty=None,
            personas={e: f"You feel {e}." for e in (*SETTINGS.emotions, "honest", "liar")},
            evaluate=chats,
            select=chats,
            labelled=(("text", NEUTRAL),) * 10,
            stories=(Story("x", "happy", (("happy", 0, 1),)),),
            openings=(),
            train=(),
            held_out=(),
            open_questions=chats,
            reference=Reference(np.arange(5)),
        ),
        feelings=feelings,
        honesty=honesty(),
        readings=Readings(auc, 240, 120, SITE, tuple(strip(i, truth=True) for i in range(3)), reader),
        shown=Shown(
            chats,
            {k: strip(i) for i, k in enumerate(keys)},
            {k: strip(i) for i, k in enumerate(told)},
            dict.fromkeys(keys, 0.42),
            dict.fromkeys(told, 0.6),
        ),
        folder=folder,
        wall_s=61.4,
        timings={"load": 3.0},
    )
