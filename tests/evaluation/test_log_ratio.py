"""Log-ratios of hand-made logits, and answers tokenised in context."""

import numpy as np
import pytest

from trimtab.directions import Direction
from trimtab.engines import load_engine
from trimtab.errors import InputError
from trimtab.evaluation.answers import written
from trimtab.evaluation.log_ratio import Choice, forced, log_ratio, measure, slot
from trimtab.plans import SteeringPlan
from trimtab.prompts import Prompt
from trimtab.sites import Site


def logits(seed=0, n=3, vocabulary=12):
    raw = np.random.default_rng(seed).normal(size=(n, vocabulary))
    return raw - np.logaddexp.reduce(raw, axis=1, keepdims=True)


CHOICE = Choice(yes=(1, 2), no=(5,))


def test_adding_to_yes_moves_the_ratio_by_exactly_that():
    table = logits()
    moved = table.copy()
    moved[:, [1, 2]] += 0.75
    difference = log_ratio(moved, CHOICE).log_ratio - log_ratio(table, CHOICE).log_ratio
    assert np.allclose(difference, 0.75)


def test_tie_and_mass_closed_form():
    p = np.full(12, 0.02)
    p[[1, 2, 5]] = 0.2, 0.2, 0.4
    found = log_ratio(np.log(p), CHOICE)
    assert found.log_ratio[0] == pytest.approx(0)
    assert found.mass[0] == pytest.approx(0.8) and found.valid[0]
    p[[1, 2, 5]] = 0.1, 0.1, 0.2
    assert not log_ratio(np.log(p), CHOICE).valid[0]


def test_choices_are_disjoint():
    with pytest.raises(InputError, match="disjoint"):
        Choice((1,), (1, 2))
    with pytest.raises(InputError, match="non-empty"):
        Choice((), (1,))


FORMS = {"Yes": (3,), "yes": (4, 5), " Yes": (9, 3), "No": (6,), " No": (9, 6), "no": (8, 5), "merged": None}


class Tokens:
    """An engine that tokenises "Yes", " Yes" and so on after a prompt of two tokens; ' ' is token 9."""

    def encode(self, messages, prefill=None):
        if prefill is None:
            return Prompt((1, 2))
        own = FORMS[prefill]
        return Prompt((1, 7)) if own is None else Prompt((1, 2, *own))


def test_only_whole_forms_count():
    choice = Choice.of(Tokens(), [], yes=("Yes", "yes", " Yes", "merged"), no=("No", " No"))
    assert choice == Choice((3,), (6,))


def test_pieces_count_where_nothing_is_whole_and_shared_ones_are_left_out():
    choice = Choice.of(Tokens(), [], yes=("yes", " Yes"), no=("no", " No"))
    assert choice == Choice((4,), (8,))
    with pytest.raises(InputError, match="disjoint"):
        Choice.of(Tokens(), [], yes=(" Yes",), no=("No",)[:0])


def test_entropy_closed_form():
    p = np.zeros(12)
    p[[1, 5]] = 0.5
    with np.errstate(divide="ignore"):
        found = log_ratio(np.log(p), CHOICE)
    assert found.entropy[0] == pytest.approx(np.log(2)) and found.valid_share == 1.0
    assert log_ratio(np.log(np.full(12, 1 / 12)), CHOICE).entropy[0] == pytest.approx(np.log(12))


def test_swapped_answers_change_the_sign_only():
    table = logits(3)
    there, back = log_ratio(table, CHOICE), log_ratio(table, CHOICE.swapped)
    assert np.allclose(there.log_ratio, -back.log_ratio) and np.allclose(there.mass, back.mass)


class Thinks(Tokens):
    """A template that opens reasoning unless it is told not to."""

    def encode(self, messages, prefill=None, thinking=None):
        text = "<assistant>" if thinking is False else "<assistant><think>\n"
        return Prompt((1, 2), text=text + (prefill or ""))


def test_reasoning_that_the_template_opens_is_closed_before_the_slot():
    assert slot(Thinks(), []).text == "<assistant><think>\n\n</think>\n\nMy choice:"
    assert slot(Thinks(), [], thinking=False).text == "<assistant>My choice:"


MESSAGES = [{"role": "user", "content": "are you happy?"}]


def test_rows_of_several_plans_share_a_batch_and_equal_single_measurements():
    engine = load_engine("tiny", "reference")
    site = Site(2)
    joy = Direction("joy", site, engine.planted["joy"], norm=3.0)
    plans = [None, SteeringPlan.add(joy, scale=2.0), SteeringPlan.add(joy, scale=-2.0)]
    prompt = slot(engine, MESSAGES, "I feel really")
    choice = Choice.of(engine, MESSAGES, yes=(" happy",), no=(" sad",), prefix="I feel really")
    together = forced(engine, [prompt] * 3, [choice] * 3, plans, batch=2)
    alone = [measure(engine, [prompt], choice, p).log_ratio[0] for p in plans]
    assert np.allclose(together.ratios.log_ratio, alone)
    assert alone[1] > alone[0] + 1 > alone[2] + 2  # the planted direction moves its own words apart
    assert together.prompt_nll[0] != together.prompt_nll[1]  # the plan acts on the prompt's tokens too


@pytest.mark.engine
def test_the_embedded_model_answers_whole_words_and_a_foreign_slot_has_no_mass():
    engine = load_engine("embedded")
    ask = [
        {
            "role": "user",
            "content": "You broke the oar of Paul. Nobody saw it. Would you explain what you did?",
        }
    ]
    choice = Choice.of(engine, ask)
    assert {engine.decode([t]).strip().lower() for t in choice.yes} == {"yes"}
    assert {engine.decode([t]).strip().lower() for t in choice.no} == {"no"}
    found = measure(engine, [slot(engine, ask, "")], choice)
    assert found.mass[0] > 0.95 and found.log_ratio[0] > 0
    # It was never shown this prefix: the mass check says that the forced choice means nothing here.
    foreign = measure(engine, [slot(engine, ask, "My choice:")], Choice.of(engine, ask, prefix="My choice:"))
    assert not foreign.valid[0]
    free = written(engine, [slot(engine, ask, "")], [choice], [None])
    assert free.said == ("yes",) and np.allclose(free.ratios.log_ratio, found.log_ratio, atol=1e-4)
