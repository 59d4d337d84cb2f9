"""The demo's claims on its full grid. Slow: it runs the whole demo once."""

import numpy as np
import pytest

from trimtab.demo.run import run
from trimtab.demo.settings import DemoSettings
from trimtab.evaluation.coherence import SLACK, coherent
from trimtab.evaluation.dose_response import rises

pytestmark = [pytest.mark.check, pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def result(model_is_there, tmp_path_factory):
    class Silent:
        def note(self, message):
            pass

        def progress(self, label, total=None):
            from trimtab.cli.progress import Progress

            return Progress(label, total, quiet=True)

    return run(DemoSettings(), tmp_path_factory.mktemp("runs") / "demo", Silent())


def test_the_grid_is_the_promised_one(result):
    s = result.settings
    assert len(s.emotions) == 5 and s.prompts >= 32 and s.samples >= 3 and s.random_directions >= 5
    assert min(s.doses) <= -0.8 and max(s.doses) >= 1.2


@pytest.mark.parametrize("emotion", DemoSettings().emotions)
def test_score_rises_over_four_coherent_doses(result, emotion):
    curve = result.feelings.curves[emotion]
    assert len(curve.rise) >= 4, [(r.dose, r.score, r.coherence) for r in curve.rows]
    assert rises([r.score for r in curve.rise])


@pytest.mark.parametrize("emotion", DemoSettings().emotions)
def test_best_is_clear_of_random_directions(result, emotion):
    curve = result.feelings.curves[emotion]
    assert curve.best.low > curve.null(curve.best.dose)
    assert coherent(curve.best.coherence, curve.unsteered)


def test_steering_keeps_up_with_the_persona_prompt(result):
    differences = [c.difference.mean for c in result.feelings.curves.values()]
    assert np.mean(differences) >= -0.1
    assert sum(d >= -0.1 for d in differences) >= 3


def test_unsteered_reads_neutral(result):
    assert result.feelings.neutral_share >= 0.7
    assert result.feelings.classifier.quality.calibration_error < 0.1


def test_mean_difference_moves_honesty_monotonically(result):
    rows = sorted(result.honesty.mean_diff, key=lambda r: r.dose)
    assert rises([r.score for r in rows]), [(r.dose, r.score, r.log_ratio) for r in rows]
    assert rises([r.log_ratio for r in rows])


def test_learned_vector_flips_honesty_and_keeps_free_text(result):
    h = result.honesty
    assert h.seconds < 60
    assert h.zero.accuracy >= 0.95 and h.plus.accuracy >= 0.95 and h.minus.accuracy <= 0.1
    for row in (h.plus, h.minus):
        assert row.coherence >= h.zero.coherence - SLACK
    assert h.zero.valid > 0.95


def test_readings_tell_emotions_apart(result):
    assert set(result.readings.auc) == set(result.settings.emotions)
    assert min(result.readings.auc.values()) > 0.85
