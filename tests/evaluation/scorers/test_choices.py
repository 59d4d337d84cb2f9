"""A/B and multiple choice: planted letters move by what was planted, and knowledge that is left alone does not."""

import numpy as np
import pytest

from evaluation.planted_answers import PlantedEngine, direction
from trimtab.errors import InputError
from trimtab.evaluation.scorers.ab_choice import ABChoice, ABItem
from trimtab.evaluation.scorers.multiple_choice import Margins, MultipleChoice, Question, moved
from trimtab.plans import SteeringPlan

AB = [
    ABItem("is it so? (A) yes (B) no", "(A)", "(B)"),
    ABItem("was it so? (A) no (B) yes", "(B)", "(A)"),
    ABItem("will it be? (A) yes (B) no", "(A)", "(B)"),
]


def test_the_matching_answer_gains_what_was_planted_on_its_own_letter():
    """The engine favours A by the displacement: items that match with A gain it, the one with B loses it."""
    engine = PlantedEngine(lambda text, moved: {"A": moved[0], "B": 0.0})
    plans = [None, SteeringPlan.add(direction(0), scale=2.0)]
    plain, steered = ABChoice().measure(engine, AB, plans)
    assert np.allclose(steered.log_ratio - plain.log_ratio, [2.0, -2.0, 2.0])
    assert np.allclose(plain.log_ratio, 0) and np.allclose(plain.mass, engine.mass)


def test_letters_are_read_behind_the_bracket():
    seen = []
    engine = PlantedEngine(lambda text, moved: seen.append(text) or {"A": 0.0, "B": 0.0})
    ABChoice().measure(engine, AB[:1], [None])
    assert seen[-1].endswith("(")


QUESTIONS = [
    Question("two and two?", ("three", "four", "five"), 1),
    Question("the sky?", ("blue", "green"), 0),
]


def knowing(text, moved):
    """It knows both answers by 1 nat; displacement 0 makes it prefer C."""
    right = "B" if "two and two" in text else "A"
    return {
        letter: (1.0 if letter == right else 0.0) + (moved[0] if letter == "C" else 0.0) for letter in "ABC"
    }


def test_margins_closed_form_and_flips():
    engine = PlantedEngine(knowing)
    plans = [None, SteeringPlan.add(direction(1), scale=5.0), SteeringPlan.add(direction(0), scale=3.0)]
    plain, other, broken = MultipleChoice().measure(engine, QUESTIONS, plans)
    assert np.allclose(plain.margin, [1 - np.log(2), 1.0]) and plain.right.all()
    assert np.allclose(other.margin, plain.margin)  # another direction leaves it alone
    assert broken.right.tolist() == [False, True]
    found = moved(plain, broken)
    assert (found.before, found.after, found.flipped_wrong, found.flipped_right) == (1.0, 0.5, 0.5, 0.0)
    assert found.margin.mean == pytest.approx(np.mean(broken.margin - plain.margin))


def test_an_unmoved_control_has_p_one():
    table = Margins(np.array([1.0, 2.0, 3.0]), np.array([True] * 3), np.ones(3))
    assert moved(table, table).p == 1.0 and moved(table, table).margin.mean == 0


def test_files(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "q", "choices": ["a", "b"], "answer": "B"}\n')
    assert MultipleChoice.load(path) == [Question("q", ("a", "b"), 1)]
    path.write_text('{"question": "q", "choices": ["a", "b"], "answer": 2}\n')
    with pytest.raises(InputError, match="line 1: the answer is the index"):
        MultipleChoice.load(path)
    ab = tmp_path / "ab.json"
    ab.write_text(
        '[{"question": "x (A) y (B) n", "answer_matching_behavior": "(A)", "answer_not_matching_behavior": "(B)"}]'
    )
    assert ABChoice.load(ab)[0] == [ABItem("x (A) y (B) n", "(A)", "(B)")]
