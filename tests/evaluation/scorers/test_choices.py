"""A/B and multiple choice: planted letters move by what was planted, and knowledge that is left alone does not."""

import json

import numpy as np
import pytest

from evaluation.planted_answers import PlantedEngine, direction
from trimtab.errors import InputError, UnknownName
from trimtab.evaluation.choices.asking import ask
from trimtab.evaluation.choices.effects import effects
from trimtab.evaluation.conditions import PLAIN, Condition
from trimtab.evaluation.samples import Memory
from trimtab.evaluation.scorers import open_scorer
from trimtab.evaluation.scorers.ab_choice import ABChoice, ABItem
from trimtab.evaluation.scorers.choices import mass
from trimtab.evaluation.scorers.multiple_choice import MultipleChoice, Question
from trimtab.plans import SteeringPlan


def push(axis, scale):
    """A condition that displaces the state along one axis."""
    plan = SteeringPlan.add(direction(axis), scale=scale)
    sign = np.sign(scale)
    return Condition(f"axis-{axis} {scale:+g}", "steered", f"axis-{axis}", plan=plan, axes={"sign": sign})


def margins(scorer, rows, condition):
    return scorer.values([r for r in rows if r["condition"] == condition.name], scorer.target)


AB = [
    ABItem("is it so? (A) yes (B) no", "(A)", "(B)"),
    ABItem("was it so? (A) no (B) yes", "(B)", "(A)"),
    ABItem("will it be? (A) yes (B) no", "(A)", "(B)"),
]


def test_the_matching_answer_gains_what_was_planted_on_its_own_letter():
    """The engine favours A by the displacement: items that match with A gain it, the one with B loses it."""
    engine = PlantedEngine(lambda text, moved: {"A": moved[0], "B": 0.0})
    steered = push(0, 2.0)
    rows = ask(engine, ABChoice(), AB, [PLAIN, steered])
    assert np.allclose(margins(ABChoice(), rows, steered), [2.0, -2.0, 2.0])
    assert np.allclose(margins(ABChoice(), rows, PLAIN), 0)
    assert all(mass(r["options"]) == pytest.approx(engine.mass) for r in rows)
    assert [r["target"] for r in rows[::2]] == ["A", "B", "A"]


def test_letters_are_read_behind_the_bracket():
    seen = []
    engine = PlantedEngine(lambda text, moved: seen.append(text) or {"A": 0.0, "B": 0.0})
    ask(engine, ABChoice(), AB[:1], [PLAIN])
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
    scorer, other, broken, mended = MultipleChoice(), push(1, 3.0), push(0, 3.0), push(0, -3.0)
    rows = ask(engine, scorer, QUESTIONS, [PLAIN, other, broken, mended])
    plain = margins(scorer, rows, PLAIN)
    assert np.allclose(plain, [1 - np.log(2), 1.0])
    assert np.allclose(margins(scorer, rows, other), plain)  # another direction leaves it alone
    found = effects(scorer, [PLAIN, broken, mended], rows, 3.0)
    up, down = found.steered
    assert (found.plain.share, up.share, up.lost, up.won) == (1.0, 0.5, 0.5, 0.0)
    # the first question has a C, whose weight goes from 1 to e³; the second has none and stays
    change = np.log(2) - np.log(1 + np.exp(3))
    assert up.change.mean == pytest.approx(change / 2) and up.p == 1.0
    assert down.change.mean == pytest.approx((np.log(2) - np.log(1 + np.exp(-3))) / 2) and down.lost == 0
    assert found.slopes == pytest.approx([-0.5, 0.0])  # ln((1 + e⁻³) / (1 + e³)) = −3, over a way of 6
    assert found.chance == pytest.approx((1 / 3 + 1 / 2) / 2) and found.null is None
    assert "no random directions" in found.notes[0]


def test_an_unmoved_control_has_p_one():
    scorer, conditions = MultipleChoice(), [PLAIN, push(1, 1.0), push(1, -1.0)]
    found = effects(scorer, conditions, ask(PlantedEngine(knowing), scorer, QUESTIONS, conditions), 1.0)
    assert all(s.p == 1.0 and s.change.mean == 0 and s.lost == s.won == 0 for s in found.steered)


def test_a_row_holds_what_scoring_it_again_needs():
    conditions = [PLAIN, push(0, 3.0)]
    rows = ask(PlantedEngine(knowing), MultipleChoice(), QUESTIONS, conditions, seed=7)
    rows = json.loads(json.dumps(rows))  # as a run keeps them
    row = rows[1]
    columns = {"item", "question", "condition", "kind", "fingerprint", "seed", "model", "revision", "options"}
    assert columns <= set(row) and (row["scale"], row["seed"]) == (3.0, 7) and rows[0]["scale"] == 0.0
    nats, share, right = (
        open_scorer("multiple_choice", ["right"], {"unit": unit}).values(rows, "right")
        for unit in ("nats", "probability", "right")
    )
    assert nats == pytest.approx([r["scores"]["multiple_choice"]["right"] for r in rows])
    assert share == pytest.approx(1 / (1 + np.exp(-nats))) and right.tolist() == [1.0, 0.0, 1.0, 1.0]
    with pytest.raises(UnknownName, match="unit"):
        open_scorer("multiple_choice", ["right"], {"unit": "bits"})
    with pytest.raises(InputError, match="trimtab eval ab-choice"):
        open_scorer("ab_choice", ["right"])


def test_an_option_without_probability():
    """Of log-probability −∞, which a run keeps as null."""
    scorer = MultipleChoice()
    assert scorer.value({"A": None, "B": -1.0}, "B") == np.inf
    assert scorer.value({"A": None, "B": None, "C": -1.0}, "A") == -np.inf
    assert np.isnan(scorer.value({"A": None, "B": None}, "B")) and mass({"A": None, "B": 0.0}) == 1.0
    silent = PlantedEngine(lambda text, moved: {"A": -np.inf if moved[0] > 0 else 0.0, "B": 0.0})
    conditions = [PLAIN, push(0, 1.0), push(0, -1.0)]
    found = effects(scorer, conditions, ask(silent, scorer, QUESTIONS[1:], conditions), 1.0)
    assert found.steered[0].share == 0 and found.steered[0].lost == 0


def test_finished_parts_are_not_asked_again():
    ledger, conditions = Memory(), [PLAIN, push(0, 3.0)]
    whole = ask(PlantedEngine(knowing), MultipleChoice(), QUESTIONS, conditions, ledger=ledger, part=3)
    dumb = PlantedEngine(lambda text, moved: pytest.fail("asked again"))
    assert ask(dumb, MultipleChoice(), QUESTIONS, conditions, ledger=ledger, part=3) == whole
    lost = Memory()
    lost.done = dict(list(ledger.done.items())[:2])  # in the middle of the first part
    assert ask(PlantedEngine(knowing), MultipleChoice(), QUESTIONS, conditions, ledger=lost, part=3) == whole


def test_files(tmp_path):
    path = tmp_path / "q.jsonl"
    row = '{"question": "q", "choices": ["a", "b"], "answer": "B"}\n'
    path.write_text(row)
    assert MultipleChoice.load(path) == ([Question("q", ("a", "b"), 1)], ())
    path.write_text(row + row)
    assert MultipleChoice.load(path) == ([Question("q", ("a", "b"), 1)], ("1 repeated questions left out",))
    path.write_text(row + row.replace('"B"', '"A"'))
    with pytest.raises(InputError, match="line 2: an earlier row gives the same question another answer"):
        MultipleChoice.load(path)
    path.write_text('{"question": "q", "choices": ["a", "b"], "answer": 2}\n')
    with pytest.raises(InputError, match="line 1: the answer is the index"):
        MultipleChoice.load(path)
    ab = tmp_path / "ab.json"
    ab.write_text(
        '[{"question": "x (A) y (B) n", "answer_matching_behavior": "(A)", "answer_not_matching_behavior": "(B)"}]'
    )
    assert ABChoice.load(ab)[0] == [ABItem("x (A) y (B) n", "(A)", "(B)")]
