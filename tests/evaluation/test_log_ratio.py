"""Log-ratios of hand-made logits, and answers tokenised in context."""

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evaluation.log_ratio import Choice, log_ratio
from trimtab.prompts import Prompt


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
