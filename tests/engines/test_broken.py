"""The contract can fail: each broken engine breaks every clause that names its mistake."""

import functools

import pytest
from engines.broken import BROKEN
from engines.contract import CLAUSES
from engines.subjects import reference

CASES = [(name, clause) for name, engine in BROKEN.items() for clause in engine.clauses]


@pytest.mark.parametrize(("name", "clause"), CASES, ids=lambda value: str(value))
def test_the_contract_catches(name, clause):
    with pytest.raises((AssertionError, RuntimeError, KeyError, pytest.fail.Exception)):
        CLAUSES[clause](BROKEN[name].subject())


@functools.cache
def healthy():
    return reference()


@pytest.mark.parametrize("clause", sorted({c for _, c in CASES}))
def test_the_healthy_engine_passes_what_the_broken_ones_fail(clause):
    CLAUSES[clause](healthy())  # asserts inside


def test_every_clause_that_guards_steering_has_an_engine_that_breaks_it():
    caught = {clause for _, clause in CASES}
    unbroken = set(CLAUSES) - caught
    # What is left guards the surface (chat, async, warnings, evidence), not what steering does.
    assert unbroken == {
        "ablate_keeps_a_share",
        "async_is_sync",
        "bare_text_to_a_chat_model_warns_once",
        "chat_renders_the_template",
        "chunks_do_not_matter",
        "empty_plan_is_plain",
        "evidence_is_the_mean_of_captures",
        "sampling_filters_hold",
        "scores_of_prompts_and_texts",
        "streams_add_up",
    }
