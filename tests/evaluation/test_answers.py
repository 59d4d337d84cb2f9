"""Answers in free text: what counts, what is missing, and where the log-ratio is read."""

import re

import numpy as np
import pytest

from trimtab.engines import load_engine
from trimtab.engines.requests import Sampling
from trimtab.errors import InputError
from trimtab.evaluation.answers import FINAL, answer_token, find_answer, written
from trimtab.evaluation.log_ratio import Choice


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("No<|endoftext|>", "no"),
        ("<|begin|> Yes.", "yes"),
        ("**Yes**, because", "yes"),
        ("no, I would not", "no"),
        ("Now is the time", None),
        ("None of it", None),
        ("Nobody", None),
        ("Yesterday", None),
        ("I think yes", None),
        ("", None),
    ],
)
def test_short_answers(text, said):
    found = find_answer(text)
    assert (found and found.said) == said


def test_the_last_final_choice_outside_of_reasoning_counts():
    text = "<think>Final choice: No</think> Final choice: No... wait. Final choice: Yes"
    found = find_answer(text, FINAL)
    assert found.said == "yes" and text[found.start :] == "Yes"
    assert find_answer("<think>Final choice: No", FINAL) is None
    assert (
        find_answer("Final choice: No", FINAL, thinking=True) is None
    )  # the prompt opened it, nothing closed it
    assert find_answer("so</think>Final choice: No", FINAL, thinking=True).said == "no"


class Letters:
    """Each token is one piece of text; token 3 is half a character, as byte tokens are."""

    pieces = ("Final", " choice:", " Yes", "\ufffd", "<|end|>")

    def decode(self, tokens, special=False):
        return "".join(self.pieces[t] for t in tokens)


@pytest.mark.parametrize(("start", "token"), [(0, 0), (5, 1), (14, 2), (17, 3), (18, 4)])
def test_the_token_that_holds_a_character(start, token):
    assert answer_token(Letters(), (0, 1, 2, 3, 4), start) == token


def test_each_sample_runs_to_its_own_end_and_the_ratio_is_read_at_the_drawn_token():
    engine = load_engine("tiny", "reference")
    asked = [[{"role": "user", "content": c}] for c in ("we feel really", "they look so", "you")]
    prompts = [engine.encode(m) for m in asked]
    choices = [
        Choice.of(engine, m, yes=("I", " I", "you", " you"), no=("we", " we", "they", " they")) for m in asked
    ]
    subject = re.compile(r"(I|you|we|they)\b")
    options = Sampling(max_tokens=12, temperature=1.0, seed=3)
    together = written(engine, prompts, choices, [None] * 3, pattern=subject, sampling=options)
    for i in range(3):
        alone = written(
            engine, prompts[i : i + 1], choices[i : i + 1], [None], pattern=subject, sampling=options
        )
        assert alone.texts[0] == together.texts[i] and alone.finish[0] == together.finish[i]
        assert np.allclose(alone.ratios.log_ratio, together.ratios.log_ratio[i : i + 1], equal_nan=True)
    answered = [s is not None for s in together.said]
    assert any(answered)
    assert np.array_equal(np.isfinite(together.ratios.log_ratio), answered)
    assert together.missing == pytest.approx(1 - np.mean(answered))


def test_several_samples_of_one_row_are_refused():
    engine = load_engine("tiny", "reference")
    prompt = engine.encode([{"role": "user", "content": "you"}])
    with pytest.raises(InputError, match="one sample per row"):
        written(engine, [prompt], [Choice((1,), (2,))], [None], sampling=Sampling(n=2))
