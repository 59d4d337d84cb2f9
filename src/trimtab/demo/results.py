"""What the demo found, as values and as its one line of JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.demo.feelings import Feelings
from trimtab.demo.honesty import Honesty
from trimtab.demo.materials import Materials, Messages
from trimtab.demo.readings import Readings, Strip
from trimtab.demo.settings import NEUTRAL, DemoSettings
from trimtab.engines import DEFAULT
from trimtab.sites import ModelInfo


@dataclass(frozen=True, eq=False)
class Shown:
    """Completions for the report's dial: prompts, and a strip for each (emotion, dose, prompt); dose 0 is
    shared.

    `told` holds the persona prompt's completions; `score` the classifier's posterior of the emotion for
    each text.
    """

    prompts: tuple[Messages, ...]
    strips: dict[tuple[str, float, int], Strip]
    told: dict[tuple[str, int], Strip]
    score: dict[tuple[str, float, int], float]
    told_score: dict[tuple[str, int], float]


@dataclass(frozen=True, eq=False)
class DemoResult:
    """Everything that the terminal, the report and the JSON line are made of."""

    info: ModelInfo
    settings: DemoSettings
    materials: Materials
    feelings: Feelings
    honesty: Honesty
    readings: Readings
    shown: Shown
    folder: Path
    wall_s: float
    timings: dict[str, float]
    engine: str = DEFAULT

    @property
    def report(self) -> Path:
        """The HTML file."""
        return self.folder / "report.html"

    def to_json(self) -> dict[str, Any]:
        """The line that `trimtab demo --json` prints; everything beyond its contract stands under `detail`."""
        f, h = self.feelings, self.honesty
        curves = f.curves
        return {
            "model": self.info.id,
            "concepts": [*curves, "honest"],
            "dose_response": {c: [r.to_json() for r in v.rows] for c, v in curves.items()},
            "random_baseline": {
                c: [{**r.row.to_json(), "q95": r.q95, "scores": list(r.scores)} for r in v.random]
                for c, v in curves.items()
            },
            "persona_prompt": {c: v.persona.to_json() for c, v in curves.items()},
            "best": {c: v.best.dose for c, v in curves.items()},
            "honesty": {
                "mean_diff": [r.to_json() for r in h.mean_diff],
                "learned": {
                    "plus": h.plus.to_json(),
                    "zero": h.zero.to_json(),
                    "minus": h.minus.to_json(),
                    "seconds": h.seconds,
                },
            },
            "readings_auc": self.readings.auc,
            "wall_s": self.wall_s,
            "report": str(self.report),
            "detail": self._detail(),
        }

    def _detail(self) -> dict[str, Any]:
        f, h = self.feelings, self.honesty
        return {
            "best_minus_persona": {c: asdict(v.difference) for c, v in f.curves.items()},
            "mean_best_minus_persona": float(np.mean([v.difference.mean for v in f.curves.values()])),
            "random_q95_at_best": {
                c: v.null(v.best.dose) if v.best.dose else None for c, v in f.curves.items()
            },
            "rise": {c: [r.dose for r in v.rise] for c, v in f.curves.items()},
            "unsteered_coherence": f.coherence,
            "unsteered_neutral_share": f.neutral_share,
            "neutral_class": NEUTRAL,
            "layers": list(f.layers),
            "layer_scores": {",".join(map(str, k)): v for k, v in f.layer_scores.items()},
            "classifier": asdict(f.classifier.quality),
            "persona_honesty": {
                "honest": h.persona_honest.to_json(),
                "liar": h.persona_liar.to_json(),
            },
            "learned": dict(h.learned.direction.provenance) | {"norm": h.learned.direction.norm},
            "revision": self.info.revision,
            "settings": asdict(self.settings),
            "timings": self.timings,
        }
